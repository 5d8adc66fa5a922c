// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_LEASE_STATEMENTS_HPP
#define IDEM_DETAIL_POSTGRES_LEASE_STATEMENTS_HPP

// The statements of leases over the table of records. Lease time is clock_timestamp(): now() is the
// transaction's begin, which a claim that waited leaves far behind (semantics.md 4.7).

#include <idem/detail/postgres_statements.hpp>

#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// New keys. Invariants: as postgres_claim, each under its own lock, which ends with the statement:
/// from then on the lease stands for the key. No record expires before its lease.
inline constexpr std::string_view postgres_lease_new = R"sql(
INSERT INTO {table} (fence, changed, expires, lease_until, attempts, algorithm, format, state,
                     scope, id, owner, fingerprint, holder)
SELECT nextval('{fence}'), clock_timestamp(),
       clock_timestamp() + greatest(asked.retention, asked.lease) * interval '1 second',
       clock_timestamp() + asked.lease * interval '1 second',
       1, asked.algorithm, 1, 1, asked.scope, asked.id, $1::bytea, nullif(asked.fingerprint, ''),
       nullif(asked.holder, '')
FROM unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::float8[], $6::float8[], $7::integer[],
            $8::bytea[], $9::bytea[])
     AS asked (scope, id, lock, lease, retention, algorithm, fingerprint, holder)
WHERE pg_try_advisory_xact_lock(asked.lock)
ON CONFLICT (scope, id) DO NOTHING RETURNING scope, id, fence
)sql";

/// Takes a record that was read and judged free. Invariants: under the key's lock, and only as it
/// was read, since an owner whose lease ran out may renew or complete it without that lock. The
/// fence exceeds all that were given out for the key, also before a pruning.
inline constexpr std::string_view postgres_lease_take = R"sql(
UPDATE {table} SET
    changed = clock_timestamp(),
    expires = clock_timestamp() + greatest($6::float8, $7::float8) * interval '1 second',
    lease_until = clock_timestamp() + $7::float8 * interval '1 second',
    algorithm = $5::integer, format = 1, state = 1, owner = $3::bytea, fingerprint = $4::bytea,
    attempts = $8::integer, fence = greatest(fence + 1, nextval('{fence}')),
    holder = nullif($12::bytea, ''), result = NULL
WHERE scope = $1::bytea AND id = $2::bytea AND fence = $9::bigint AND state = $10::smallint
  AND owner IS NOT DISTINCT FROM $11::bytea AND format <= 1
  AND (state = 0 OR expires <= clock_timestamp() OR lease_until IS NULL
       OR lease_until <= clock_timestamp())
RETURNING fence
)sql";

/// A record whose attempts are used up, found by a claim that has its lock.
inline constexpr std::string_view postgres_lease_bury = R"sql(
UPDATE {table} SET
    state = 3, owner = NULL, lease_until = NULL, changed = clock_timestamp(),
    expires = clock_timestamp() + $4::float8 * interval '1 second'
WHERE scope = $1::bytea AND id = $2::bytea AND fence = $3::bigint AND state = 1 AND format <= 1
  AND (lease_until IS NULL OR lease_until <= clock_timestamp())
)sql";

/// Invariants: only the owner's own record, still open. It waits for nobody longer than $1: the row
/// of a lease that ran out may be locked by a transaction that took it over.
inline constexpr std::string_view postgres_lease_complete = R"sql(
UPDATE {table} AS r SET
    changed = clock_timestamp(),
    expires = clock_timestamp() + done.retention * interval '1 second',
    state = 2, lease_until = NULL, note = NULL, result = nullif(done.result, '')
FROM unnest($2::bytea[], $3::bytea[], $4::bytea[], $5::bigint[], $6::float8[], $7::bytea[])
     AS done (scope, id, owner, fence, retention, result)
WHERE (SELECT set_config('lock_timeout', $1::text, true)) IS NOT NULL
  AND r.scope = done.scope AND r.id = done.id AND r.owner = done.owner AND r.fence = done.fence
  AND r.state = 1 AND r.format <= 1
RETURNING r.scope, r.id
)sql";

inline constexpr std::string_view postgres_lease_renew = R"sql(
UPDATE {table} SET
    lease_until = clock_timestamp() + $6::float8 * interval '1 second',
    expires = greatest(expires, clock_timestamp() + $6::float8 * interval '1 second')
WHERE (SELECT set_config('lock_timeout', $1::text, true)) IS NOT NULL
  AND scope = $2::bytea AND id = $3::bytea AND owner = $4::bytea AND fence = $5::bigint
  AND state = 1 AND format <= 1
RETURNING 1
)sql";

/// Given back: $7 attempts are not counted after all; at $8 of them, unless it is 0, it is dead.
inline constexpr std::string_view postgres_lease_give_back = R"sql(
UPDATE {table} SET
    state = CASE WHEN $8::integer > 0 AND attempts - $7::integer >= $8::integer THEN 3 ELSE 1 END,
    attempts = attempts - $7::integer, owner = NULL, lease_until = NULL,
    changed = clock_timestamp(),
    expires = clock_timestamp() + $6::float8 * interval '1 second',
    note = coalesce(nullif($9::text, ''), note)
WHERE (SELECT set_config('lock_timeout', $1::text, true)) IS NOT NULL
  AND scope = $2::bytea AND id = $3::bytea AND owner = $4::bytea AND fence = $5::bigint
  AND state = 1 AND format <= 1
)sql";

/// The owner stays on the record, so that a repetition is recognised.
inline constexpr std::string_view postgres_lease_park = R"sql(
UPDATE {table} SET
    state = 4, lease_until = NULL, changed = clock_timestamp(), note = $7::text,
    expires = clock_timestamp() + $6::float8 * interval '1 second'
WHERE (SELECT set_config('lock_timeout', $1::text, true)) IS NOT NULL
  AND scope = $2::bytea AND id = $3::bytea AND owner = $4::bytea AND fence = $5::bigint
  AND state = 1 AND format <= 1
RETURNING 1
)sql";

/// A token for one message, good for a first redeem until lease_until.
inline constexpr std::string_view postgres_lease_issue = R"sql(
INSERT INTO {table} (changed, expires, lease_until, algorithm, format, state, scope, id,
                     fingerprint)
VALUES (clock_timestamp(), clock_timestamp() + $1::float8 * interval '1 second' + interval '7 days',
        clock_timestamp() + $1::float8 * interval '1 second', $2::integer, 1, 0, $3::bytea,
        $4::bytea, $5::bytea)
)sql";

/// Waits for whoever has the keys, in one order, so that two of them cannot block each other.
inline constexpr std::string_view postgres_wait_for_locks = R"sql(
SELECT pg_advisory_xact_lock(asked.lock)
FROM (SELECT DISTINCT lock FROM unnest($1::bigint[]) AS all_of (lock) ORDER BY lock) AS asked
)sql";

struct PostgresLeaseStatements {
    explicit PostgresLeaseStatements(std::string_view table)
        : fresh(table_sql(postgres_lease_new, table))
        , take(table_sql(postgres_lease_take, table))
        , bury(table_sql(postgres_lease_bury, table))
        , complete(table_sql(postgres_lease_complete, table))
        , renew(table_sql(postgres_lease_renew, table))
        , give_back(table_sql(postgres_lease_give_back, table))
        , park(table_sql(postgres_lease_park, table))
        , issue(table_sql(postgres_lease_issue, table))
        , wait_for_locks(table_sql(postgres_wait_for_locks, table)) {}

    PqSql fresh, take, bury, complete, renew, give_back, park, issue, wait_for_locks;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_LEASE_STATEMENTS_HPP
