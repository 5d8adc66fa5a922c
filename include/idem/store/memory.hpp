// SPDX-License-Identifier: MIT
#ifndef IDEM_STORE_MEMORY_HPP
#define IDEM_STORE_MEMORY_HPP

// The embedded default: records in this process, lost with it.

#include <idem/detail/memory_shard.hpp>
#include <idem/detail/nonce.hpp>
#include <idem/heartbeat.hpp>
#include <idem/outcome.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

struct MemoryOptions {
    /// The bound. Work it out as messages per second × retention: 50/s kept for the default seven
    /// days is 30 million. At the bound, with nothing past its retention, a claim throws.
    std::size_t max_records = 1'000'000;
    /// At the bound, forget the completed record nearest to its end instead; a duplicate of it runs
    /// again. Counted by evicted(). A record in progress is never forgotten.
    bool evict_oldest = false;
};

/// A lease store in memory. For one process whose broker redelivers to itself, and for tests; when
/// the process ends, every record is gone.
/// Concurrency: every member from any number of threads; a claim locks one shard.
/// Cost: no round trip.
template <class ClockType>
class BasicMemoryStore {
    using Shard = detail::MemoryShard<ClockType>;

public:
    using Clock = ClockType;
    static constexpr Durability durability = Durability::process;

    using Ticket = detail::MemoryTicket;

    explicit BasicMemoryStore(const MemoryOptions& options = {})
        : options_(options)
        , shards_(options.max_records < many_records ? 1 : 64)
        , heartbeat_(*this) {
        for (auto& shard : shards_) {
            shard.count_in(records_);
        }
    }
    BasicMemoryStore(const BasicMemoryStore&) = delete;
    BasicMemoryStore& operator=(const BasicMemoryStore&) = delete;

    /// Throws: StoreError unavailable at the bound; std::invalid_argument for a key past the
    /// limits.
    [[nodiscard]] Claim<Ticket> claim(const ClaimRequest& request) {
        require_valid(request.key);
        const bool by_token = !request.token.empty();
        auto key = detail::memory_key(request.key.scope, by_token ? request.token : request.key.id);
        auto& shard = shard_of(key);
        const std::scoped_lock lock(shard.mutex);
        const auto now = Clock::now();
        auto* record = shard.find(key, now);
        if (record == nullptr) {
            if (by_token && !request.token_may_be_new) {
                return Refused{reason::token_unknown};
            }
            make_room(shard, now);
            record = &shard.add(key, request.fingerprint);
        } else if (auto answer = shard.refusal(*record, request, now)) {
            return std::move(*answer);
        }
        return shard.take(*record, request, now, next_fence_++);
    }
    [[nodiscard]] std::vector<Claim<Ticket>> claim(std::span<const ClaimRequest> requests) {
        std::vector<Claim<Ticket>> claims;
        claims.reserve(requests.size());
        for (const auto& request : requests) {
            claims.push_back(claim(request));
        }
        return claims;
    }

    TicketState complete(const Ticket& ticket, std::string_view result) {
        return with(ticket, [&](Shard& shard, auto& record, auto now) {
            return shard.complete(record, ticket, result, now);
        });
    }
    [[nodiscard]] std::vector<TicketState> complete(std::span<const Ticket> tickets,
                                                    std::span<const std::string> results) {
        std::vector<TicketState> states;
        states.reserve(tickets.size());
        for (std::size_t i = 0; i < tickets.size(); ++i) {
            states.push_back(complete(tickets[i], results[i]));
        }
        return states;
    }

    TicketState renew(const Ticket& ticket, milliseconds lease) {
        return with(ticket, [&](Shard& shard, auto& record, auto now) {
            return shard.renew(record, ticket, lease, now);
        });
    }
    void abandon(const Ticket& ticket, std::string_view) noexcept { give_back(ticket, false); }
    void refund(const Ticket& ticket) noexcept { give_back(ticket, true); }
    TicketState park(const Ticket& ticket, std::string_view) {
        return with(ticket, [&](Shard& shard, auto& record, auto now) {
            return shard.park(record, ticket, now);
        });
    }

    /// A token of 32 hexadecimal digits, good for a first redeem within `ttl`. It is remembered as
    /// expired for seven days more.
    [[nodiscard]] std::string
    issue(std::string_view scope, seconds ttl, const Fingerprint& intent) {
        auto token = detail::fresh_token();
        require_valid({scope, token});
        const auto key = detail::memory_key(scope, token);
        auto& shard = shard_of(key);
        const std::scoped_lock lock(shard.mutex);
        const auto now = Clock::now();
        make_room(shard, now);
        shard.issue(shard.add(key, intent), ttl, seconds{604'800}, now);
        return token;
    }

    [[nodiscard]] Heartbeat<BasicMemoryStore>& heartbeat() noexcept { return heartbeat_; }

    /// Records at this moment, those past their retention but not yet dropped among them.
    [[nodiscard]] std::size_t size() const {
        std::size_t size = 0;
        for (auto& shard : shards_) {
            const std::scoped_lock lock(shard.mutex);
            size += shard.size();
        }
        return size;
    }
    /// How many records evict_oldest has forgotten before their time.
    [[nodiscard]] std::size_t evicted() const noexcept { return evicted_; }

private:
    static constexpr std::size_t many_records = 65'536; // below it one shard is enough

    Shard& shard_of(std::string_view key) {
        return shards_[(std::hash<std::string_view>{}(key) >> 32U) & (shards_.size() - 1)];
    }
    bool count_one_more() noexcept {
        auto count = records_.load();
        while (count < options_.max_records) {
            if (records_.compare_exchange_weak(count, count + 1)) {
                return true;
            }
        }
        return false;
    }
    bool evict_from(Shard& shard) {
        const bool evicted = shard.evict();
        evicted_ += evicted ? 1 : 0;
        return evicted;
    }
    template <class Change>
    TicketState with(const Ticket& ticket, const Change& change) {
        auto& shard = shard_of(ticket.key);
        const std::scoped_lock lock(shard.mutex);
        const auto now = Clock::now();
        auto* record = shard.find(ticket.key, now);
        return record == nullptr ? TicketState::outdated : change(shard, *record, now);
    }
    void give_back(const Ticket& ticket, bool refund) noexcept {
        static_cast<void>(with(ticket, [&](Shard& shard, auto& record, auto now) {
            return shard.give_back(record, ticket, refund, now);
        }));
    }
    /// Counts one more record, which the caller adds. The bound is one for all shards, as they fill
    /// unevenly, so that room is looked for in others too; one that is busy is passed over.
    void make_room(Shard& mine, typename Clock::time_point now) {
        mine.drop_expired(now);
        if (count_one_more()) {
            return;
        }
        auto found = [&](const auto& drop) {
            for (auto& shard : shards_) {
                std::unique_lock lock(shard.mutex, std::defer_lock);
                if ((&shard == &mine || lock.try_lock()) && drop(shard) && count_one_more()) {
                    return true;
                }
            }
            return false;
        };
        if (found([&](Shard& shard) { return shard.drop_expired(now); })) {
            return;
        }
        if (options_.evict_oldest && found([&](Shard& shard) { return evict_from(shard); })) {
            return;
        }
        throw StoreError(
            Fault::unavailable,
            "idem: MemoryStore is full: all of its " + std::to_string(options_.max_records) +
                " records (MemoryOptions::max_records) are within their retention; "
                "raise it, shorten ConsumerOptions::retention, or choose evict_oldest");
    }

    MemoryOptions options_;
    mutable std::vector<Shard> shards_;
    std::atomic<std::size_t> records_{0}; // of all shards
    // Starts at the time, so that fences grow across a restart of the process.
    std::atomic<std::uint64_t> next_fence_{
        static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                       std::chrono::system_clock::now().time_since_epoch())
                                       .count())};
    std::atomic<std::size_t> evicted_{0};
    Heartbeat<BasicMemoryStore> heartbeat_; // last: its thread uses the rest
};

using MemoryStore = BasicMemoryStore<BootClock>;

static_assert(BatchStore<MemoryStore> && TokenStore<MemoryStore> && BeatingStore<MemoryStore> &&
              RefundingStore<MemoryStore> && ParkingStore<MemoryStore>);

} // namespace idem::inline v0

#endif // IDEM_STORE_MEMORY_HPP
