// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_FENCES_HPP
#define IDEM_DETAIL_SQLITE_FENCES_HPP

// The fence rows of one table: how far each partition is handled.

#include <idem/detail/sqlite_call.hpp>
#include <idem/detail/sqlite_record.hpp>
#include <idem/detail/sqlite_schema.hpp>
#include <idem/fenced_store.hpp>
#include <idem/outcome.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Invariants. One row per handler's scope and partition. `handled` is the last offset whose
/// message took effect, or was dead-lettered; -1: none yet. It never falls. `attempts` counts the
/// failures of the one offset `tried`. `owner` is the nonce of the transaction that moved the row
/// last.
inline constexpr std::string_view sqlite_fence_schema = R"sql(
CREATE TABLE IF NOT EXISTS main."{table}_offset" (
    scope          BLOB    NOT NULL,
    partition_name BLOB    NOT NULL,
    handled        INTEGER NOT NULL,
    tried          INTEGER NOT NULL,
    attempts       INTEGER NOT NULL,
    changed        INTEGER NOT NULL,
    owner          BLOB    NOT NULL,
    note           TEXT    NOT NULL,
    PRIMARY KEY (scope, partition_name)
) WITHOUT ROWID;
)sql";

inline constexpr std::string_view sqlite_fence_read = R"sql(
SELECT handled, tried, attempts, owner FROM main."{table}_offset"
WHERE scope = ?1 AND partition_name = ?2
)sql";

/// Invariant: moves a row forward, or makes it, and changes nothing else. The failures of this very
/// offset stay.
inline constexpr std::string_view sqlite_fence_advance = R"sql(
INSERT INTO main."{table}_offset" AS old
    (scope, partition_name, handled, tried, attempts, changed, owner, note)
VALUES (?1, ?2, ?3, ?3, 0, ?4, ?5, '')
ON CONFLICT (scope, partition_name) DO UPDATE SET
    handled = excluded.handled, tried = excluded.tried,
    attempts = CASE WHEN old.tried = excluded.tried THEN old.attempts ELSE 0 END,
    changed = excluded.changed, owner = excluded.owner, note = ''
WHERE old.handled < excluded.handled
)sql";

/// Invariant: an offset that is handled is not counted, and `handled` does not change.
inline constexpr std::string_view sqlite_fence_charge = R"sql(
INSERT INTO main."{table}_offset" AS old
    (scope, partition_name, handled, tried, attempts, changed, owner, note)
VALUES (?1, ?2, -1, ?3, 1, ?4, x'', ?5)
ON CONFLICT (scope, partition_name) DO UPDATE SET
    attempts = CASE WHEN old.tried = excluded.tried THEN old.attempts + 1 ELSE 1 END,
    tried = excluded.tried, changed = excluded.changed, note = excluded.note
WHERE old.handled < excluded.tried
)sql";

/// Invariant: nothing but a failure of this offset is taken back.
inline constexpr std::string_view sqlite_fence_refund = R"sql(
UPDATE main."{table}_offset" SET attempts = attempts - 1
WHERE scope = ?1 AND partition_name = ?2 AND tried = ?3 AND attempts > 0 AND handled < ?3
)sql";

struct SqliteFence {
    explicit SqliteFence(const SqliteCall& call)
        : handled(call.integer(0))
        , tried(call.integer(1))
        , attempts(static_cast<unsigned>(call.integer(2)))
        , owner(call.bytes(3)) {}
    std::int64_t handled, tried;
    unsigned attempts;
    std::string owner;
};

/// What a transaction moved, to be recognised after a COMMIT in doubt.
struct SqliteAdvanced {
    std::string scope, partition;
    std::int64_t offset;
    std::string owner;
};

[[nodiscard]] inline std::int64_t fence_offset(const Position& position) noexcept {
    return static_cast<std::int64_t>(position.offset); // as require_valid() allows it
}

/// Its members throw SqliteError.
class SqliteFences {
public:
    explicit SqliteFences(std::string_view table)
        : read_{SqliteOwn::fence_read, sqlite_statement(sqlite_fence_read, table)}
        , advance_{SqliteOwn::fence_advance, sqlite_statement(sqlite_fence_advance, table)}
        , charge_(sqlite_statement(sqlite_fence_charge, table))
        , refund_(sqlite_statement(sqlite_fence_refund, table)) {}

    [[nodiscard]] std::optional<SqliteFence>
    find(SqliteSession& session, std::string_view scope, std::string_view partition) const {
        SqliteCall call(session, read_, blob_of(scope), blob_of(partition));
        return call.next() ? std::optional<SqliteFence>(std::in_place, call) : std::nullopt;
    }
    /// Claimed: the row may be moved to this offset, by who has the write lock.
    [[nodiscard]] Claim<std::monostate>
    judge(SqliteSession& session, std::string_view scope, const Position& position) const {
        const auto row = find(session, scope, position.partition);
        const auto offset = fence_offset(position);
        if (row && row->handled >= offset) {
            return Completed{omitted_result()};
        }
        const bool failed = row && row->tried == offset;
        return Claimed<std::monostate>{.ticket = {}, .attempt = failed ? row->attempts + 1 : 1};
    }
    /// False: the row is at this offset or past it.
    bool advance(SqliteSession& session,
                 std::string_view scope,
                 const Position& position,
                 std::string_view owner,
                 Timestamp now) const {
        const int before = sqlite3_total_changes(session.native());
        SqliteCall(session,
                   advance_,
                   blob_of(scope),
                   blob_of(position.partition),
                   fence_offset(position),
                   sqlite_millis(now),
                   blob_of(owner))
            .finish();
        return sqlite3_total_changes(session.native()) != before;
    }
    void charge(SqliteSession& session,
                std::string_view scope,
                const Position& position,
                std::string_view why,
                Timestamp now) const {
        SqliteCall(session,
                   charge_,
                   blob_of(scope),
                   blob_of(position.partition),
                   fence_offset(position),
                   sqlite_millis(now),
                   sqlite_note(why))
            .finish();
    }
    void refund(SqliteSession& session, std::string_view scope, const Position& position) const {
        SqliteCall(
            session, refund_, blob_of(scope), blob_of(position.partition), fence_offset(position))
            .finish();
    }
    /// Whether the row is as this transaction left it.
    [[nodiscard]] bool holds(SqliteSession& session, const SqliteAdvanced& moved) const {
        const auto row = find(session, moved.scope, moved.partition);
        return row && row->handled == moved.offset && row->owner == moved.owner;
    }

private:
    SqliteStatement read_, advance_;
    std::string charge_, refund_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_FENCES_HPP
