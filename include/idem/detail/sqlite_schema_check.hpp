// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_SCHEMA_CHECK_HPP
#define IDEM_DETAIL_SQLITE_SCHEMA_CHECK_HPP

// How the tables of SqliteStore are made, and what verify() looks at.

#include <idem/detail/sqlite_core.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <thread>

namespace idem::inline v0::detail {

struct SqliteColumn {
    const char* name;
    int key; ///< place in the primary key, from 1; 0: none
};
inline constexpr SqliteColumn sqlite_record_columns[] = {{"scope", 1},
                                                         {"id", 2},
                                                         {"format", 0},
                                                         {"state", 0},
                                                         {"fingerprint", 0},
                                                         {"algorithm", 0},
                                                         {"attempts", 0},
                                                         {"changed", 0},
                                                         {"expires", 0},
                                                         {"lease_until", 0},
                                                         {"fence", 0},
                                                         {"owner", 0},
                                                         {"holder", 0},
                                                         {"note", 0},
                                                         {"result", 0}};
inline constexpr SqliteColumn sqlite_fence_columns[] = {{"only_row", 1}, {"last", 0}};

inline constexpr SqliteColumn sqlite_offset_columns[] = {{"scope", 1},
                                                         {"partition_name", 2},
                                                         {"handled", 0},
                                                         {"tried", 0},
                                                         {"attempts", 0},
                                                         {"changed", 0},
                                                         {"owner", 0},
                                                         {"note", 0}};

/// What is wrong with a table, in words; empty: nothing.
inline std::string sqlite_wrong_table(SqliteSession& session,
                                      const std::string& table,
                                      std::span<const SqliteColumn> columns) {
    constexpr const char* keys_of = "SELECT name, pk FROM pragma_table_info(?1, 'main')";
    const auto there = SqliteCall(session, keys_of, table).rows();
    if (there.empty()) {
        return "table " + table + " is missing: call migrate()";
    }
    std::string wrong;
    for (const auto& column : columns) {
        bool found = false;
        for (std::size_t row = 0; row < there.size(); ++row) {
            found = found || (there.text(row, 0) == column.name &&
                              there.integer(row, 1) == std::int64_t{column.key});
        }
        if (!found) {
            wrong += (wrong.empty() ? "" : ", ") + std::string(column.name);
        }
    }
    return wrong.empty() ? wrong
                         : "table " + table + " lacks, or has another key in, " + wrong +
                               ": it is of another version, or not this library's; name another, "
                               "or move it away and call migrate()";
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
    for (const auto& wrong :
         {sqlite_wrong_table(session, table, sqlite_record_columns),
          sqlite_wrong_table(session, table + "_fence", sqlite_fence_columns),
          sqlite_wrong_table(session, table + "_offset", sqlite_offset_columns)}) {
        if (!wrong.empty()) {
            add(wrong);
        }
    }
    return found;
}

/// Runs `sql` in a file in WAL mode, both made where they are missing. Throws: StoreError.
inline void sqlite_migrate(const SqliteCore& core, const std::string& sql) {
    core.require_same_process();
    const auto deadline = core.deadline();
    core.as_store([&] {
        const auto session = core.open(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, deadline);
        const auto run = [&](const char* text) {
            return sqlite3_exec(session->native(), text, nullptr, nullptr, nullptr);
        };
        // Where two turn a new file to WAL at once, SQLite refuses one without asking the busy
        // handler, as both would wait for each other.
        for (int code = SQLITE_BUSY; code != SQLITE_OK;) {
            code = run("PRAGMA journal_mode = WAL");
            const bool busy = primary_code(code) == SQLITE_BUSY;
            if (code != SQLITE_OK && (!busy || std::chrono::steady_clock::now() >= deadline)) {
                throw session->error(code);
            }
            std::this_thread::sleep_for(milliseconds{busy ? 1 : 0});
        }
        session->begin_immediate();
        int code = run(sql.c_str());
        code = code == SQLITE_OK ? session->commit() : code;
        if (code != SQLITE_OK) {
            throw session->error(code);
        }
    });
}

/// Throws: StoreError rejected, naming all that is wrong.
inline void sqlite_verify(const SqliteCore& core) {
    core.require_same_process();
    const auto found = core.as_store([&] {
        const auto session = core.open(SQLITE_OPEN_READWRITE, core.deadline());
        return sqlite_problems(*session, core.options().table);
    });
    if (!found.empty()) {
        throw StoreError(Fault::rejected, "idem: SQLite database " + core.path() + ": " + found);
    }
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_SCHEMA_CHECK_HPP
