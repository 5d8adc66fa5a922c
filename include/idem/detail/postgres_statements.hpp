// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_STATEMENTS_HPP
#define IDEM_DETAIL_POSTGRES_STATEMENTS_HPP

// The statements over the table of records. State 1 is open, 2 completed, 3 dead
// (postgres_schema.hpp).

#include <idem/detail/postgres_parameters.hpp>
#include <idem/detail/postgres_schema.hpp>

#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Record first. Invariants: it never waits for another claim, since who holds the key holds the
/// lock that is tried; it inserts only under that lock; and the uniqueness check looks at what is
/// committed now, not at a snapshot from before the lock. The record is completed, with the result
/// of a void handler, as it becomes visible with the commit alone. How many rows it inserted is the
/// answer.
inline constexpr std::string_view postgres_claim = R"sql(
INSERT INTO {table} (changed, expires, attempts, algorithm, format, state, scope, id, owner,
                     fingerprint)
SELECT clock_timestamp(), clock_timestamp() + $6::float8 * interval '1 second', 1, $5::integer, 1,
       2, $1::bytea, $2::bytea, $3::bytea, $4::bytea
WHERE pg_try_advisory_xact_lock($7::bigint)
ON CONFLICT (scope, id) DO NOTHING
)sql";

/// The same as the first statement of a transaction of ours: the bound on idleness ends with it
/// (semantics.md 1.4).
inline constexpr std::string_view postgres_opening_claim = R"sql(
INSERT INTO {table} (changed, expires, attempts, algorithm, format, state, scope, id, owner,
                     fingerprint)
SELECT clock_timestamp(), clock_timestamp() + $6::float8 * interval '1 second', 1, $5::integer, 1,
       2, $1::bytea, $2::bytea, $3::bytea, $4::bytea
WHERE pg_try_advisory_xact_lock($7::bigint)
  AND set_config('idle_in_transaction_session_timeout', $8::text, true) IS NOT NULL
ON CONFLICT (scope, id) DO NOTHING
)sql";

inline constexpr std::string_view postgres_bound = R"sql(
SELECT set_config('idle_in_transaction_session_timeout', $1::text, true)
)sql";

/// A mark that ends with the transaction, for postgres_still_ours.
inline constexpr std::string_view postgres_mark = R"sql(
SELECT set_config('idem.claim', $1::text, true)
)sql";

/// Fails, and the COMMIT behind it is skipped, where the transaction is not the one that was
/// marked.
inline constexpr std::string_view postgres_still_ours = R"sql(
SELECT 1 / (current_setting('idem.claim', true) IS NOT DISTINCT FROM $1::text)::integer
)sql";

/// Invariant: it never waits. A read of the records must be a later statement: the snapshot of this
/// one is older than the lock (semantics.md 1.1).
inline constexpr std::string_view postgres_lock = R"sql(
SELECT pg_try_advisory_xact_lock(asked.lock)
FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (lock, place) ORDER BY asked.place
)sql";

inline constexpr std::string_view postgres_lock_one = R"sql(
SELECT pg_try_advisory_xact_lock($1::bigint)
)sql";

/// LATERAL with OFFSET 0: each key by the index, also where statistics are missing and a plan for
/// arrays of any length would rather read the whole table.
inline constexpr std::string_view postgres_read = R"sql(
SELECT asked.place, r.*
FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS asked (scope, id, place)
CROSS JOIN LATERAL (
    SELECT t.format, t.state, t.attempts, t.algorithm, t.fence, t.fingerprint, t.owner, t.result,
           t.expires <= clock_timestamp(),
           ceil(date_part('epoch', t.lease_until - clock_timestamp()) * 1000)::bigint,
           floor(date_part('epoch', clock_timestamp() - t.changed) * 1000)::bigint, t.holder
    FROM {table} AS t WHERE t.scope = asked.scope AND t.id = asked.id OFFSET 0) AS r
)sql";

/// The same of one key: planned once, where the other is planned anew at each call, as it seems
/// dearer than for one key.
inline constexpr std::string_view postgres_read_one = R"sql(
SELECT 1::bigint, t.format, t.state, t.attempts, t.algorithm, t.fence, t.fingerprint, t.owner,
       t.result, t.expires <= clock_timestamp(),
       ceil(date_part('epoch', t.lease_until - clock_timestamp()) * 1000)::bigint,
       floor(date_part('epoch', clock_timestamp() - t.changed) * 1000)::bigint, t.holder
FROM {table} AS t WHERE t.scope = $1::bytea AND t.id = $2::bytea
)sql";

/// Takes a record that was read and judged free. Invariants: under the key's lock, and only as it
/// was read, because an owner whose lease ran out may renew or complete it without that lock.
inline constexpr std::string_view postgres_take = R"sql(
UPDATE {table} SET
    changed = clock_timestamp(), expires = clock_timestamp() + $6::float8 * interval '1 second',
    algorithm = $5::integer, format = 1, state = 2, owner = $3::bytea, fingerprint = $4::bytea,
    attempts = $7::integer, fence = fence + 1, lease_until = NULL, holder = NULL, result = NULL
WHERE scope = $1::bytea AND id = $2::bytea AND fence = $8::bigint AND state = $9::smallint
  AND owner IS NOT DISTINCT FROM $10::bytea AND format <= 1
  AND (expires <= clock_timestamp() OR lease_until IS NULL OR lease_until <= clock_timestamp())
)sql";

/// Invariant: fails where the record is no longer this claim's, so that nothing commits without it.
inline constexpr std::string_view postgres_complete = R"sql(
WITH sealed AS (
    UPDATE {table} SET
        changed = clock_timestamp(), expires = clock_timestamp() + $4::float8 * interval '1 second',
        state = 2, result = $5::bytea
    WHERE scope = $1::bytea AND id = $2::bytea AND owner = $3::bytea RETURNING 1)
SELECT 1 / count(*) FROM sealed
)sql";

/// The record of a claim that is not completed, whatever becomes of the transaction. Its attempt is
/// counted when it failed, by postgres_failure.
inline constexpr std::string_view postgres_reopen = R"sql(
UPDATE {table} SET state = 1, attempts = attempts - 1
WHERE scope = $1::bytea AND id = $2::bytea AND owner = $3::bytea
)sql";

/// The records of a batch, last. Invariants: under their locks; only what claim judged free is
/// changed; fails where one was not, so that nothing commits without all its records.
inline constexpr std::string_view postgres_complete_many = R"sql(
WITH sealed AS (
    INSERT INTO {table} AS r
        (changed, expires, attempts, algorithm, format, state, scope, id, owner, fingerprint,
         result)
    SELECT clock_timestamp(), clock_timestamp() + done.retention * interval '1 second',
           1, done.algorithm, 1, 2, done.scope, done.id, $1::bytea, nullif(done.fingerprint, ''),
           nullif(done.result, '')
    FROM unnest($2::bytea[], $3::bytea[], $4::float8[], $5::integer[], $6::bytea[], $7::bytea[])
         AS done (scope, id, retention, algorithm, fingerprint, result)
    ON CONFLICT (scope, id) DO UPDATE SET
        changed = excluded.changed, expires = excluded.expires, format = 1, state = 2,
        owner = excluded.owner, result = excluded.result, lease_until = NULL, holder = NULL,
        fence = r.fence + 1,
        attempts = CASE WHEN r.expires <= excluded.changed THEN 1 ELSE r.attempts + 1 END,
        algorithm = CASE WHEN excluded.algorithm = 0 AND r.expires > excluded.changed
                         THEN r.algorithm ELSE excluded.algorithm END,
        fingerprint = CASE WHEN excluded.algorithm = 0 AND r.expires > excluded.changed
                           THEN r.fingerprint ELSE excluded.fingerprint END
    WHERE r.format <= 1
      AND (r.expires <= excluded.changed
           OR (r.state IN (1, 3)
               AND (r.lease_until IS NULL OR r.lease_until <= excluded.changed)))
    RETURNING 1)
SELECT 1 / (count(*) = $8::bigint)::integer FROM sealed
)sql";

/// Counts a failed attempt. Invariants: only an open, a dead or an expired record is changed; the
/// first fingerprint stays.
inline constexpr std::string_view postgres_failure = R"sql(
INSERT INTO {table} AS r
    (changed, expires, algorithm, format, state, attempts, scope, id, fingerprint, note)
VALUES (clock_timestamp(), clock_timestamp() + $5::float8 * interval '1 second', $4::integer, 1,
        CASE WHEN $6::integer = 1 THEN 3 ELSE 1 END, 1, $1::bytea, $2::bytea, $3::bytea, $7::text)
ON CONFLICT (scope, id) DO UPDATE SET
    changed = excluded.changed, expires = excluded.expires, format = 1, note = excluded.note,
    attempts = CASE WHEN r.expires <= excluded.changed THEN 1 ELSE r.attempts + 1 END,
    state = CASE WHEN $6::integer > 0
                  AND CASE WHEN r.expires <= excluded.changed THEN 1 ELSE r.attempts + 1 END
                      >= $6::integer
                 THEN 3 ELSE 1 END,
    owner = NULL, lease_until = NULL, holder = NULL, result = NULL,
    algorithm = CASE WHEN r.algorithm <> 0 AND r.expires > excluded.changed
                     THEN r.algorithm ELSE excluded.algorithm END,
    fingerprint = CASE WHEN r.algorithm <> 0 AND r.expires > excluded.changed
                       THEN r.fingerprint ELSE excluded.fingerprint END
WHERE r.format <= 1
  AND (r.expires <= excluded.changed
       OR (r.state IN (1, 3) AND (r.lease_until IS NULL OR r.lease_until <= excluded.changed)))
)sql";

/// Takes back what postgres_failure counted. Invariant: nothing but an open or a dead record.
inline constexpr std::string_view postgres_refund = R"sql(
UPDATE {table} SET attempts = attempts - 1, state = 1, changed = clock_timestamp()
WHERE scope = $1::bytea AND id = $2::bytea AND format <= 1 AND state IN (1, 3) AND attempts > 0
  AND (lease_until IS NULL OR lease_until <= clock_timestamp())
)sql";

/// Waits for the key's owner, no longer than lock_timeout.
inline constexpr std::string_view postgres_wait_for_lock = R"sql(
SELECT pg_advisory_xact_lock($1::bigint)
)sql";
inline constexpr std::string_view postgres_lock_timeout = R"sql(
SELECT set_config('lock_timeout', $1::text, true)
)sql";

/// Whether the claim of nonce $3 committed. Invariant: read after its lock was had.
inline constexpr std::string_view postgres_did_commit = R"sql(
SELECT count(*) FROM {table}
WHERE scope = $1::bytea AND id = $2::bytea AND owner = $3::bytea AND state = 2
)sql";

[[nodiscard]] inline PqSql table_sql(std::string_view pattern, std::string_view table) {
    return PqSql(with_table(pattern, table));
}

/// All of them, for one table.
struct PostgresStatements {
    explicit PostgresStatements(std::string_view table)
        : claim(table_sql(postgres_claim, table))
        , opening_claim(table_sql(postgres_opening_claim, table))
        , bound(table_sql(postgres_bound, table))
        , mark(table_sql(postgres_mark, table))
        , still_ours(table_sql(postgres_still_ours, table))
        , lock(table_sql(postgres_lock, table))
        , lock_one(table_sql(postgres_lock_one, table))
        , read(table_sql(postgres_read, table))
        , read_one(table_sql(postgres_read_one, table))
        , take(table_sql(postgres_take, table))
        , complete(table_sql(postgres_complete, table))
        , reopen(table_sql(postgres_reopen, table))
        , complete_many(table_sql(postgres_complete_many, table))
        , failure(table_sql(postgres_failure, table))
        , refund(table_sql(postgres_refund, table))
        , wait_for_lock(table_sql(postgres_wait_for_lock, table))
        , lock_timeout(table_sql(postgres_lock_timeout, table))
        , did_commit(table_sql(postgres_did_commit, table)) {}

    PqSql begin{"BEGIN ISOLATION LEVEL READ COMMITTED"};
    PqSql begin_repeatable_read{"BEGIN ISOLATION LEVEL REPEATABLE READ"};
    PqSql begin_serializable{"BEGIN ISOLATION LEVEL SERIALIZABLE"};
    PqSql commit{"COMMIT"};
    PqSql rollback{"ROLLBACK"};
    PqSql begin_message{"SAVEPOINT idem_message"};
    PqSql back_to_message{"ROLLBACK TO SAVEPOINT idem_message"};
    PqSql claim, opening_claim, bound, mark, still_ours, lock, lock_one, read, read_one, take,
        complete, reopen, complete_many, failure, refund, wait_for_lock, lock_timeout, did_commit;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_STATEMENTS_HPP
