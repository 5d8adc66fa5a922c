// SPDX-License-Identifier: MIT
#ifndef IDEM_STORE_POSTGRES_HPP
#define IDEM_STORE_POSTGRES_HPP

// Records in a table of PostgreSQL, written in the handler's own transaction.

#include <idem/dedup_store.hpp>
#include <idem/detail/postgres_attempts.hpp>
#include <idem/detail/postgres_fence_calls.hpp>
#include <idem/detail/postgres_inspection.hpp>
#include <idem/detail/postgres_leases.hpp>
#include <idem/detail/postgres_schema_check.hpp>
#include <idem/detail/postgres_transaction.hpp>
#include <idem/detail/sql_store.hpp>
#include <idem/fenced_store.hpp>
#include <idem/inspectable_store.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// A table of records, and a pool of connections to it. It outlives its transactions.
///
/// For DedupTable: record and effect commit together. For DistributedLock over the same table: a
/// claim is a lease, and the effect lies elsewhere. OneTimeToken is the same by a token that was
/// issued. Both kinds honour each other's records and take the same lock of a key, so that programs
/// of either kind may run at once (semantics.md 4.6).
///
/// The server's clock alone judges leases and retention. The role needs SELECT, INSERT, UPDATE and
/// DELETE on the table, and USAGE on its sequence. Behind a pooler in transaction mode it works as
/// it is: a prepared statement that is not there makes it go on without.
///
/// What it does by offset and by lease it has from detail/sql_store.hpp.
///
/// Concurrency: every member may be called from any number of threads. In a child of fork() every
/// call throws std::logic_error: make a store there.
class PostgresStore : public detail::SqlStore<PostgresStore,
                                              detail::PostgresCore,
                                              detail::PostgresFenceCalls,
                                              detail::PostgresLeases> {
public:
    using Transaction = PostgresTransaction;

    /// `conninfo`: a URI or keyword=value list as libpq reads it. Connects at first use and checks
    /// nothing; verify() does.
    /// Throws: std::invalid_argument for an option out of its range.
    explicit PostgresStore(std::string conninfo, PostgresOptions options = {})
        : SqlStore(std::move(conninfo), std::move(options)) {}

    /// The statements that make the table, for those who apply them by their own tool.
    [[nodiscard]] static std::string schema_sql(const PostgresOptions& options = {}) {
        detail::require_postgres_table(options.table);
        return detail::with_table(detail::postgres_schema, options.table);
    }
    /// Makes the table where it is missing. Any number of instances may call it at once.
    void migrate() { detail::migrate(core(), schema_sql(core().options())); }
    /// Throws: StoreError rejected, naming all that is wrong: schema, privileges, a standby,
    /// synchronous_commit = off, an unlogged table, a server too old.
    void verify() { detail::verify(core()); }

    // ---- in the handler's own transaction ------------------------------------------------------

    /// Cost: none on the wire; a connection, where the pool has none idle.
    /// Throws: StoreError unavailable where no connection came free in time.
    [[nodiscard]] Transaction begin() {
        return Transaction(std::make_unique<detail::PostgresWork>(core()));
    }
    /// A savepoint in the transaction that `connection` has open, set by the first claim. commit()
    /// releases it, rollback() returns to it; COMMIT is the user's, and so is the connection after
    /// its link broke. Statements travel unprepared.
    /// Throws: std::logic_error where it has no open transaction.
    [[nodiscard]] Transaction join(pg_conn* connection) {
        return Transaction(std::make_unique<detail::PostgresWork>(core(), connection));
    }
    using SqlStore::peek, SqlStore::record_failure, SqlStore::refund_failure; // by offset
    /// Best effort. Waits for an owner of the key a second at most. Cost: one trip.
    void record_failure(const ClaimRequest& request, std::string_view why) noexcept {
        detail::record_failure(core(), request, why);
    }
    /// As record_failure().
    void refund_failure(const ClaimRequest& request) noexcept {
        detail::refund_failure(core(), request);
    }
    /// Cost: one trip.
    [[nodiscard]] Claim<std::monostate> peek(const ClaimRequest& request) {
        return detail::peek(core(), request);
    }

    // ---- for operators (InspectableStore) ------------------------------------------------------

    [[nodiscard]] std::optional<Record> find(const Key& key) { return inspection_.find(key); }
    /// Reads the whole table. Cost: one trip.
    [[nodiscard]] std::vector<Record> list(State state, std::size_t limit) {
        return inspection_.list(state, limit);
    }
    /// This and the next two wait for a handler in the middle of its transaction a second at most,
    /// and then answer false. Throws: StoreError; in_doubt where find() must tell.
    bool revive(const Key& key, const Intervention& by) { return inspection_.revive(key, by); }
    bool force_complete(const Key& key, std::string_view result, const Intervention& by) {
        return inspection_.force_complete(key, result, by);
    }
    bool erase(const Key& key, const Intervention& by) { return inspection_.erase(key, by); }
    /// One instance at a time; records that a transaction is at are passed over. Call it in a loop,
    /// with some thousands as its limit, until it answers 0: then now and again. Cost: one trip.
    std::size_t prune(std::size_t limit) { return inspection_.prune(limit); }

private:
    detail::PostgresInspection inspection_{core()};
};

static_assert(PeekingStore<PostgresStore> && RefundingTransactionalStore<PostgresStore>);
static_assert(BatchStore<PostgresStore> && BeatingStore<PostgresStore> &&
              RefundingStore<PostgresStore> && ParkingStore<PostgresStore> &&
              TokenStore<PostgresStore>);
static_assert(InspectableStore<PostgresStore>);
static_assert(FailureCountingFence<PostgresStore>);
static_assert(JoinableStore<PostgresStore, pg_conn*>);
static_assert(BatchTransaction<PostgresTransaction>);

} // namespace idem::inline v0

#endif // IDEM_STORE_POSTGRES_HPP
