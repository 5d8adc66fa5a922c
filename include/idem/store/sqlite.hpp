// SPDX-License-Identifier: MIT
#ifndef IDEM_STORE_SQLITE_HPP
#define IDEM_STORE_SQLITE_HPP

// SqliteStore: the durable store that needs no server.

#include <idem/dedup_store.hpp>
#include <idem/detail/sql_store.hpp>
#include <idem/detail/sqlite_alone.hpp>
#include <idem/detail/sqlite_fence_calls.hpp>
#include <idem/detail/sqlite_inspection.hpp>
#include <idem/detail/sqlite_leases.hpp>
#include <idem/detail/sqlite_prune.hpp>
#include <idem/detail/sqlite_schema_check.hpp>
#include <idem/detail/sqlite_transaction.hpp>
#include <idem/fenced_store.hpp>
#include <idem/inspectable_store.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// A table of records in one SQLite file, which threads and processes of one machine share.
/// Survives kill -9 and, by synchronous = FULL, the machine's crash. `path` is a file name or an URI
/// (file:shop.db?vfs=…); the constructor does not touch it.
///
/// For DedupTable: record and effect in one transaction. SQLite has one writer at a time, and its
/// lock is the claim: begin() waits, up to SqliteOptions::busy. Threads queue in memory, in front of
/// one connection; processes poll the lock of the file. A handler holds all others up, so it should
/// be quick.
///
/// For DistributedLock over the same table: a claim is a lease, and the effect lies elsewhere. Each
/// step is one short transaction that waits for the write lock as begin() does; a handler that runs
/// holds neither lock nor connection. OneTimeToken is the same by a token that was issued. Both
/// kinds honour each other's records (semantics.md 4.6): what is under a lease is "in progress" for
/// a transaction, and what an open transaction of this store has claimed is so for a lease, while
/// those of other processes and of join() are waited for. A renewal waits for joined handlers too:
/// let a lease be several times as long as the slowest of them, or it may run out meanwhile.
///
/// Leases and retention are counted by the machine's clock (Clock::now() is a
/// std::chrono::sys_time), by the store and by the owner of a lease alike. Setting it forward ends
/// leases and retentions early, setting it back lengthens them. Fences do not depend on it.
///
/// What it does by offset and by lease it has from detail/sql_store.hpp.
///
/// Throws: StoreError (see SqliteOptions and verify()); std::invalid_argument for options and keys
/// past the limits; std::logic_error after a fork, in the child, and where a step of a lease would
/// wait for a transaction that the same thread has open.
/// Concurrency: every member may be called from any number of threads. Neither copied nor moved.
/// Cost: the transaction's own; claim and complete are one lookup and one write in it.
template <class ClockType>
class BasicSqliteStore : public detail::SqlStore<BasicSqliteStore<ClockType>,
                                                 detail::SqliteCore,
                                                 detail::SqliteFenceCalls,
                                                 detail::SqliteLeases> {
    using Shared = typename BasicSqliteStore::SqlStore;
    using Shared::core;

public:
    using Clock = ClockType;
    using Transaction = SqliteTransaction;

    explicit BasicSqliteStore(std::string path, SqliteOptions options = {})
        : Shared(std::move(path), std::move(options), [] {
            return std::chrono::time_point_cast<milliseconds>(Clock::now());
        }) {}

    /// What migrate() runs, to read or to run by other means.
    [[nodiscard]] static std::string schema_sql(const SqliteOptions& options = {}) {
        detail::require_sqlite_table(options.table);
        return "PRAGMA journal_mode = WAL;\n" + tables_sql(options);
    }
    /// Makes the file and the tables where they are missing, and turns the file to WAL mode, which
    /// is a lasting property of it. Any number of processes may call it at once.
    void migrate() { detail::sqlite_migrate(core(), tables_sql(core().options())); }
    /// Throws: StoreError rejected, naming all that is wrong: the tables and their columns, the
    /// journal mode, write permission.
    void verify() { detail::sqlite_verify(core()); }

    // ---- in the handler's own transaction ------------------------------------------------------

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
    using Shared::peek, Shared::record_failure, Shared::refund_failure; // by offset
    /// Reads, without the write lock.
    [[nodiscard]] Claim<std::monostate> peek(const ClaimRequest& request);
    /// Counts a failed attempt in a transaction of its own, as far as it can: it waits for the
    /// write lock as begin() does. Only after rollback().
    void record_failure(const ClaimRequest& request, std::string_view why) noexcept;
    /// Takes one counted attempt back; a dead record is open again. As far as it can, too.
    void refund_failure(const ClaimRequest& request) noexcept;

    // ---- for operators -------------------------------------------------------------------------

    /// As inspectable_store.hpp says. What an open transaction has claimed is not in a record yet.
    /// Those who write wait for the write lock as begin() does, and throw as it does.
    [[nodiscard]] std::optional<Record> find(const Key& key) {
        return inspection_.find(core(), key);
    }
    /// Leaves records of a newer format out. Cost: reads the whole table, without the write lock.
    [[nodiscard]] std::vector<Record> list(State state, std::size_t limit) {
        return inspection_.list(core(), state, limit);
    }
    bool revive(const Key& key, const Intervention& by) {
        return inspection_.revive(core(), key, by);
    }
    bool force_complete(const Key& key, std::string_view result, const Intervention& by) {
        return inspection_.force_complete(core(), key, result, by);
    }
    bool erase(const Key& key, const Intervention& by) {
        return inspection_.erase(core(), key, by);
    }
    /// Cost: a scan of the table without the write lock, which goes on from where the last one
    /// ended; then deletes by key, 250 records per transaction, so that nobody waits for long.
    std::size_t prune(std::size_t limit) { return pruning_.prune(core(), limit); }

private:
    static std::string tables_sql(const SqliteOptions& options) {
        return detail::sqlite_statement(detail::sqlite_schema, options.table) +
               detail::sqlite_statement(detail::sqlite_fence_schema, options.table);
    }

    detail::SqliteInspection inspection_{core().options().table};
    detail::SqlitePruning pruning_{core().options().table};
};

using SqliteStore = BasicSqliteStore<std::chrono::system_clock>;

template <class ClockType>
SqliteTransaction BasicSqliteStore<ClockType>::begin() {
    core().require_same_process();
    const auto deadline = core().deadline();
    detail::SqliteOpened opened{&core(), core().take_turn(deadline)};
    core().as_store([&] {
        opened.session = core().take(deadline);
        opened.session->begin_immediate();
        // Of a file without write permission BEGIN IMMEDIATE makes a transaction that only reads.
        if (sqlite3_db_readonly(opened.session->native(), "main") != 0) {
            opened.session->rollback();
            throw SqliteError(SQLITE_READONLY, sqlite3_errstr(SQLITE_READONLY));
        }
    });
    return SqliteTransaction(std::move(opened));
}

template <class ClockType>
SqliteTransaction BasicSqliteStore<ClockType>::join(sqlite3* native) {
    core().require_same_process();
    if (native == nullptr || sqlite3_get_autocommit(native) != 0) {
        throw std::logic_error("idem: join() needs a connection with a transaction open: run BEGIN "
                               "IMMEDIATE first");
    }
    static std::atomic<unsigned long> joins{0};
    detail::SqliteOpened opened{&core()};
    opened.savepoint = "idem_joined_" + std::to_string(++joins);
    opened.session = std::make_unique<detail::SqliteSession>(native);
    core().as_store([&] { opened.session->run("SAVEPOINT " + opened.savepoint); });
    return SqliteTransaction(std::move(opened));
}

template <class ClockType>
Claim<std::monostate> BasicSqliteStore<ClockType>::peek(const ClaimRequest& request) {
    require_valid(request.key);
    return detail::sqlite_read_alone(core(), [&](detail::SqliteSession& session) {
        return core().records().claim(session, request, core().now());
    });
}

template <class ClockType>
void BasicSqliteStore<ClockType>::record_failure(const ClaimRequest& request,
                                                 std::string_view why) noexcept {
    try {
        require_valid(request.key);
        detail::sqlite_write_alone(core(), [&](detail::SqliteSession& session) {
            core().records().charge(session, request, why, core().now());
            IDEM_FAILPOINT("sqlite: before the commit of a failure");
        });
    } catch (...) { // the next claim counts one attempt less: at worst the message runs once more
    }
}

template <class ClockType>
void BasicSqliteStore<ClockType>::refund_failure(const ClaimRequest& request) noexcept {
    try {
        inspection_.refund(core(), request.key);
    } catch (...) { // the next claim counts one attempt more: at worst it dies one delivery earlier
    }
}

static_assert(PeekingStore<SqliteStore> && RefundingTransactionalStore<SqliteStore>);
static_assert(BatchStore<SqliteStore> && BeatingStore<SqliteStore> && RefundingStore<SqliteStore> &&
              ParkingStore<SqliteStore> && TokenStore<SqliteStore>);
static_assert(InspectableStore<SqliteStore>);
static_assert(FailureCountingFence<SqliteStore>);
static_assert(JoinableStore<SqliteStore, sqlite3*>);
static_assert(BatchTransaction<SqliteTransaction>);

} // namespace idem::inline v0

#endif // IDEM_STORE_SQLITE_HPP
