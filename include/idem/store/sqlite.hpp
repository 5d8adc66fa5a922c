// SPDX-License-Identifier: MIT
#ifndef IDEM_STORE_SQLITE_HPP
#define IDEM_STORE_SQLITE_HPP

// SqliteStore: the durable store that needs no server.

#include <idem/dedup_store.hpp>
#include <idem/detail/sqlite_alone.hpp>
#include <idem/detail/sqlite_fence_calls.hpp>
#include <idem/detail/sqlite_inspection.hpp>
#include <idem/detail/sqlite_leases.hpp>
#include <idem/detail/sqlite_prune.hpp>
#include <idem/detail/sqlite_schema_check.hpp>
#include <idem/detail/sqlite_transaction.hpp>
#include <idem/fenced_store.hpp>
#include <idem/heartbeat.hpp>
#include <idem/inspectable_store.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
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
/// Throws: StoreError (see SqliteOptions and verify()); std::invalid_argument for options and keys
/// past the limits; std::logic_error after a fork, in the child, and where a step of a lease would
/// wait for a transaction that the same thread has open.
/// Concurrency: every member may be called from any number of threads. Neither copied nor moved.
/// Cost: the transaction's own; claim and complete are one lookup and one write in it.
template <class ClockType>
class BasicSqliteStore {
public:
    using Clock = ClockType;
    using Transaction = SqliteTransaction;
    using Ticket = SqliteTicket;
    static constexpr Durability durability = Durability::machine;

    explicit BasicSqliteStore(std::string path, SqliteOptions options = {})
        : core_(std::move(path), std::move(options), [] {
            return std::chrono::time_point_cast<milliseconds>(Clock::now());
        }) {}

    /// What migrate() runs, to read or to run by other means.
    [[nodiscard]] static std::string schema_sql(const SqliteOptions& options = {}) {
        detail::require_sqlite_table(options.table);
        return "PRAGMA journal_mode = WAL;\n" + tables_sql(options);
    }
    /// Makes the file and the tables where they are missing, and turns the file to WAL mode, which
    /// is a lasting property of it. Any number of processes may call it at once.
    void migrate() { detail::sqlite_migrate(core_, tables_sql(core_.options())); }
    /// Throws: StoreError rejected, naming all that is wrong: the tables and their columns, the
    /// journal mode, write permission.
    void verify() { detail::sqlite_verify(core_); }

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
    /// Reads, without the write lock.
    [[nodiscard]] Claim<std::monostate> peek(const ClaimRequest& request);
    /// Counts a failed attempt in a transaction of its own, as far as it can: it waits for the
    /// write lock as begin() does. Only after rollback().
    void record_failure(const ClaimRequest& request, std::string_view why) noexcept;
    /// Takes one counted attempt back; a dead record is open again. As far as it can, too.
    void refund_failure(const ClaimRequest& request) noexcept;

    // ---- by offset (FailureCountingFence) ------------------------------------------------------

    /// Reads, without the write lock.
    [[nodiscard]] std::optional<std::uint64_t> next(std::string_view scope,
                                                    std::string_view partition) {
        return detail::sqlite_next(core_, scope, partition);
    }
    /// Waits for the write lock as begin() does. Throws: StoreError.
    void passed(std::string_view scope, const Position& position) {
        detail::sqlite_passed(core_, scope, position);
    }
    [[nodiscard]] Claim<std::monostate> peek(std::string_view scope, const Position& position) {
        return detail::sqlite_peek(core_, scope, position);
    }
    void record_failure(std::string_view scope,
                        const Position& position,
                        std::string_view why) noexcept {
        detail::sqlite_fence_failure(core_, scope, position, why);
    }
    void refund_failure(std::string_view scope, const Position& position) noexcept {
        detail::sqlite_fence_refunded(core_, scope, position);
    }

    // ---- by lease ------------------------------------------------------------------------------

    /// Cost: a look without the write lock, which is all for a duplicate, a key in progress and what
    /// is refused; then one transaction.
    /// Throws: StoreError: then it was not won; std::logic_error for keys that are not different.
    [[nodiscard]] Claim<Ticket> claim(const ClaimRequest& request) {
        return std::move(leases_.claim(std::span(&request, 1)).front());
    }
    /// The same for all of them together, in one transaction: all that is free is won, or, where it
    /// throws, none of it.
    [[nodiscard]] std::vector<Claim<Ticket>> claim(std::span<const ClaimRequest> requests) {
        return leases_.claim(requests);
    }
    /// Repeating it with the same ticket and result is harmless. Cost: one transaction.
    /// Throws: StoreError, in_doubt only where a read under the write lock could not tell.
    TicketState complete(const Ticket& ticket, std::string_view result) {
        return leases_.complete(std::span(&ticket, 1), [&](std::size_t) { return result; }).front();
    }
    /// Cost: one transaction for all.
    [[nodiscard]] std::vector<TicketState> complete(std::span<const Ticket> tickets,
                                                    std::span<const std::string> results) {
        if (tickets.size() != results.size()) {
            throw std::invalid_argument("idem: complete() takes a result for each ticket");
        }
        return leases_.complete(tickets,
                                [&](std::size_t at) { return std::string_view(results[at]); });
    }
    /// Waits for the write lock, so for the joined handlers of whatever process, but not longer than
    /// SqliteOptions::busy. Cost: one transaction.
    TicketState renew(const Ticket& ticket, milliseconds lease) {
        return leases_.renew(ticket, lease);
    }
    /// Cost: one transaction.
    void abandon(const Ticket& ticket, std::string_view why) noexcept {
        leases_.give_back(ticket, why, false);
    }
    /// Cost: one transaction.
    void refund(const Ticket& ticket) noexcept { leases_.give_back(ticket, {}, true); }
    /// Cost: one transaction.
    TicketState park(const Ticket& ticket, std::string_view why) {
        return leases_.park(ticket, why);
    }
    /// A token of 32 hexadecimal digits, 128 random bits, good for a first redeem within `ttl`. It
    /// is remembered as expired for seven days more. `intent` is the fingerprint that a redeem must
    /// not contradict; without one the first redeem binds it.
    /// Cost: one transaction. Where it throws, no token is out that anybody could know.
    /// Throws: StoreError; std::invalid_argument for a scope or a ttl past the limits.
    [[nodiscard]] std::string
    issue(std::string_view scope, seconds ttl, const Fingerprint& intent = {}) {
        return leases_.issue(scope, ttl, intent);
    }
    [[nodiscard]] Heartbeat<BasicSqliteStore>& heartbeat() noexcept { return heartbeat_; }

    // ---- for operators -------------------------------------------------------------------------

    /// As inspectable_store.hpp says. What an open transaction has claimed is not in a record yet.
    /// Those who write wait for the write lock as begin() does, and throw as it does.
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
    static std::string tables_sql(const SqliteOptions& options) {
        return detail::sqlite_statement(detail::sqlite_schema, options.table) +
               detail::sqlite_statement(detail::sqlite_fence_schema, options.table);
    }

    detail::SqliteCore core_;
    detail::SqliteLeases leases_{core_};
    detail::SqliteInspection inspection_{core_.options().table};
    detail::SqlitePruning pruning_{core_.options().table};
    Heartbeat<BasicSqliteStore> heartbeat_{*this}; // last: its thread uses the rest
};

using SqliteStore = BasicSqliteStore<std::chrono::system_clock>;

template <class ClockType>
SqliteTransaction BasicSqliteStore<ClockType>::begin() {
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

template <class ClockType>
SqliteTransaction BasicSqliteStore<ClockType>::join(sqlite3* native) {
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

template <class ClockType>
Claim<std::monostate> BasicSqliteStore<ClockType>::peek(const ClaimRequest& request) {
    require_valid(request.key);
    return detail::sqlite_read_alone(core_, [&](detail::SqliteSession& session) {
        return core_.records().claim(session, request, core_.now());
    });
}

template <class ClockType>
void BasicSqliteStore<ClockType>::record_failure(const ClaimRequest& request,
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

template <class ClockType>
void BasicSqliteStore<ClockType>::refund_failure(const ClaimRequest& request) noexcept {
    try {
        inspection_.refund(core_, request.key);
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
