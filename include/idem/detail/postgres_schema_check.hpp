// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_SCHEMA_CHECK_HPP
#define IDEM_DETAIL_POSTGRES_SCHEMA_CHECK_HPP

// Making the table of records, and saying all that is wrong with it.

#include <idem/detail/postgres_core.hpp>
#include <idem/detail/postgres_failure.hpp>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0::detail {

inline constexpr std::string_view postgres_tables_exist = R"sql(
SELECT to_regclass($1) IS NOT NULL AND to_regclass($2) IS NOT NULL
)sql";

/// One row of facts. Null where there is no such table.
inline constexpr std::string_view postgres_facts = R"sql(
SELECT current_setting('server_version_num')::integer,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on',
       current_setting('synchronous_commit') = 'off',
       to_regclass($1) IS NULL,
       (SELECT relpersistence <> 'p' FROM pg_class WHERE oid = to_regclass($1)),
       EXISTS (SELECT FROM pg_index AS i
               WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid
                 AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = 2
                 AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute AS a
                      WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::smallint[]))
                     = ARRAY['id', 'scope']),
       (SELECT string_agg(p, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
        WHERE to_regclass($1) IS NOT NULL AND NOT has_table_privilege(to_regclass($1), p)),
       to_regclass($2) IS NULL,
       to_regclass($2) IS NOT NULL AND NOT has_sequence_privilege(to_regclass($2), 'USAGE'),
       to_regclass($3) IS NULL,
       (SELECT string_agg(p, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS p
        WHERE to_regclass($3) IS NOT NULL AND NOT has_table_privilege(to_regclass($3), p))
)sql";

inline constexpr std::string_view postgres_attributes = R"sql(
SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
)sql";

/// The table's name as to_regclass() reads it.
[[nodiscard]] inline PqParameter regclass_parameter(std::string_view pattern,
                                                    std::string_view table) {
    return {.value = with_table(pattern, table)};
}

/// Invariant: at most one instance at a time makes it; the others wait, and find it made. Where it
/// is there already, no privilege to create is needed.
inline void migrate(PostgresCore& core, const std::string& schema) {
    const auto& table = core.options().table;
    auto exists = core.run_alone({{.sql = PqSql::once(std::string(postgres_tables_exist)),
                                   .parameters = {regclass_parameter("{table}", table),
                                                  regclass_parameter("{offset}", table)},
                                   .binary_result = true}});
    require_ok(exists, "looking for the table of records");
    if (PqBinaryRow(exists.results[0].get(), 0).flag(0)) {
        return;
    }
    std::vector<PqStatement> statements{
        {.sql = core.sql().begin},
        {.sql = core.sql().wait_for_lock,
         .parameters = {number_parameter(advisory_lock_of(table, {"", "migrate"}))}}};
    for (std::size_t from = 0, end = schema.find(';'); end != std::string::npos;
         from = end + 1, end = schema.find(';', from)) {
        statements.push_back({.sql = PqSql::once(schema.substr(from, end - from))});
    }
    statements.push_back({.sql = core.sql().commit});
    require_ok(core.run_alone(statements), "making the table of records");
}

/// What the columns lack.
[[nodiscard]] inline std::string wrong_columns(const PGresult* attributes,
                                               std::span<const PostgresColumn> columns) {
    std::string wrong;
    for (const auto& [name, type] : columns) {
        std::string_view found;
        for (int row = 0; row < PQntuples(attributes); ++row) {
            if (PQgetvalue(attributes, row, 0) == name) {
                found = PQgetvalue(attributes, row, 1);
            }
        }
        if (found != type) {
            wrong.append(wrong.empty() ? "" : ", ").append(name).append(" must be ").append(type);
            wrong.append(found.empty() ? ", is missing" : ", is ").append(found);
        }
    }
    return wrong;
}

inline void verify(PostgresCore& core) {
    const auto& table = core.options().table;
    auto connection = core.connector().to_any_server()(core.deadline());
    const auto name = regclass_parameter("{table}", table),
               fence = regclass_parameter("{fence}", table),
               offset = regclass_parameter("{offset}", table);
    const std::vector<PqStatement> statements{
        {.sql = PqSql::once(std::string(postgres_facts)),
         .parameters = {name, fence, offset},
         .binary_result = true},
        {.sql = PqSql::once(std::string(postgres_attributes)), .parameters = {name}},
        {.sql = PqSql::once(std::string(postgres_attributes)), .parameters = {offset}}};
    const auto leg = connection.run(statements, false, core.deadline());
    require_ok(leg, "reading the server's facts");
    const PqBinaryRow facts(leg.results[0].get(), 0);
    std::string wrong;
    auto add = [&](bool is_wrong, const std::string& what) {
        wrong += is_wrong ? "\n- " + what : "";
    };
    const auto version = facts.number(0) / 10'000;
    add(version < 12,
        "the server is PostgreSQL " + std::to_string(version) + ", 12 is the oldest known to do");
    add(facts.flag(1),
        "the server takes no writes (a standby, or default_transaction_read_only = on): "
        "the connection string must reach the primary");
    add(facts.flag(2),
        "synchronous_commit = off: a crash of the server loses what was acknowledged; set "
        "it on for this role or database");
    const bool missing = facts.flag(3);
    add(missing,
        "the table " + table +
            " is missing: run PostgresStore::migrate(), or apply "
            "PostgresStore::schema_sql()");
    if (!missing) {
        add(facts.flag(4), "the table " + table + " is unlogged or temporary: a crash empties it");
        const auto columns = wrong_columns(leg.results[1].get(), postgres_columns);
        add(!columns.empty(), "columns of " + table + ": " + columns);
        add(!facts.flag(5), "the table " + table + " has no unique index on (scope, id)");
        add(!facts.is_null(6),
            "the role lacks privileges on " + table + ": " + std::string(facts.bytes(6)));
        add(facts.flag(7), "the sequence " + table + "_fence is missing");
        add(facts.flag(8), "the role lacks USAGE on the sequence " + table + "_fence");
    }
    if (!missing && facts.flag(9)) {
        add(true,
            "the table " + table +
                "_offset is missing: run PostgresStore::migrate(), or apply "
                "PostgresStore::schema_sql()");
    } else if (!missing) {
        const auto columns = wrong_columns(leg.results[2].get(), postgres_offset_columns);
        add(!columns.empty(), "columns of " + table + "_offset: " + columns);
        add(!facts.is_null(10),
            "the role lacks privileges on " + table +
                "_offset: " + std::string(facts.is_null(10) ? "" : facts.bytes(10)));
    }
    if (!wrong.empty()) {
        throw StoreError(Fault::rejected,
                         "idem: PostgresStore cannot work with " + core.connector().target() + ":" +
                             wrong);
    }
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_SCHEMA_CHECK_HPP
