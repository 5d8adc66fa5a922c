// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_ERRORS_HPP
#define IDEM_DETAIL_POSTGRES_ERRORS_HPP

// What a SQLSTATE means: for a statement of ours, and for one of the handler's.

#include <idem/error.hpp>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0 {

/// The handler's own statement failed: the handler's failure, not the store's.
class PostgresError : public std::runtime_error {
public:
    PostgresError(std::string sqlstate, const std::string& what)
        : std::runtime_error(what)
        , sqlstate_(std::move(sqlstate)) {}
    /// Five characters, "23505" for a unique violation; "08006" where the link broke.
    [[nodiscard]] std::string_view sqlstate() const noexcept { return sqlstate_; }

private:
    std::string sqlstate_;
};

namespace detail {

/// Serialization failure, deadlock: the server undid it all, run it again.
[[nodiscard]] inline bool is_conflict(std::string_view sqlstate) noexcept {
    return sqlstate == "40001" || sqlstate == "40P01";
}

/// A prepared statement that is not there, or is there already: a pooler changed the server's
/// session under us.
[[nodiscard]] inline bool is_unprepared(std::string_view sqlstate) noexcept {
    return sqlstate == "26000" || sqlstate == "42P05";
}

/// Of a failed statement of ours. Nothing happened, unless a human must act first.
[[nodiscard]] inline Fault fault_of(std::string_view sqlstate) noexcept {
    const auto group = sqlstate.substr(0, 2);
    if (sqlstate == "25P03") { // idle_in_transaction_session_timeout ended the session
        return Fault::lease_lost;
    }
    // 22 data, 23 constraints, 28 credentials, 3D and 3F no such database or schema, 42 schema and
    // privileges, 44 view, 0A not supported, XX001 and XX002 a damaged table or index.
    for (const auto human : {"22", "23", "28", "3D", "3F", "42", "44", "0A"}) {
        if (group == human) {
            return Fault::rejected;
        }
    }
    return sqlstate == "XX001" || sqlstate == "XX002" ? Fault::rejected : Fault::unavailable;
}

/// What to do, for the codes that people meet.
[[nodiscard]] inline std::string_view advice_for(std::string_view sqlstate) noexcept {
    struct Advice {
        std::string_view code, text;
    };
    static constexpr Advice known[] = {
        {"42P01",
         "the table of records is missing: run PostgresStore::migrate(), or apply "
         "PostgresStore::schema_sql(); if it lies in another schema, name it in "
         "PostgresOptions::table"},
        {"42703",
         "the table of records has not the columns of this release: run "
         "PostgresStore::verify() to see which"},
        {"42804", "the table of records has a column of another type: run PostgresStore::verify()"},
        {"42P10",
         "the table of records has no unique index on (scope, id): run "
         "PostgresStore::verify()"},
        {"42501",
         "the role lacks a privilege: GRANT SELECT, INSERT, UPDATE, DELETE on the table of "
         "records"},
        {"28P01", "check user and password of the connection string"},
        {"28000", "the server's pg_hba.conf does not let this user in from here"},
        {"3D000", "create the database, or correct the connection string"},
        {"3F000", "create the schema that PostgresOptions::table names"},
        {"53300",
         "the server has no connection to spare: lower PostgresOptions::connections, raise "
         "max_connections, or put a pooler between"},
        {"53100", "the server's disk is full"},
        {"53200",
         "the server is out of memory or of lock space: smaller batches, or a greater "
         "max_locks_per_transaction"},
        {"25006",
         "the server is read-only, a standby perhaps: the connection string must reach the "
         "primary"},
        {"25P03", "the transaction lay idle for longer than PostgresOptions::max_handler_time"},
        {"57P03", "the server is starting up"},
    };
    for (const auto& [code, text] : known) {
        if (code == sqlstate) {
            return text;
        }
    }
    return sqlstate.substr(0, 2) == "08" ? "the link to the server broke; it is retried" : "";
}

[[nodiscard]] inline std::string
explained(std::string_view sqlstate, std::string_view message, std::string_view doing) {
    std::string text = "idem: ";
    text.append(doing).append(": PostgreSQL ").append(sqlstate).append(": ").append(message);
    while (!text.empty() && text.back() == '\n') {
        text.pop_back();
    }
    if (const auto advice = advice_for(sqlstate); !advice.empty()) {
        text.append("; ").append(advice);
    }
    return text;
}

[[nodiscard]] inline StoreError
store_error(std::string_view sqlstate, std::string_view message, std::string_view doing) {
    return {fault_of(sqlstate), explained(sqlstate, message, doing)};
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_DETAIL_POSTGRES_ERRORS_HPP
