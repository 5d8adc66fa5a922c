// SPDX-License-Identifier: MIT

// DedupTable over SqliteStore against raw sqlite3 writing the same business row.

#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>

#include <sqlite3.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "interleaved.hpp"
#include "order.hpp"
#include "report.hpp"
#include "support/temporary_directory.hpp"

namespace idem::bench {
namespace {

constexpr const char* table = "idem_record";
constexpr const char* insert_order =
    "INSERT INTO orders (cust, amount, note, at) VALUES (?1, ?2, ?3, unixepoch())";

/// What a user would write with sqlite3 alone: prepared statements, and no more than has to be.
class RawDatabase {
public:
    RawDatabase(const std::string& path, const std::string& synchronous) {
        require(sqlite3_open_v2(path.c_str(),
                                &native_,
                                SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                                nullptr));
        run("PRAGMA journal_mode = WAL");
        run("PRAGMA synchronous = " + synchronous);
        run("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, cust INTEGER, amount TEXT, "
            "note TEXT, at INTEGER)");
    }
    RawDatabase(const RawDatabase&) = delete;
    RawDatabase& operator=(const RawDatabase&) = delete;
    ~RawDatabase() {
        for (auto* statement : {begin_, insert_, commit_, count_, read_, record_}) {
            sqlite3_finalize(statement);
        }
        sqlite3_close(native_);
    }

    void begin() { step(begin_, "BEGIN IMMEDIATE"); }
    void commit() { step(commit_, "COMMIT"); }
    void insert(const Order& order) {
        prepare(insert_, insert_order);
        sqlite3_bind_int(insert_, 1, order.customer);
        bind(2, order.amount);
        bind(3, order.note);
        step(insert_, insert_order);
    }
    /// What a record costs at least: it is looked for and written, as SqliteStore does.
    void look_for(const Order& order) {
        static const auto sql = detail::sqlite_statement(detail::sqlite_read, table);
        prepare(read_, sql.c_str());
        bind_key(read_, order);
        step(read_, sql.c_str());
    }
    void record(const Order& order) {
        static const auto sql = detail::sqlite_statement(detail::sqlite_complete, table);
        static constexpr char no_fingerprint[16] = {};
        prepare(record_, sql.c_str());
        bind_key(record_, order);
        sqlite3_bind_blob(record_, 3, no_fingerprint, sizeof no_fingerprint, SQLITE_STATIC);
        sqlite3_bind_int(record_, 4, 0);
        sqlite3_bind_blob(record_, 5, "", 0, SQLITE_STATIC);
        sqlite3_bind_int64(record_, 6, 1'800'000'000'000);
        sqlite3_bind_int64(record_, 7, 1'800'604'800'000);
        step(record_, sql.c_str());
    }
    std::uint64_t orders() {
        prepare(count_, "SELECT count(*) FROM orders");
        require(sqlite3_step(count_) == SQLITE_ROW ? SQLITE_OK : SQLITE_ERROR);
        const auto count = static_cast<std::uint64_t>(sqlite3_column_int64(count_, 0));
        sqlite3_reset(count_);
        return count;
    }

private:
    void require(int code) const {
        if (code != SQLITE_OK) {
            throw std::runtime_error(sqlite3_errmsg(native_));
        }
    }
    void run(const std::string& sql) const {
        require(sqlite3_exec(native_, sql.c_str(), nullptr, nullptr, nullptr));
    }
    void prepare(sqlite3_stmt*& statement, const char* sql) const {
        if (statement == nullptr) {
            require(sqlite3_prepare_v3(
                native_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr));
        }
    }
    void step(sqlite3_stmt*& statement, const char* sql) const {
        prepare(statement, sql);
        sqlite3_step(statement);
        require(sqlite3_reset(statement));
    }
    static void bind_key(sqlite3_stmt* statement, const Order& order) {
        sqlite3_bind_blob(statement, 1, "bench", 5, SQLITE_STATIC);
        sqlite3_bind_blob(
            statement, 2, order.id.data(), static_cast<int>(order.id.size()), SQLITE_STATIC);
    }
    void bind(int index, const std::string& text) const {
        require(sqlite3_bind_text(
            insert_, index, text.data(), static_cast<int>(text.size()), SQLITE_STATIC));
    }

    sqlite3* native_ = nullptr;
    sqlite3_stmt *begin_ = nullptr, *insert_ = nullptr, *commit_ = nullptr, *count_ = nullptr,
                 *read_ = nullptr, *record_ = nullptr;
};

/// A file of its own for each side, so that each pays for its own checkpoints.
struct Sides {
    Sides(const std::string& directory, const std::string& synchronous)
        : raw(directory + "/raw_" + synchronous + ".db", synchronous)
        , ours(directory + "/idem_" + synchronous + ".db", synchronous)
        , hand(directory + "/hand_" + synchronous + ".db", synchronous)
        , store(directory + "/idem_" + synchronous + ".db",
                {.on_open = "PRAGMA synchronous = " + synchronous}) {
        store.migrate();
        SqliteStore(directory + "/hand_" + synchronous + ".db").migrate();
    }
    void require(Report& report, const std::vector<std::uint64_t>& done) {
        report.require("orders of sqlite3", done[0], raw.orders());
        report.require("orders of DedupTable", done[1], ours.orders());
        report.require("orders with a record by hand", done[2], hand.orders());
    }
    RawDatabase raw, ours, hand;
    SqliteStore store;
};

auto handler_over(const IdempotentConsumer<SqliteStore, DedupTable>& consumer) {
    return consumer.wrap("bench", &Order::id, [](const Order& order, SqliteTransaction& tx) {
        tx.execute(insert_order, order.customer, order.amount, order.note);
    });
}
void must_be_executed(Status found) {
    if (found != Status::executed) {
        throw std::runtime_error("the outcome is " + std::string(to_string(found)));
    }
}

void insert_row(Report& report, const std::string& directory, const std::string& synchronous) {
    const auto name = "one INSERT, synchronous = " + synchronous;
    if (!report.wants(name)) {
        return;
    }
    Sides sides(directory, synchronous);
    const IdempotentConsumer consumer(sides.store, DedupTable{});
    const auto handle = handler_over(consumer);
    const auto done = report.run(
        {.name = name,
         .threads = 1,
         .variants = {{"sqlite3: BEGIN; INSERT; COMMIT",
                       [&](unsigned) {
                           const auto order = fresh_order();
                           sides.raw.begin();
                           sides.raw.insert(order);
                           sides.raw.commit();
                           return 1;
                       }},
                      {"DedupTable",
                       [&](unsigned) {
                           must_be_executed(handle(fresh_order()).status());
                           return 1;
                       },
                       synchronous == "FULL" ? std::optional(time_at_most(1.15)) : std::nullopt},
                      {"sqlite3, with a record by hand", [&](unsigned) {
                           const auto order = fresh_order();
                           sides.hand.begin();
                           sides.hand.look_for(order);
                           sides.hand.insert(order);
                           sides.hand.record(order);
                           sides.hand.commit();
                           return 1;
                       }}}});
    sides.require(report, done);
}

void batch_row(Report& report, const std::string& directory, const std::string& synchronous) {
    constexpr std::size_t size = 64;
    const auto name = "batch of 64, synchronous = " + synchronous;
    if (!report.wants(name)) {
        return;
    }
    Sides sides(directory + "/batch", synchronous);
    const IdempotentConsumer consumer(sides.store, DedupTable{});
    const auto handle = handler_over(consumer);
    const auto done =
        report.run({.name = name,
                    .threads = 1,
                    .variants = {{"sqlite3, one commit",
                                  [&](unsigned) {
                                      sides.raw.begin();
                                      for (const auto& order : fresh_orders(size)) {
                                          sides.raw.insert(order);
                                      }
                                      sides.raw.commit();
                                      return size;
                                  }},
                                 {"DedupTable",
                                  [&](unsigned) {
                                      for (const auto& outcome : handle.batch(fresh_orders(size))) {
                                          must_be_executed(outcome.status());
                                      }
                                      return size;
                                  }},
                                 {"sqlite3, with records by hand", [&](unsigned) {
                                      sides.hand.begin();
                                      for (const auto& order : fresh_orders(size)) {
                                          sides.hand.look_for(order);
                                          sides.hand.insert(order);
                                          sides.hand.record(order);
                                      }
                                      sides.hand.commit();
                                      return size;
                                  }}}});
    sides.require(report, done);
}

int run(const Options& options) {
    const testing_support::TemporaryDirectory directory;
    std::filesystem::create_directory(directory / "batch");
    Report report(options);
    report.note("library", std::string("SQLite ") + sqlite3_libversion() + ", journal_mode WAL");
    report.note_directory(directory.path());
    for (const auto* synchronous : {"FULL", "NORMAL"}) {
        insert_row(report, directory.path().string(), synchronous);
    }
    for (const auto* synchronous : {"FULL", "NORMAL"}) {
        batch_row(report, directory.path().string(), synchronous);
    }
    return report.end();
}

} // namespace
} // namespace idem::bench

int main(int argc, char** argv) {
    return idem::bench::bench_main(
        argc,
        argv,
        "Compares idem over SQLite with raw sqlite3, in files of its own.",
        {},
        idem::bench::run);
}
