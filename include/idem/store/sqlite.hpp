// SPDX-License-Identifier: MIT
#ifndef IDEM_STORE_SQLITE_HPP
#define IDEM_STORE_SQLITE_HPP

// SqliteStore: the durable store that needs no server.

#include <idem/dedup_store.hpp>
#include <idem/detail/sqlite_alone.hpp>
#include <idem/detail/sqlite_inspection.hpp>
#include <idem/detail/sqlite_prune.hpp>
#include <idem/detail/sqlite_schema_check.hpp>
#include <idem/detail/sqlite_transaction.hpp>
#include <idem/inspectable_store.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// Record and effect in one transaction of one SQLite file, which threads and processes of one
/// machine share. Survives kill -9 and, by synchronous = FULL, the machine's crash. `path` is a
/// file name or an URI (file:shop.db?vfs=…); the constructor does not touch it.
///
/// SQLite has one writer at a time, and its lock is the claim: begin() waits, up to
/// SqliteOptions::busy, and "in progress" is never answered. Threads queue in memory, in front of
/// one connection; processes poll the lock of the file. A handler holds all others up, so it should
/// be quick. Retention is counted by the machine's clock (Clock::now() is a std::chrono::sys_time);
/// setting it back lengthens it.
///
/// Throws: StoreError (see SqliteOptions and verify()); std::invalid_argument for options and keys
/// past the limits; std::logic_error after a fork, in the child.
/// Concurrency: every member may be called from any number of threads. Neither copied nor moved.
/// Cost: the transaction's own; claim and complete are one lookup and one write in it.
template <class Clock>
class BasicSqliteStore {
public:
    using Transaction = SqliteTransaction;
    static constexpr Durability durability = Durability::machine;

    explicit BasicSqliteStore(std::string path, SqliteOptions options = {})
        : core_(std::move(path), std::move(options), [] {
            return std::chrono::time_point_cast<milliseconds>(Clock::now());
        }) {}

    /// What migrate() runs, to read or to run by other means.
    [[nodiscard]] static std::string schema_sql(const SqliteOptions& options = {}) {
        detail::require_sqlite_table(options.table);
        return "PRAGMA journal_mode = WAL;\n" + table_sql(options) + ";\n";
    }
    /// Makes the file and the table where they are missing, and turns the file to WAL mode, which
    /// is a lasting property of it. Any number of processes may call it at once.
    void migrate();
    /// Throws: StoreError rejected, naming all that is wrong: the table and its columns, the
    /// journal mode, write permission.
    void verify();

    /// BEGIN IMMEDIATE: the write lock, which is the claim of whatever key.
    /// Throws: StoreError unavailable past the deadline; std::logic_error where a transaction of
    /// this store that this thread began is still open.
    [[nodiscard]] SqliteTransaction begin();
    /// In the user's open transaction of their own connection, which the caller keeps and commits;
    /// the table of records is the one of its main database. Better begun with BEGIN IMMEDIATE:
    /// otherwise the claim takes the write lock, and cannot where the transaction has read already
    /// and others have written since.
    /// Throws: std::logic_error where no transaction is open.
    [[nodiscard]] SqliteTransaction join(sqlite3* native);
    /// Reads, without the write lock.
    [[nodiscard]] Claim<std::monostate> peek(const ClaimRequest& request);
    /// Counts a failed attempt in a transaction of its own, as far as it can: it waits for the
    /// write lock as begin() does. Only after rollback().
    void record_failure(const ClaimRequest& request, std::string_view why) noexcept;
    /// Takes one counted attempt back; a dead record is open again. As far as it can, too.
    void refund_failure(const ClaimRequest& request) noexcept;

    /// For operators, as inspectable_store.hpp says; a joined record that is no longer open, but
    /// neither completed nor dead, is State::in_progress, and waits for its next attempt. Those who
    /// write wait for the write lock as begin() does, and throw as it does.
    [[nodiscard]] std::optional<Record> find(const Key& key) {
        return inspection_.find(core_, key);
    }
    /// Leaves records of a newer format out. Cost: reads the whole table, without the write lock.
    [[nodiscard]] std::vector<Record> list(State state, std::size_t limit) {
        return inspection_.list(core_, state, limit);
    }
    bool revive(const Key& key, const Intervention& by) {
        return inspection_.revive(core_, key, by);
    }
    bool force_complete(const Key& key, std::string_view result, const Intervention& by) {
        return inspection_.force_complete(core_, key, result, by);
    }
    bool erase(const Key& key, const Intervention& by) { return inspection_.erase(core_, key, by); }
    /// Cost: a scan of the table without the write lock, which goes on from where the last one
    /// ended; then deletes by key, 250 records per transaction, so that nobody waits for long.
    std::size_t prune(std::size_t limit) { return pruning_.prune(core_, limit); }

private:
    static std::string table_sql(const SqliteOptions& options) {
        return detail::sqlite_statement(detail::sqlite_schema, options.table);
    }

    detail::SqliteCore core_;
    detail::SqliteInspection inspection_{core_.options().table};
    detail::SqlitePruning pruning_{core_.options().table};
};

using SqliteStore = BasicSqliteStore<std::chrono::system_clock>;

template <class Clock>
SqliteTransaction BasicSqliteStore<Clock>::begin() {
    core_.require_same_process();
    const auto deadline = core_.deadline();
    detail::SqliteOpened opened{&core_, core_.take_turn(deadline)};
    core_.as_store([&] {
        opened.session = core_.take(deadline);
        opened.session->begin_immediate();
        // Of a file without write permission BEGIN IMMEDIATE makes a transaction that only reads.
        if (sqlite3_db_readonly(opened.session->native(), "main") != 0) {
            opened.session->rollback();
            throw SqliteError(SQLITE_READONLY, sqlite3_errstr(SQLITE_READONLY));
        }
    });
    return SqliteTransaction(std::move(opened));
}

template <class Clock>
SqliteTransaction BasicSqliteStore<Clock>::join(sqlite3* native) {
    core_.require_same_process();
    if (native == nullptr || sqlite3_get_autocommit(native) != 0) {
        throw std::logic_error("idem: join() needs a connection with a transaction open: run BEGIN "
                               "IMMEDIATE first");
    }
    static std::atomic<unsigned long> joins{0};
    detail::SqliteOpened opened{&core_};
    opened.savepoint = "idem_joined_" + std::to_string(++joins);
    opened.session = std::make_unique<detail::SqliteSession>(native);
    core_.as_store([&] { opened.session->run("SAVEPOINT " + opened.savepoint); });
    return SqliteTransaction(std::move(opened));
}

template <class Clock>
Claim<std::monostate> BasicSqliteStore<Clock>::peek(const ClaimRequest& request) {
    require_valid(request.key);
    return detail::sqlite_read_alone(core_, [&](detail::SqliteSession& session) {
        return core_.records().claim(session, request, core_.now());
    });
}

template <class Clock>
void BasicSqliteStore<Clock>::record_failure(const ClaimRequest& request,
                                             std::string_view why) noexcept {
    try {
        require_valid(request.key);
        detail::sqlite_write_alone(core_, [&](detail::SqliteSession& session) {
            core_.records().charge(session, request, why, core_.now());
            IDEM_FAILPOINT("sqlite: before the commit of a failure");
        });
    } catch (...) { // the next claim counts one attempt less: at worst the message runs once more
    }
}

template <class Clock>
void BasicSqliteStore<Clock>::refund_failure(const ClaimRequest& request) noexcept {
    try {
        inspection_.refund(core_, request.key);
    } catch (...) { // the next claim counts one attempt more: at worst it dies one delivery earlier
    }
}

template <class Clock>
void BasicSqliteStore<Clock>::migrate() {
    core_.require_same_process();
    const auto deadline = core_.deadline();
    core_.as_store([&] {
        const auto session = core_.open(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, deadline);
        // Where two turn a new file to WAL at once, SQLite refuses one without asking the busy
        // handler, as both would wait for each other.
        for (;;) {
            const int code = sqlite3_exec(
                session->native(), "PRAGMA journal_mode = WAL", nullptr, nullptr, nullptr);
            if (code == SQLITE_OK) {
                break;
            }
            if (detail::primary_code(code) != SQLITE_BUSY ||
                std::chrono::steady_clock::now() >= deadline) {
                throw session->error(code);
            }
            std::this_thread::sleep_for(milliseconds{1});
        }
        session->begin_immediate();
        session->run(table_sql(core_.options()));
        if (const int code = session->commit(); code != SQLITE_OK) {
            throw session->error(code);
        }
    });
}

template <class Clock>
void BasicSqliteStore<Clock>::verify() {
    core_.require_same_process();
    const auto found = core_.as_store([&] {
        const auto session = core_.open(SQLITE_OPEN_READWRITE, core_.deadline());
        return detail::sqlite_problems(*session, core_.options().table);
    });
    if (!found.empty()) {
        throw StoreError(Fault::rejected, "idem: SQLite database " + core_.path() + ": " + found);
    }
}

static_assert(RefundingTransactionalStore<SqliteStore> && InspectableStore<SqliteStore> &&
              PeekingStore<SqliteStore> && BatchTransaction<SqliteTransaction> &&
              JoinableStore<SqliteStore, sqlite3*>);

} // namespace idem::inline v0

#endif // IDEM_STORE_SQLITE_HPP
