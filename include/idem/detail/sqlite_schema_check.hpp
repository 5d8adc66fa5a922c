// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_SCHEMA_CHECK_HPP
#define IDEM_DETAIL_SQLITE_SCHEMA_CHECK_HPP

// What verify() of SqliteStore looks at.

#include <idem/detail/sqlite_call.hpp>

#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Columns that the table lacks, or has another key in; empty: none.
inline std::string sqlite_wrong_columns(SqliteSession& session, const std::string& table) {
    std::string wrong;
    for (const char* column : {"scope",
                               "id",
                               "format",
                               "state",
                               "fingerprint",
                               "algorithm",
                               "attempts",
                               "changed",
                               "expires",
                               "note",
                               "result"}) {
        const auto there = SqliteCall(session,
                                      "SELECT pk FROM pragma_table_info(?1, 'main') WHERE name = "
                                      "?2",
                                      table,
                                      column)
                               .rows();
        const auto key = std::string_view(column) == "scope" ? 1
                         : std::string_view(column) == "id"  ? 2
                                                             : 0;
        if (there.empty() || there.integer(0, 0) != key) {
            wrong += (wrong.empty() ? "" : ", ") + std::string(column);
        }
    }
    return wrong;
}

/// All that is wrong, in words; empty: nothing.
inline std::string sqlite_problems(SqliteSession& session, const std::string& table) {
    std::string found;
    auto add = [&](const std::string& problem) { found += (found.empty() ? "" : "; ") + problem; };
    if (sqlite3_threadsafe() == 0) {
        add("this SQLite is compiled without threads");
    }
    if (sqlite3_db_readonly(session.native(), "main") != 0) {
        add("the file is read-only");
    }
    const auto mode = SqliteCall(session, "PRAGMA main.journal_mode").rows();
    if (mode.text(0, 0) != "wal") {
        add("the journal mode is " + std::string(mode.text(0, 0).value_or("unknown")) +
            ", not wal: call migrate()");
    }
    if (const auto wrong = sqlite_wrong_columns(session, table); !wrong.empty()) {
        add("table " + table + " lacks, or has another key in, " + wrong + ": call migrate()");
    }
    return found;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_SCHEMA_CHECK_HPP
