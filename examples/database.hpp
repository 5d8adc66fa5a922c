// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_DATABASE_HPP
#define EXAMPLES_DATABASE_HPP

// A SQLite database as the demonstrations count in it, beside the library.

#include <sqlite3.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

class Database {
public:
    explicit Database(const std::string& path) {
        sqlite3* opened = nullptr;
        const int code = sqlite3_open(path.c_str(), &opened);
        handle_.reset(opened);
        if (code != SQLITE_OK) {
            throw std::runtime_error(path + ": " + sqlite3_errmsg(opened));
        }
        sqlite3_busy_timeout(opened, 60'000);
    }
    std::int64_t number(const std::string& sql) {
        std::int64_t answer = 0;
        char* error = nullptr;
        sqlite3_exec(
            handle_.get(),
            sql.c_str(),
            [](void* into, int, char** columns, char**) {
                *static_cast<std::int64_t*>(into) =
                    columns[0] == nullptr ? 0 : std::atoll(columns[0]);
                return 0;
            },
            &answer,
            &error);
        if (error != nullptr) {
            throw std::runtime_error(sql + ": " + error);
        }
        return answer;
    }

private:
    struct Close {
        void operator()(sqlite3* handle) const { sqlite3_close(handle); }
    };
    std::unique_ptr<sqlite3, Close> handle_;
};

#endif // EXAMPLES_DATABASE_HPP
