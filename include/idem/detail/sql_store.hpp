// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQL_STORE_HPP
#define IDEM_DETAIL_SQL_STORE_HPP

// What a user calls alike in PostgresStore and SqliteStore: by offset, and by lease.

#include <idem/dedup_store.hpp>
#include <idem/fenced_store.hpp>
#include <idem/heartbeat.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

/// `Self` is the store that inherits this, `Core` what its calls share, `FenceCalls` and `Leases`
/// what they are to its database. The laws are those of fenced_store.hpp and dedup_store.hpp.
///
/// Concurrency: every member may be called from any number of threads.
/// Throws, each member that is not noexcept: StoreError; std::invalid_argument naming the field past
/// its limit; std::logic_error as the store says.
/// Cost, where a member says no other: a step, which in PostgreSQL is one trip, and in SQLite one
/// transaction that waits for the write lock as begin() does.
template <class Self, class Core, class FenceCalls, class Leases>
class SqlStore {
public:
    using Ticket = typename Leases::Ticket;
    static constexpr Durability durability = Durability::machine;

    SqlStore(const SqlStore&) = delete;
    SqlStore& operator=(const SqlStore&) = delete;

    // ---- by offset (FailureCountingFence) ------------------------------------------------------

    /// Cost: a step that reads, in SQLite without the write lock.
    [[nodiscard]] std::optional<std::uint64_t> next(std::string_view scope,
                                                    std::string_view partition) {
        return fence_calls_.next(scope, partition);
    }
    /// Waits for a transaction at the row. Throws: StoreError unavailable where it took too long.
    void passed(std::string_view scope, const Position& position) {
        fence_calls_.passed(scope, position);
    }
    /// Cost: as next().
    [[nodiscard]] Claim<std::monostate> peek(std::string_view scope, const Position& position) {
        return fence_calls_.peek(scope, position);
    }
    /// Best effort, as record_failure() of a key.
    void record_failure(std::string_view scope,
                        const Position& position,
                        std::string_view why) noexcept {
        fence_calls_.record_failure(scope, position, why);
    }
    /// As record_failure().
    void refund_failure(std::string_view scope, const Position& position) noexcept {
        fence_calls_.refund_failure(scope, position);
    }

    // ---- by lease ------------------------------------------------------------------------------

    /// Cost, PostgreSQL: one trip for a key that is new, two for a duplicate, four for a takeover.
    /// SQLite: a look without the write lock, which is all for a duplicate, a key in progress and
    /// what is refused; then a step.
    /// Throws: StoreError: then nobody has won it by this call; where PostgreSQL's link broke, the
    /// key may stay in progress until its lease ends.
    [[nodiscard]] Claim<Ticket> claim(const ClaimRequest& request) {
        return std::move(leases_.claim(std::span(&request, 1)).front());
    }
    /// The same for all of them together: all that is free is won. Where one makes it throw,
    /// PostgreSQL gives back what the others won; in SQLite none was won.
    /// Cost: what one costs; in PostgreSQL for each 500.
    /// Throws: std::logic_error for keys that are not different.
    [[nodiscard]] std::vector<Claim<Ticket>> claim(std::span<const ClaimRequest> requests) {
        return leases_.claim(requests);
    }
    /// Repeating it with the same ticket and result is harmless.
    /// Throws: StoreError, in_doubt where it may have happened: in PostgreSQL after the link broke,
    /// in SQLite only where a read under the write lock could not tell.
    TicketState complete(const Ticket& ticket, std::string_view result) {
        return leases_.complete(std::span(&ticket, 1), [&](std::size_t) { return result; }).front();
    }
    /// Cost: a step for all; in PostgreSQL for each 500.
    /// Throws: std::invalid_argument unless there is a result for each ticket.
    [[nodiscard]] std::vector<TicketState> complete(std::span<const Ticket> tickets,
                                                    std::span<const std::string> results) {
        if (tickets.size() != results.size()) {
            throw std::invalid_argument("idem: complete() takes a result for each ticket");
        }
        return leases_.complete(tickets,
                                [&](std::size_t at) { return std::string_view(results[at]); });
    }
    /// In PostgreSQL it never waits for what handlers hold. In SQLite it waits for the write lock,
    /// so for the joined handlers of whatever process, but not longer than SqliteOptions::busy.
    TicketState renew(const Ticket& ticket, milliseconds lease) {
        return leases_.renew(ticket, lease);
    }
    /// Best effort: else the lease ends by itself.
    void abandon(const Ticket& ticket, std::string_view why) noexcept {
        leases_.give_back(ticket, why, false);
    }
    /// As abandon().
    void refund(const Ticket& ticket) noexcept { leases_.give_back(ticket, {}, true); }
    /// Repeating it with the same ticket is harmless.
    TicketState park(const Ticket& ticket, std::string_view why) {
        return leases_.park(ticket, why);
    }
    /// A token of 32 hexadecimal digits, 128 random bits, good for a first redeem within `ttl`. It
    /// is remembered as expired for seven days more. `intent` is the fingerprint that a redeem must
    /// not contradict; without one the first redeem binds it.
    /// Where it throws, no token is out that anybody could know: also std::invalid_argument for a ttl
    /// of 0 or less.
    [[nodiscard]] std::string
    issue(std::string_view scope, seconds ttl, const Fingerprint& intent = {}) {
        return leases_.issue(scope, ttl, intent);
    }
    /// Renews tickets of this store.
    [[nodiscard]] Heartbeat<Self>& heartbeat() noexcept { return heartbeat_; }

protected:
    /// `arguments`: of the core.
    template <class... Arguments>
    explicit SqlStore(Arguments&&... arguments)
        : core_(std::forward<Arguments>(arguments)...)
        , heartbeat_(static_cast<Self&>(*this)) {}
    ~SqlStore() = default;

    [[nodiscard]] Core& core() noexcept { return core_; }

private:
    Core core_;
    FenceCalls fence_calls_{core_};
    Leases leases_{core_};
    Heartbeat<Self> heartbeat_; // last: its thread uses the rest
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQL_STORE_HPP
