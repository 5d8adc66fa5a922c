// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_FENCE_STATEMENTS_HPP
#define IDEM_DETAIL_POSTGRES_FENCE_STATEMENTS_HPP

// The statements over the fence rows (postgres_schema.hpp).

#include <idem/detail/postgres_statements.hpp>

#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Invariants: it never waits for another transaction at the row, since all who write it hold the
/// lock that is tried; it moves the row forward or not at all, by what is committed now and not by
/// a snapshot from before the lock; the failures of this very offset stay. The row it answers is
/// the one that it moved.
inline constexpr std::string_view postgres_fence_advance = R"sql(
INSERT INTO {offset} AS f (handled, before, tried, changed, attempts, scope, partition_name, owner)
SELECT $3::bigint, -1, $3::bigint, clock_timestamp(), 0, $1::bytea, $2::bytea, $4::bytea
WHERE pg_try_advisory_xact_lock($5::bigint)
ON CONFLICT (scope, partition_name) DO UPDATE SET
    before = f.handled, handled = excluded.handled, tried = excluded.tried,
    attempts = CASE WHEN f.tried = excluded.tried THEN f.attempts ELSE 0 END,
    changed = excluded.changed, owner = excluded.owner, note = NULL
WHERE f.handled < excluded.handled
RETURNING attempts
)sql";

/// The same as the first statement of a transaction of ours: the bound on idleness ends with it
/// (semantics.md 1.4).
inline constexpr std::string_view postgres_fence_opening = R"sql(
INSERT INTO {offset} AS f (handled, before, tried, changed, attempts, scope, partition_name, owner)
SELECT $3::bigint, -1, $3::bigint, clock_timestamp(), 0, $1::bytea, $2::bytea, $4::bytea
WHERE pg_try_advisory_xact_lock($5::bigint)
  AND set_config('idle_in_transaction_session_timeout', $6::text, true) IS NOT NULL
ON CONFLICT (scope, partition_name) DO UPDATE SET
    before = f.handled, handled = excluded.handled, tried = excluded.tried,
    attempts = CASE WHEN f.tried = excluded.tried THEN f.attempts ELSE 0 END,
    changed = excluded.changed, owner = excluded.owner, note = NULL
WHERE f.handled < excluded.handled
RETURNING attempts
)sql";

inline constexpr std::string_view postgres_fence_read = R"sql(
SELECT handled, tried, attempts FROM {offset} WHERE scope = $1::bytea AND partition_name = $2::bytea
)sql";

/// The row as it was before this transaction moved it: for when others may commit the transaction.
inline constexpr std::string_view postgres_fence_reopen = R"sql(
UPDATE {offset} SET handled = before
WHERE scope = $1::bytea AND partition_name = $2::bytea AND owner = $3::bytea
)sql";

/// Invariant: fails where the row is no longer as postgres_fence_reopen left it, so that nothing
/// commits without it.
inline constexpr std::string_view postgres_fence_seal = R"sql(
WITH sealed AS (
    UPDATE {offset} SET handled = $4::bigint
    WHERE scope = $1::bytea AND partition_name = $2::bytea AND owner = $3::bytea
      AND handled < $4::bigint RETURNING 1)
SELECT 1 / count(*) FROM sealed
)sql";

/// Of a message that lies dead-lettered. Invariants: under the row's lock; forward only.
inline constexpr std::string_view postgres_fence_pass = R"sql(
INSERT INTO {offset} AS f (handled, before, tried, changed, attempts, scope, partition_name)
VALUES ($3::bigint, -1, $3::bigint, clock_timestamp(), 0, $1::bytea, $2::bytea)
ON CONFLICT (scope, partition_name) DO UPDATE SET
    before = f.handled, handled = excluded.handled, tried = excluded.tried, attempts = 0,
    changed = excluded.changed, owner = NULL, note = NULL
WHERE f.handled < excluded.handled
)sql";

/// Invariants: under the row's lock; an offset that is handled is not counted; `handled` does not
/// change.
inline constexpr std::string_view postgres_fence_failure = R"sql(
INSERT INTO {offset} AS f (handled, before, tried, changed, attempts, scope, partition_name, note)
VALUES (-1, -1, $3::bigint, clock_timestamp(), 1, $1::bytea, $2::bytea, $4::text)
ON CONFLICT (scope, partition_name) DO UPDATE SET
    attempts = CASE WHEN f.tried = excluded.tried THEN f.attempts + 1 ELSE 1 END,
    tried = excluded.tried, changed = excluded.changed, note = excluded.note
WHERE f.handled < excluded.tried
)sql";

/// Invariant: nothing but a failure of this offset is taken back.
inline constexpr std::string_view postgres_fence_refund = R"sql(
UPDATE {offset} SET attempts = attempts - 1
WHERE scope = $1::bytea AND partition_name = $2::bytea AND tried = $3::bigint AND attempts > 0
  AND handled < $3::bigint
)sql";

/// Whether the transaction of nonce $3 moved the row to $4: true, false, or null where somebody has
/// moved it further since, so that nobody knows. Invariant: read after the row's lock was had.
inline constexpr std::string_view postgres_fence_did_commit = R"sql(
SELECT CASE WHEN handled > $4::bigint THEN NULL
            ELSE handled = $4::bigint AND owner IS NOT DISTINCT FROM $3::bytea END
FROM {offset} WHERE scope = $1::bytea AND partition_name = $2::bytea
)sql";

/// All of them, for one table.
struct PostgresFenceStatements {
    explicit PostgresFenceStatements(std::string_view table)
        : advance(table_sql(postgres_fence_advance, table))
        , opening(table_sql(postgres_fence_opening, table))
        , read(table_sql(postgres_fence_read, table))
        , reopen(table_sql(postgres_fence_reopen, table))
        , seal(table_sql(postgres_fence_seal, table))
        , pass(table_sql(postgres_fence_pass, table))
        , failure(table_sql(postgres_fence_failure, table))
        , refund(table_sql(postgres_fence_refund, table))
        , did_commit(table_sql(postgres_fence_did_commit, table)) {}

    PqSql advance, opening, read, reopen, seal, pass, failure, refund, did_commit;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_FENCE_STATEMENTS_HPP
