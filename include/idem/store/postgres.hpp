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
#include <idem/fenced_store.hpp>
#include <idem/heartbeat.hpp>
#include <idem/inspectable_store.hpp>

#include <cstddef>
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
/// Concurrency: every member may be called from any number of threads. In a child of fork() every
/// call throws std::logic_error: make a store there.
class PostgresStore {
public:
    using Transaction = PostgresTransaction;
    using Ticket = PostgresTicket;
    static constexpr Durability durability = Durability::machine;

    /// `conninfo`: a URI or keyword=value list as libpq reads it. Connects at first use and checks
    /// nothing; verify() does.
    /// Throws: std::invalid_argument for an option out of its range.
    explicit PostgresStore(std::string conninfo, PostgresOptions options = {})
        : core_(std::move(conninfo), std::move(options)) {}

    /// The statements that make the table, for those who apply them by their own tool.
    [[nodiscard]] static std::string schema_sql(const PostgresOptions& options = {}) {
        detail::require_postgres_table(options.table);
        return detail::with_table(detail::postgres_schema, options.table);
    }
    /// Makes the table where it is missing. Any number of instances may call it at once.
    void migrate() { detail::migrate(core_, schema_sql(core_.options())); }
    /// Throws: StoreError rejected, naming all that is wrong: schema, privileges, a standby,
    /// synchronous_commit = off, an unlogged table, a server too old.
    void verify() { detail::verify(core_); }

    // ---- in the handler's own transaction ------------------------------------------------------

    /// Cost: none on the wire; a connection, where the pool has none idle.
    /// Throws: StoreError unavailable where no connection came free in time.
    [[nodiscard]] Transaction begin() {
        return Transaction(std::make_unique<detail::PostgresWork>(core_));
    }
    /// A savepoint in the transaction that `connection` has open, set by the first claim. commit()
    /// releases it, rollback() returns to it; COMMIT is the user's, and so is the connection after
    /// its link broke. Statements travel unprepared.
    /// Throws: std::logic_error where it has no open transaction.
    [[nodiscard]] Transaction join(pg_conn* connection) {
        return Transaction(std::make_unique<detail::PostgresWork>(core_, connection));
    }
    /// Best effort. Waits for an owner of the key a second at most. Cost: one trip.
    void record_failure(const ClaimRequest& request, std::string_view why) noexcept {
        detail::record_failure(core_, request, why);
    }
    /// As record_failure().
    void refund_failure(const ClaimRequest& request) noexcept {
        detail::refund_failure(core_, request);
    }
    /// Cost: one trip.
    [[nodiscard]] Claim<std::monostate> peek(const ClaimRequest& request) {
        return detail::peek(core_, request);
    }

    // ---- by offset (FailureCountingFence) ------------------------------------------------------

    /// Cost, of each: one trip.
    [[nodiscard]] std::optional<std::uint64_t> next(std::string_view scope,
                                                    std::string_view partition) {
        return detail::fence_next(core_, scope, partition);
    }
    /// Waits for a transaction at the row. Throws: StoreError unavailable where it took too long.
    void passed(std::string_view scope, const Position& position) {
        detail::pass_fence(core_, scope, position);
    }
    [[nodiscard]] Claim<std::monostate> peek(std::string_view scope, const Position& position) {
        return detail::peek_fence(core_, scope, position);
    }
    /// Best effort, as record_failure() of a key.
    void record_failure(std::string_view scope,
                        const Position& position,
                        std::string_view why) noexcept {
        detail::count_fence_failure(core_, scope, position, why);
    }
    void refund_failure(std::string_view scope, const Position& position) noexcept {
        detail::refund_fence_failure(core_, scope, position);
    }

    // ---- by lease ------------------------------------------------------------------------------

    /// Cost: one trip for keys that are new, two for duplicates, four for a takeover.
    /// Throws: StoreError; std::logic_error for keys that are not different.
    [[nodiscard]] Claim<Ticket> claim(const ClaimRequest& request) {
        return std::move(leases_.claim(std::span(&request, 1)).front());
    }
    /// The same for all of them together. Where one makes it throw, what the others won is given
    /// back. Cost: the trips of one for each 500.
    [[nodiscard]] std::vector<Claim<Ticket>> claim(std::span<const ClaimRequest> requests) {
        return leases_.claim(requests);
    }
    /// Cost: one trip; repeating it with the same ticket and result is harmless.
    TicketState complete(const Ticket& ticket, std::string_view result) {
        return leases_.complete(std::span(&ticket, 1), [&](std::size_t) { return result; }).front();
    }
    /// Cost: one trip for each 500.
    [[nodiscard]] std::vector<TicketState> complete(std::span<const Ticket> tickets,
                                                    std::span<const std::string> results) {
        if (tickets.size() != results.size()) {
            throw std::invalid_argument("idem: complete() takes a result for each ticket");
        }
        return leases_.complete(tickets,
                                [&](std::size_t at) -> const std::string& { return results[at]; });
    }
    /// Never waits for what handlers hold. Cost: one trip.
    TicketState renew(const Ticket& ticket, milliseconds lease) {
        return leases_.renew(ticket, lease);
    }
    /// Cost: one trip.
    void abandon(const Ticket& ticket, std::string_view why) noexcept {
        leases_.give_back(ticket, why, false);
    }
    /// Cost: one trip.
    void refund(const Ticket& ticket) noexcept { leases_.give_back(ticket, {}, true); }
    /// Cost: one trip.
    TicketState park(const Ticket& ticket, std::string_view why) {
        return leases_.park(ticket, why);
    }
    /// A token of 32 hexadecimal digits, 128 random bits, good for a first redeem within `ttl`. It
    /// is remembered as expired for seven days more. `intent` is the fingerprint that a redeem must
    /// not contradict; without one the first redeem binds it.
    /// Cost: one trip. Where it throws, no token is out that anybody could know.
    [[nodiscard]] std::string
    issue(std::string_view scope, seconds ttl, const Fingerprint& intent = {}) {
        return leases_.issue(scope, ttl, intent);
    }
    [[nodiscard]] Heartbeat<PostgresStore>& heartbeat() noexcept { return heartbeat_; }

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
    detail::PostgresCore core_;
    detail::PostgresLeases leases_{core_};
    detail::PostgresInspection inspection_{core_};
    Heartbeat<PostgresStore> heartbeat_{*this}; // last: its thread uses the rest
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
