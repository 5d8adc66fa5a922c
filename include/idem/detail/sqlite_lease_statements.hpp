// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_LEASE_STATEMENTS_HPP
#define IDEM_DETAIL_SQLITE_LEASE_STATEMENTS_HPP

// The statements of leases over the table of records.

#include <idem/detail/sqlite.hpp>
#include <idem/detail/sqlite_schema.hpp>

#include <string>
#include <string_view>

namespace idem::inline v0::detail {

inline constexpr std::string_view sqlite_lease_last_fence = R"sql(
SELECT last FROM main."{table}_fence"
)sql";
inline constexpr std::string_view sqlite_lease_keep_fence = R"sql(
INSERT OR REPLACE INTO main."{table}_fence" (only_row, last) VALUES (1, ?1)
)sql";

/// Invariants: under the write lock, of a record that was read and judged free under it; no record
/// expires before its lease; the fence exceeds all that were given out for the key. The note of the
/// last failure stays.
inline constexpr std::string_view sqlite_lease_take = R"sql(
INSERT INTO main."{table}" AS old
    (scope, id, format, state, fingerprint, algorithm, attempts, changed, expires, lease_until,
     fence, owner, holder, note, result)
VALUES (?1, ?2, 1, 1, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, '', x'')
ON CONFLICT (scope, id) DO UPDATE SET
    format = 1, state = 1, fingerprint = excluded.fingerprint, algorithm = excluded.algorithm,
    attempts = excluded.attempts, changed = excluded.changed, expires = excluded.expires,
    lease_until = excluded.lease_until, fence = excluded.fence, owner = excluded.owner,
    holder = excluded.holder, result = x'',
    note = CASE WHEN old.expires > ?6 THEN old.note ELSE '' END
WHERE old.format <= 1
)sql";

/// A record whose attempts are used up, found by a claim.
inline constexpr std::string_view sqlite_lease_bury = R"sql(
UPDATE main."{table}" SET state = 3, lease_until = 0, owner = x'', changed = ?3, expires = ?4
WHERE scope = ?1 AND id = ?2 AND state = 1 AND format <= 1 AND lease_until <= ?3
)sql";

// Invariant of what owners do: nothing but the owner's own record, still open. ?3 is the nonce, ?4
// the fence, ?5 the time of the machine's clock, ?6 the retention or the lease from then on.

/// The owner stays on the record, so that a repetition is recognised.
inline constexpr std::string_view sqlite_lease_complete = R"sql(
UPDATE main."{table}" SET
    state = 2, lease_until = 0, changed = ?5, expires = ?5 + ?6, note = '', result = ?7
WHERE scope = ?1 AND id = ?2 AND owner = ?3 AND fence = ?4 AND state = 1 AND format <= 1
)sql";

inline constexpr std::string_view sqlite_lease_renew = R"sql(
UPDATE main."{table}" SET lease_until = ?5 + ?6, expires = max(expires, ?5 + ?6)
WHERE scope = ?1 AND id = ?2 AND owner = ?3 AND fence = ?4 AND state = 1 AND format <= 1
)sql";

/// Given back: ?7 attempts are not counted after all; at ?8 of them, unless it is 0, it is dead.
inline constexpr std::string_view sqlite_lease_give_back = R"sql(
UPDATE main."{table}" SET
    state = CASE WHEN ?8 > 0 AND attempts - ?7 >= ?8 THEN 3 ELSE 1 END,
    attempts = max(attempts - ?7, 0), lease_until = 0, owner = x'', changed = ?5,
    expires = ?5 + ?6, note = CASE WHEN ?9 = '' THEN note ELSE ?9 END
WHERE scope = ?1 AND id = ?2 AND owner = ?3 AND fence = ?4 AND state = 1 AND format <= 1
)sql";

/// The owner stays here too.
inline constexpr std::string_view sqlite_lease_park = R"sql(
UPDATE main."{table}" SET
    state = 4, lease_until = 0, changed = ?5, expires = ?5 + ?6, note = ?7
WHERE scope = ?1 AND id = ?2 AND owner = ?3 AND fence = ?4 AND state = 1 AND format <= 1
)sql";

/// A token for one message, good for a first redeem until lease_until.
inline constexpr std::string_view sqlite_lease_issue = R"sql(
INSERT INTO main."{table}"
    (scope, id, format, state, fingerprint, algorithm, attempts, changed, expires, lease_until,
     note, result)
VALUES (?1, ?2, 1, 0, ?3, ?4, 0, ?5, ?6, ?7, '', x'')
)sql";

struct SqliteLeaseStatements {
    explicit SqliteLeaseStatements(std::string_view table)
        : last_fence{SqliteOwn::lease_last_fence, sqlite_statement(sqlite_lease_last_fence, table)}
        , keep_fence{SqliteOwn::lease_keep_fence, sqlite_statement(sqlite_lease_keep_fence, table)}
        , take{SqliteOwn::lease_take, sqlite_statement(sqlite_lease_take, table)}
        , complete{SqliteOwn::lease_complete, sqlite_statement(sqlite_lease_complete, table)}
        , renew{SqliteOwn::lease_renew, sqlite_statement(sqlite_lease_renew, table)}
        , give_back{SqliteOwn::lease_give_back, sqlite_statement(sqlite_lease_give_back, table)}
        , bury(sqlite_statement(sqlite_lease_bury, table))
        , park(sqlite_statement(sqlite_lease_park, table))
        , issue(sqlite_statement(sqlite_lease_issue, table)) {}

    SqliteStatement last_fence, keep_fence, take, complete, renew, give_back;
    std::string bury, park, issue;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_LEASE_STATEMENTS_HPP
