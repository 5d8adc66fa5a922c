// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_RECORD_HPP
#define IDEM_DETAIL_SQLITE_RECORD_HPP

// The records of one table, and what they mean for a claim.

#include <idem/dedup_store.hpp>
#include <idem/detail/sqlite_call.hpp>
#include <idem/detail/sqlite_schema.hpp>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace idem::inline v0::detail {

inline std::int64_t sqlite_millis(Timestamp time) noexcept {
    return time.time_since_epoch().count();
}
inline Fingerprint sqlite_fingerprint(std::string_view bytes, std::int64_t algorithm) noexcept {
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
/// Throws: StoreError unavailable.
inline void require_known_format(std::int64_t format) {
    if (format > sqlite_record_format) {
        throw StoreError(Fault::unavailable,
                         "idem: the record of this key has format " + std::to_string(format) +
                             ", this program knows up to " + std::to_string(sqlite_record_format) +
                             ": upgrade it");
    }
}

/// The records of one table. Its members throw SqliteError, and the StoreError of a newer format.
class SqliteRecords {
public:
    explicit SqliteRecords(std::string_view table)
        : read_{SqliteOwn::read, sqlite_statement(sqlite_read, table)}
        , complete_{SqliteOwn::complete, sqlite_statement(sqlite_complete, table)}
        , charge_{SqliteOwn::charge, sqlite_statement(sqlite_charge, table)}
        , lock_{SqliteOwn::lock, sqlite_statement(sqlite_lock, table)}
        , touch_(sqlite_statement(sqlite_touch, table)) {}

    [[nodiscard]] Claim<std::monostate>
    claim(SqliteSession& session, const ClaimRequest& request, Timestamp now) const {
        const auto record = find(session, request.key);
        if (record) {
            require_known_format(record->format);
        }
        if (!record || record->expires <= sqlite_millis(now)) {
            return Claimed<std::monostate>{};
        }
        if (request.fingerprint.conflicts_with(record->fingerprint)) {
            return Conflict{};
        }
        switch (record->state) {
        case SqliteState::completed:
            return Completed{record->result, milliseconds{age(record->changed, now)}};
        case SqliteState::parked:
            return Parked{};
        case SqliteState::open:
        case SqliteState::dead: // for the limit of this request, which may be another by now
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
        write(session, charge_, request, why.substr(0, longest_note), now, request.max_attempts);
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
                      .fingerprint = sqlite_fingerprint(call.bytes(2), call.integer(3)),
                      .attempts = static_cast<unsigned>(call.integer(4)),
                      .result = std::string(call.bytes(5))};
    }
    template <class Content, class... More>
    static void write(SqliteSession& session,
                      const SqliteStatement& statement,
                      const ClaimRequest& request,
                      Content content,
                      Timestamp now,
                      More... more) {
        // No record is kept for longer than a century, so that no sum overflows.
        constexpr seconds longest{std::int64_t{100} * 366 * 86'400};
        const auto retention = request.retention < longest ? request.retention : longest;
        const auto digest = bytes_of(request.fingerprint);
        SqliteCall(session,
                   statement,
                   blob_of(request.key.scope),
                   blob_of(request.key.id),
                   blob_of({digest.data(), digest.size()}),
                   request.fingerprint.algorithm,
                   content,
                   sqlite_millis(now),
                   sqlite_millis(now + retention),
                   more...)
            .finish();
    }
    /// Not below zero where the clock was set back.
    static std::int64_t age(std::int64_t changed, Timestamp now) noexcept {
        return sqlite_millis(now) > changed ? sqlite_millis(now) - changed : 0;
    }
    static std::array<char, 16> bytes_of(const Fingerprint& print) noexcept {
        std::array<char, 16> bytes{};
        for (std::size_t at = 0; at < 16; ++at) {
            const auto half = at < 8 ? print.high : print.low;
            bytes[at] = static_cast<char>(half >> (8 * (7 - at % 8)) & 0xff);
        }
        return bytes;
    }

    SqliteStatement read_, complete_, charge_, lock_;
    std::string touch_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_RECORD_HPP
