// SPDX-License-Identifier: MIT

// What people write without a library, over the same journal and loop as billing_worker: the plain
// handler, and the usual `if exists(id) return; save(id); handle()`. For comparison only.

#include <idem/broker/source.hpp>

#include <sqlite3.h>

#include <exception>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "journal_source.hpp"
#include "stop_signal.hpp"
#include "tally.hpp"

class Database {
public:
    explicit Database(const std::string& path) {
        sqlite3* opened = nullptr;
        require(sqlite3_open(path.c_str(), &opened));
        handle_.reset(opened);
        sqlite3_busy_timeout(opened, 60'000);
        require(sqlite3_exec(
            opened, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL", nullptr, nullptr, nullptr));
    }
    /// Runs one statement in a transaction of its own. Returns: whether it gave a row.
    bool run(const char* sql, std::string_view id, std::string_view cents = {}) {
        sqlite3_stmt* statement = nullptr;
        require(sqlite3_prepare_v2(handle_.get(), sql, -1, &statement, nullptr));
        const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> owned(statement,
                                                                          sqlite3_finalize);
        sqlite3_bind_text(statement, 1, id.data(), static_cast<int>(id.size()), SQLITE_STATIC);
        if (!cents.empty()) {
            sqlite3_bind_text(
                statement, 2, cents.data(), static_cast<int>(cents.size()), SQLITE_STATIC);
        }
        const int code = sqlite3_step(statement);
        if (code != SQLITE_ROW) {
            require(code == SQLITE_DONE ? SQLITE_OK : code);
        }
        return code == SQLITE_ROW;
    }

private:
    void require(int code) const {
        if (code != SQLITE_OK) {
            throw std::runtime_error(sqlite3_errmsg(handle_.get()));
        }
    }
    struct Close {
        void operator()(sqlite3* handle) const { sqlite3_close(handle); }
    };
    std::unique_ptr<sqlite3, Close> handle_;
};

/// What idem::run wants to know of a handled delivery.
struct Handled {
    idem::Settlement answer{};
    [[nodiscard]] idem::Settlement settlement() const { return answer; }
};

class NaiveHandler {
public:
    NaiveHandler(std::string database, bool checks, Tally& tally)
        : path_(std::move(database))
        , checks_(checks)
        , tally_(tally) {}

    [[nodiscard]] Handled handle(const JournalDelivery& delivery,
                                 const std::stop_token&) const noexcept try {
        thread_local Database database(path_);
        const auto text = delivery.payload();
        const auto id = text.substr(0, text.find(' '));
        if (checks_) {
            if (database.run("SELECT 1 FROM seen WHERE order_id = ?1", id)) {
                tell(idem::Status::replayed);
                return {};
            }
            database.run("INSERT OR IGNORE INTO seen (order_id) VALUES (?1)", id);
        }
        database.run("INSERT INTO charge (order_id, cents) VALUES (?1, CAST(?2 AS INTEGER))",
                     id,
                     text.substr(id.size() + 1));
        tell(idem::Status::executed);
        return {};
    } catch (const std::exception& error) {
        return {{idem::Action::retry, idem::milliseconds{100}, "the handler failed", error.what()}};
    }

private:
    void tell(idem::Status status) const { tally_.on({.key = {}, .status = status}); }
    std::string path_;
    bool checks_;
    Tally& tally_;
};

int main(int count, char** arguments) try {
    const std::vector<std::string> words(arguments + 1, arguments + count);
    if (words.size() != 4 || (words[0] != "plain" && words[0] != "check")) {
        const bool help = words.size() == 1 && words[0] == "--help";
        (help ? std::cout : std::cerr) << "naive_worker plain|check JOURNAL DATABASE TALLY\n"
                                          "Charges what the journal holds, until SIGTERM.\n";
        return help ? 0 : 2;
    }
    const StopSignal stop;
    Tally tally(words[3]);
    JournalSource source(words[1]);
    idem::run(source,
              NaiveHandler(words[2], words[0] == "check", tally),
              stop.token(),
              {.concurrency = 4});
    return 0;
} catch (const std::exception& error) {
    std::cerr << "naive_worker: " << error.what() << '\n';
    return 1;
}
