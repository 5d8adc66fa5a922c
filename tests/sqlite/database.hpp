// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SQLITE_DATABASE_HPP
#define IDEM_TESTS_SQLITE_DATABASE_HPP

// A database file of the test's own, and a plain connection that looks at it beside the library.

#include <idem/detail/sqlite.hpp>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "support/temporary_directory.hpp"

namespace idem::testing_support {

/// A connection of the test's own.
class PlainConnection {
public:
    explicit PlainConnection(const std::string& path, int busy = 20'000) {
        if (sqlite3_open(path.c_str(), &native_) != SQLITE_OK) {
            throw std::runtime_error(sqlite3_errmsg(native_));
        }
        sqlite3_busy_timeout(native_, busy);
    }
    PlainConnection(const PlainConnection&) = delete;
    PlainConnection& operator=(const PlainConnection&) = delete;
    ~PlainConnection() { sqlite3_close_v2(native_); }

    [[nodiscard]] sqlite3* native() const noexcept { return native_; }
    void run(const std::string& sql) {
        if (sqlite3_exec(native_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
            throw std::runtime_error(sql + ": " + sqlite3_errmsg(native_));
        }
    }
    /// The first column of the first row.
    std::string text(const std::string& sql) {
        std::string answer;
        const auto keep = [](void* kept, int, char** values, char**) {
            *static_cast<std::string*>(kept) = values[0] == nullptr ? "NULL" : values[0];
            return 0;
        };
        if (sqlite3_exec(native_, sql.c_str(), keep, &answer, nullptr) != SQLITE_OK) {
            throw std::runtime_error(sql + ": " + sqlite3_errmsg(native_));
        }
        return answer;
    }
    std::int64_t number(const std::string& sql) { return std::stoll(text(sql)); }

private:
    sqlite3* native_ = nullptr;
};

/// The database of one test: a file in a directory of its own, with a table of effects.
class TestDatabase {
public:
    TestDatabase() { plain().run("CREATE TABLE effect (id TEXT NOT NULL)"); }

    [[nodiscard]] std::string path() const { return directory_ / "shop.db"; }
    [[nodiscard]] std::string beside(const std::string& name) const { return directory_ / name; }
    [[nodiscard]] PlainConnection plain(int busy = 20'000) const {
        return PlainConnection(path(), busy);
    }
    [[nodiscard]] std::int64_t effects() const {
        return plain().number("SELECT count(*) FROM effect");
    }
    [[nodiscard]] std::int64_t records() const {
        return plain().number("SELECT count(*) FROM idem_record");
    }

private:
    TemporaryDirectory directory_;
};

} // namespace idem::testing_support

#endif // IDEM_TESTS_SQLITE_DATABASE_HPP
