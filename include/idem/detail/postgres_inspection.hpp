// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_INSPECTION_HPP
#define IDEM_DETAIL_POSTGRES_INSPECTION_HPP

// What operators do with records: the SQL of InspectableStore.

#include <idem/detail/postgres_claims.hpp>
#include <idem/inspectable_store.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

inline constexpr std::string_view postgres_inspected_columns = R"sql(
SELECT scope, id, state, algorithm, fingerprint, attempts, fence,
       floor(extract(epoch FROM changed) * 1000)::bigint,
       floor(extract(epoch FROM lease_until) * 1000)::bigint, result, note
FROM {table} WHERE expires > clock_timestamp()
)sql";

inline constexpr std::string_view postgres_find = R"sql(
  AND scope = $1::bytea AND id = $2::bytea
)sql";
inline constexpr std::string_view postgres_list = R"sql(
  AND state = $1::smallint ORDER BY changed, scope, id LIMIT $2::bigint
)sql";

/// Invariants of the three: under the key's lock, so never beside a handler's open transaction; not
/// while a lease lasts; a record of a newer format stays as it is. A record lives for the retention
/// it had, counted anew.
inline constexpr std::string_view postgres_revive = R"sql(
UPDATE {table} SET
    state = 1, attempts = 0, owner = NULL, lease_until = NULL, note = $3::text,
    changed = clock_timestamp(), expires = clock_timestamp() + (expires - changed)
WHERE scope = $1::bytea AND id = $2::bytea AND format <= 1 AND expires > clock_timestamp()
  AND state IN (3, 4)
)sql";
inline constexpr std::string_view postgres_force_complete = R"sql(
UPDATE {table} SET
    state = 2, result = nullif($4::bytea, ''), owner = NULL, lease_until = NULL, note = $3::text,
    changed = clock_timestamp(), expires = clock_timestamp() + (expires - changed)
WHERE scope = $1::bytea AND id = $2::bytea AND format <= 1 AND expires > clock_timestamp()
  AND state IN (1, 3, 4) AND (lease_until IS NULL OR lease_until <= clock_timestamp())
)sql";
/// What was erased already is not erased again.
inline constexpr std::string_view postgres_erase = R"sql(
UPDATE {table} SET
    state = 1, attempts = 0, algorithm = 0, fingerprint = NULL, result = NULL, holder = NULL,
    owner = NULL, lease_until = NULL, note = $3::text,
    changed = clock_timestamp(), expires = clock_timestamp() + (expires - changed)
WHERE scope = $1::bytea AND id = $2::bytea AND format <= 1 AND expires > clock_timestamp()
  AND (state = 0 OR lease_until IS NULL OR lease_until <= clock_timestamp())
  AND NOT (state = 1 AND attempts = 0 AND algorithm = 0 AND lease_until IS NULL)
)sql";

/// Invariants: at most one instance at a time, and the others do not wait; a row that a transaction
/// is at is passed over; nothing younger than its retention, by a bound that never runs ahead of
/// the clock of the claims.
inline constexpr std::string_view postgres_prune = R"sql(
WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1::bigint) AS mine),
over AS MATERIALIZED (
    SELECT r.ctid AS place FROM {table} AS r
    WHERE r.expires <= now() AND r.format <= 1 AND (SELECT mine FROM turn)
    LIMIT $2::bigint FOR UPDATE OF r SKIP LOCKED)
DELETE FROM {table} AS r USING over WHERE r.ctid = over.place
)sql";

[[nodiscard]] inline Record record_from(const PqBinaryRow& row) {
    const auto time = [&](int column) { return Timestamp(milliseconds(row.number(column))); };
    Record record{.scope = std::string(row.bytes(0)),
                  .id = std::string(row.bytes(1)),
                  .state = static_cast<State>(row.number(2)),
                  .attempts = static_cast<unsigned>(row.number(5)),
                  .fence = static_cast<std::uint64_t>(row.number(6)),
                  .changed = time(7),
                  .result = std::string(row.bytes(9)),
                  .note = std::string(row.bytes(10))};
    record.fingerprint = fingerprint_from(row.bytes(4), static_cast<std::uint32_t>(row.number(3)));
    if (!row.is_null(8)) {
        record.lease_until = time(8);
    }
    return record;
}

class PostgresInspection {
public:
    explicit PostgresInspection(PostgresCore& core)
        : core_(core)
        , find_(table_sql(std::string(postgres_inspected_columns).append(postgres_find),
                          core.options().table))
        , list_(table_sql(std::string(postgres_inspected_columns).append(postgres_list),
                          core.options().table))
        , revive_(table_sql(postgres_revive, core.options().table))
        , force_complete_(table_sql(postgres_force_complete, core.options().table))
        , erase_(table_sql(postgres_erase, core.options().table))
        , prune_(table_sql(postgres_prune, core.options().table)) {}

    std::optional<Record> find(const Key& key) {
        require_valid(key);
        const auto leg =
            core_.run_alone({{find_, {bytes_parameter(key.scope), bytes_parameter(key.id)}, true}});
        require_ok(leg, "looking up a record");
        if (PQntuples(leg.results[0].get()) == 0) {
            return std::nullopt;
        }
        return record_from(PqBinaryRow(leg.results[0].get(), 0));
    }
    std::vector<Record> list(State state, std::size_t limit) {
        const auto leg = core_.run_alone(
            {{list_, {number_parameter(static_cast<int>(state)), count(limit)}, true}},
            core_.pool(),
            core_.options().max_handler_time);
        require_ok(leg, "listing records");
        std::vector<Record> records;
        for (int row = 0; row < PQntuples(leg.results[0].get()); ++row) {
            records.push_back(record_from(PqBinaryRow(leg.results[0].get(), row)));
        }
        return records;
    }
    bool revive(const Key& key, const Intervention& by) {
        return intervene(revive_, key, note_of("revived", by));
    }
    bool force_complete(const Key& key, std::string_view result, const Intervention& by) {
        return intervene(force_complete_, key, note_of("completed", by), {bytes_parameter(result)});
    }
    bool erase(const Key& key, const Intervention& by) {
        return intervene(erase_, key, note_of("erased", by));
    }
    std::size_t prune(std::size_t limit) {
        const auto turn = advisory_lock_of(core_.options().table, {"", "prune"});
        const auto leg = core_.run_alone({{prune_, {number_parameter(turn), count(limit)}}},
                                         core_.pool(),
                                         core_.options().max_handler_time);
        require_ok(leg, "pruning");
        return rows_changed(leg.results[0].get());
    }

private:
    static PqParameter count(std::size_t limit) {
        return number_parameter(std::min<std::uint64_t>(
            limit, static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())));
    }
    bool intervene(const PqSql& sql,
                   const Key& key,
                   const std::string& note,
                   std::vector<PqParameter> more = {}) {
        require_valid(key);
        PqStatement statement{
            sql,
            {bytes_parameter(key.scope), bytes_parameter(key.id), {.value = plain_note(note)}}};
        std::move(more.begin(), more.end(), std::back_inserter(statement.parameters));
        const auto leg = core_.run_under_lock(key, std::move(statement), core_.short_patience());
        if (leg.sqlstate == "55P03") {
            return false; // a handler is at it
        }
        if (leg.link_lost) {
            throw StoreError(Fault::in_doubt,
                             explained(leg.sqlstate,
                                       leg.message,
                                       "the link broke during an intervention; find() tells what "
                                       "became of it"));
        }
        require_ok(leg, "changing a record");
        return rows_changed(leg.results[PostgresCore::change_under_lock].get()) == 1;
    }

    PostgresCore& core_;
    PqSql find_, list_, revive_, force_complete_, erase_, prune_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_INSPECTION_HPP
