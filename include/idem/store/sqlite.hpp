// SPDX-License-Identifier: MIT
#ifndef IDEM_STORE_SQLITE_HPP
#define IDEM_STORE_SQLITE_HPP

// SqliteStore: the durable store that needs no server.

#include <idem/dedup_store.hpp>
#include <idem/detail/sqlite_transaction.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

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

private:
    static std::string table_sql(const SqliteOptions& options) {
        return detail::sqlite_statement(detail::sqlite_schema, options.table);
    }
    std::string problems(detail::SqliteSession& session) const;

    detail::SqliteCore core_;
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
    core_.require_same_process();
    return core_.as_store([&] {
        auto session = core_.take(core_.deadline());
        auto answer = core_.records().claim(*session, request, core_.now());
        core_.give_back(std::move(session));
        return answer;
    });
}

template <class Clock>
void BasicSqliteStore<Clock>::record_failure(const ClaimRequest& request,
                                             std::string_view why) noexcept {
    try {
        require_valid(request.key);
        core_.require_same_process();
        const auto deadline = core_.deadline();
        const auto turn = core_.take_turn(deadline);
        auto session = core_.take(deadline);
        session->begin_immediate();
        core_.records().charge(*session, request, why, core_.now());
        IDEM_FAILPOINT("sqlite: before the commit of a failure");
        if (session->commit() == SQLITE_OK) {
            core_.give_back(std::move(session));
        }
    } catch (...) { // the next claim counts one attempt less: at worst the message runs once more
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
std::string BasicSqliteStore<Clock>::problems(detail::SqliteSession& session) const {
    std::string found;
    auto add = [&](const std::string& problem) { found += (found.empty() ? "" : "; ") + problem; };
    if (sqlite3_threadsafe() == 0) {
        add("this SQLite is compiled without threads");
    }
    if (sqlite3_db_readonly(session.native(), "main") != 0) {
        add("the file is read-only");
    }
    const auto mode = detail::SqliteCall(session, "PRAGMA main.journal_mode").rows();
    if (mode.text(0, 0) != "wal") {
        add("the journal mode is " + std::string(mode.text(0, 0).value_or("unknown")) +
            ", not wal: call migrate()");
    }
    const auto& table = core_.options().table;
    std::string missing;
    for (const char* column : {"scope",
                               "id",
                               "format",
                               "state",
                               "fingerprint",
                               "algorithm",
                               "attempts",
                               "result",
                               "note",
                               "changed",
                               "expires"}) {
        const auto there = detail::SqliteCall(session,
                                              "SELECT pk FROM pragma_table_info(?1, 'main') "
                                              "WHERE name = ?2",
                                              table,
                                              column)
                               .rows();
        const auto key = std::string_view(column) == "scope" ? 1
                         : std::string_view(column) == "id"  ? 2
                                                             : 0;
        if (there.empty() || there.integer(0, 0) != key) {
            missing += (missing.empty() ? "" : ", ") + std::string(column);
        }
    }
    if (!missing.empty()) {
        add("table " + table + " lacks, or has another key in, " + missing + ": call migrate()");
    }
    return found;
}

template <class Clock>
void BasicSqliteStore<Clock>::verify() {
    core_.require_same_process();
    const auto found = core_.as_store(
        [&] { return problems(*core_.open(SQLITE_OPEN_READWRITE, core_.deadline())); });
    if (!found.empty()) {
        throw StoreError(Fault::rejected, "idem: SQLite database " + core_.path() + ": " + found);
    }
}

static_assert(TransactionalStore<SqliteStore> && PeekingStore<SqliteStore> &&
              BatchTransaction<SqliteTransaction> && JoinableStore<SqliteStore, sqlite3*>);

} // namespace idem::inline v0

#endif // IDEM_STORE_SQLITE_HPP
