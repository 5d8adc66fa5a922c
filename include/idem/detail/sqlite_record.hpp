// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_RECORD_HPP
#define IDEM_DETAIL_SQLITE_RECORD_HPP

// The table of records: its schema, its statements, and what they mean for a claim.

#include <idem/dedup_store.hpp>
#include <idem/detail/sqlite_call.hpp>

#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>

namespace idem::inline v0::detail {

/// Of the record's columns and their meaning. A record of a newer format is not judged.
inline constexpr std::int64_t sqlite_record_format = 1;

enum class SqliteState : std::int64_t { open = 1, completed = 2, dead = 3, parked = 4 };

/// Invariants. One record per key, whatever its bytes: both parts are blobs, compared byte by byte.
/// A record whose `expires` has passed counts as absent. `fingerprint` has 16 bytes, high first; it
/// says nothing where `algorithm` is 0. Times are milliseconds since 1970 by the clock of the
/// machine.
inline constexpr std::string_view sqlite_schema = R"sql(
CREATE TABLE IF NOT EXISTS main."{table}" (
    scope       BLOB    NOT NULL,
    id          BLOB    NOT NULL,
    format      INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    fingerprint BLOB    NOT NULL,
    algorithm   INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    result      BLOB    NOT NULL,
    note        TEXT    NOT NULL,
    changed     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    PRIMARY KEY (scope, id)
) WITHOUT ROWID
)sql";

inline constexpr std::string_view sqlite_read = R"sql(
SELECT format, state, fingerprint, algorithm, attempts, result, changed, expires
FROM main."{table}" WHERE scope = ?1 AND id = ?2
)sql";

/// Invariant: a completed record that has not expired, and one of a newer format, are never
/// changed. The fingerprint of an earlier attempt stays where this one has none.
inline constexpr std::string_view sqlite_complete = R"sql(
INSERT INTO main."{table}" AS old
    (scope, id, format, state, fingerprint, algorithm, attempts, result, note, changed, expires)
VALUES (?1, ?2, 1, 2, ?3, ?4, 1, ?5, '', ?6, ?7)
ON CONFLICT (scope, id) DO UPDATE SET
    format = 1, state = 2, result = excluded.result, note = '',
    fingerprint = CASE WHEN excluded.algorithm = 0 AND old.expires > ?6
                       THEN old.fingerprint ELSE excluded.fingerprint END,
    algorithm = CASE WHEN excluded.algorithm = 0 AND old.expires > ?6
                     THEN old.algorithm ELSE excluded.algorithm END,
    attempts = CASE WHEN old.expires > ?6 THEN old.attempts + 1 ELSE 1 END,
    changed = excluded.changed, expires = excluded.expires
WHERE old.format <= 1 AND (old.state <> 2 OR old.expires <= ?6)
)sql";

/// Invariant: only an open or an expired record is changed. The first fingerprint stays.
inline constexpr std::string_view sqlite_charge = R"sql(
INSERT INTO main."{table}" AS old
    (scope, id, format, state, fingerprint, algorithm, attempts, result, note, changed, expires)
VALUES (?1, ?2, 1, 1, ?3, ?4, 1, x'', ?5, ?6, ?7)
ON CONFLICT (scope, id) DO UPDATE SET
    format = 1, state = 1, result = x'', note = excluded.note,
    fingerprint = CASE WHEN old.algorithm <> 0 AND old.expires > ?6
                       THEN old.fingerprint ELSE excluded.fingerprint END,
    algorithm = CASE WHEN old.algorithm <> 0 AND old.expires > ?6
                     THEN old.algorithm ELSE excluded.algorithm END,
    attempts = CASE WHEN old.expires > ?6 THEN old.attempts + 1 ELSE 1 END,
    changed = excluded.changed, expires = excluded.expires
WHERE old.format <= 1 AND (old.state = 1 OR old.expires <= ?6)
)sql";

/// Takes the write lock and changes nothing: no record has an empty key.
inline constexpr std::string_view sqlite_lock = R"sql(
DELETE FROM main."{table}" WHERE scope = x'' AND id = x''
)sql";

/// With sqlite_lock after it, a change that leaves everything as it was but is written and synced.
inline constexpr std::string_view sqlite_touch = R"sql(
INSERT OR REPLACE INTO main."{table}"
    (scope, id, format, state, fingerprint, algorithm, attempts, result, note, changed, expires)
VALUES (x'', x'', 1, 1, x'', 0, 0, x'', '', 0, 0)
)sql";

inline std::string sqlite_statement(std::string_view pattern, std::string_view table) {
    std::string sql(pattern);
    constexpr std::string_view mark = "{table}";
    sql.replace(sql.find(mark), mark.size(), table);
    return sql;
}

/// Throws: std::invalid_argument.
inline void require_sqlite_table(std::string_view table) {
    auto letter = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    };
    bool plain = !table.empty() && table.size() <= 63 && letter(table.front());
    for (const char c : table) {
        plain = plain && (letter(c) || (c >= '0' && c <= '9'));
    }
    if (!plain) {
        throw std::invalid_argument(
            "idem: SqliteOptions::table must be 1 to 63 letters, digits and "
            "underscores, and not begin with a digit: \"" +
            std::string(table) + "\"");
    }
}

/// The records of one table. Its members throw SqliteError, and the StoreError of a newer format.
class SqliteRecords {
public:
    explicit SqliteRecords(std::string_view table)
        : read_(sqlite_statement(sqlite_read, table))
        , complete_(sqlite_statement(sqlite_complete, table))
        , charge_(sqlite_statement(sqlite_charge, table))
        , lock_(sqlite_statement(sqlite_lock, table))
        , touch_(sqlite_statement(sqlite_touch, table)) {}

    [[nodiscard]] Claim<std::monostate>
    claim(SqliteSession& session, const ClaimRequest& request, Timestamp now) const {
        const auto record = find(session, request.key);
        if (record && record->format > sqlite_record_format) {
            throw StoreError(Fault::unavailable,
                             "idem: the record of this key has format " +
                                 std::to_string(record->format) + ", this program knows up to " +
                                 std::to_string(sqlite_record_format) + ": upgrade it");
        }
        if (!record || record->expires <= millis(now)) {
            return Claimed<std::monostate>{};
        }
        if (request.fingerprint.conflicts_with(record->fingerprint)) {
            return Conflict{};
        }
        switch (record->state) {
        case SqliteState::completed:
            return Completed{record->result, milliseconds{age(record->changed, now)}};
        case SqliteState::dead:
            return Dead{record->attempts};
        case SqliteState::parked:
            return Parked{};
        case SqliteState::open:
            break;
        }
        if (request.max_attempts > 0 && record->attempts >= request.max_attempts) {
            return Dead{record->attempts};
        }
        return Claimed<std::monostate>{.ticket = {}, .attempt = record->attempts + 1};
    }
    /// False: the record is not as asked.
    [[nodiscard]] bool complete(SqliteSession& session,
                                const ClaimRequest& request,
                                std::string_view result,
                                Timestamp now) const {
        const int before = sqlite3_total_changes(session.native());
        write(session, complete_, request, blob_of(result), now);
        return sqlite3_total_changes(session.native()) != before;
    }
    /// Counts a failed attempt.
    void charge(SqliteSession& session,
                const ClaimRequest& request,
                std::string_view why,
                Timestamp now) const {
        constexpr std::size_t longest_note = 1'024;
        write(session, charge_, request, why.substr(0, longest_note), now);
    }
    void lock(SqliteSession& session) const { SqliteCall(session, lock_).finish(); }
    /// Makes the next commit write to the file, whatever else it holds.
    void touch(SqliteSession& session) const {
        SqliteCall(session, touch_).finish();
        lock(session);
    }
    /// Whether the key is completed with this result.
    [[nodiscard]] bool
    holds(SqliteSession& session, const Key& key, std::string_view result) const {
        const auto record = find(session, key);
        return record && record->format == sqlite_record_format &&
               record->state == SqliteState::completed && record->result == result;
    }

private:
    struct Record {
        std::int64_t format, changed, expires;
        SqliteState state;
        Fingerprint fingerprint;
        unsigned attempts;
        std::string result;
    };

    [[nodiscard]] std::optional<Record> find(SqliteSession& session, const Key& key) const {
        SqliteCall call(session, read_, blob_of(key.scope), blob_of(key.id));
        if (!call.next()) {
            return std::nullopt;
        }
        return Record{.format = call.integer(0),
                      .changed = call.integer(6),
                      .expires = call.integer(7),
                      .state = static_cast<SqliteState>(call.integer(1)),
                      .fingerprint = fingerprint(call.bytes(2), call.integer(3)),
                      .attempts = static_cast<unsigned>(call.integer(4)),
                      .result = std::string(call.bytes(5))};
    }
    template <class Content>
    static void write(SqliteSession& session,
                      std::string_view sql,
                      const ClaimRequest& request,
                      Content content,
                      Timestamp now) {
        // No record is kept for longer than a century, so that no sum overflows.
        constexpr seconds longest{std::int64_t{100} * 366 * 86'400};
        const auto retention = request.retention < longest ? request.retention : longest;
        const auto digest = bytes_of(request.fingerprint);
        SqliteCall(session,
                   sql,
                   blob_of(request.key.scope),
                   blob_of(request.key.id),
                   blob_of({digest.data(), digest.size()}),
                   request.fingerprint.algorithm,
                   content,
                   millis(now),
                   millis(now + retention))
            .finish();
    }
    static std::int64_t millis(Timestamp time) noexcept { return time.time_since_epoch().count(); }
    /// Not below zero where the clock was set back.
    static std::int64_t age(std::int64_t changed, Timestamp now) noexcept {
        return millis(now) > changed ? millis(now) - changed : 0;
    }
    static std::array<char, 16> bytes_of(const Fingerprint& print) noexcept {
        std::array<char, 16> bytes{};
        for (std::size_t at = 0; at < 16; ++at) {
            const auto half = at < 8 ? print.high : print.low;
            bytes[at] = static_cast<char>(half >> (8 * (7 - at % 8)) & 0xff);
        }
        return bytes;
    }
    static Fingerprint fingerprint(std::string_view bytes, std::int64_t algorithm) noexcept {
        Fingerprint print;
        if (bytes.size() == 16) {
            print.algorithm = static_cast<std::uint32_t>(algorithm);
            for (std::size_t at = 0; at < 16; ++at) {
                auto& half = at < 8 ? print.high : print.low;
                half = half << 8U | static_cast<unsigned char>(bytes[at]);
            }
        }
        return print;
    }

    std::string read_, complete_, charge_, lock_, touch_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_RECORD_HPP
