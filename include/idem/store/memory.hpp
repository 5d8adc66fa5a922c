// SPDX-License-Identifier: MIT
#ifndef IDEM_STORE_MEMORY_HPP
#define IDEM_STORE_MEMORY_HPP

// The embedded default: records in this process, lost with it.

#include <idem/detail/memory_hash.hpp>
#include <idem/detail/memory_rules.hpp>
#include <idem/detail/memory_shard.hpp>
#include <idem/detail/memory_shards.hpp>
#include <idem/detail/nonce.hpp>
#include <idem/heartbeat.hpp>

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
    /// A bound of memory too: table, ids, results, fingerprints; 0: none. At it a claim of a new
    /// key throws likewise; the result of a handler that ran is always kept.
    std::size_t max_bytes = 0;
    /// Keep a digest of scope and id, 128 bits under a random key, instead of the text. A record
    /// without result and fingerprint then takes some 57 bytes, else their size and 32 more. Two
    /// of n keys share a digest, so that one message is lost, with a probability of n² / 2^129.
    bool compact = false;
    /// At the bound, forget a completed record instead; a duplicate of it runs again. The one
    /// nearest to its end of some sixty that are looked at. Counted by evicted(). A record in
    /// progress is never forgotten.
    bool evict_oldest = false;
};

/// A lease store in memory. For one process whose broker redelivers to itself, and for tests; when
/// the process ends, every record is gone. Leases and retention count in whole milliseconds, and
/// never end early. Memory of records past their retention is used again, not given back.
/// Concurrency: every member from any number of threads; a claim locks one shard.
/// Cost: no round trip; a claim moves a few hundred records at most, however many there are.
template <class ClockType>
class BasicMemoryStore {
    using Shard = detail::MemoryShard;
    using Rules = detail::MemoryRules;
    using FiledKey = detail::MemoryKey;
    using Moment = detail::MemoryMoment;

public:
    using Clock = ClockType;
    static constexpr Durability durability = Durability::process;

    using Ticket = detail::MemoryTicket;

    explicit BasicMemoryStore(const MemoryOptions& options = {})
        : compact_(options.compact)
        , shards_(options.max_records, options.max_bytes, options.evict_oldest)
        , heartbeat_(*this) {}
    BasicMemoryStore(const BasicMemoryStore&) = delete;
    BasicMemoryStore& operator=(const BasicMemoryStore&) = delete;

    /// Throws: StoreError unavailable at the bound; std::invalid_argument for a key past the
    /// limits.
    [[nodiscard]] Claim<Ticket> claim(const ClaimRequest& request) {
        const auto key = filed(request);
        shards_.of(key.digest.high).prefetch(key.digest.high);
        return claim_at(request, key, now());
    }
    /// Throws: as claim(request); what was claimed before it is given back then, uncharged.
    [[nodiscard]] std::vector<Claim<Ticket>> claim(std::span<const ClaimRequest> requests) {
        const auto moment = now();
        std::vector<Claim<Ticket>> claims;
        claims.reserve(requests.size());
        FiledKey keys[at_once];
        try {
            for (std::size_t from = 0; from < requests.size(); from += at_once) {
                const auto some = part_of(requests, from);
                for (std::size_t i = 0; i < some.size(); ++i) {
                    keys[i] = filed(some[i]);
                }
                for (std::size_t i = 0; i < some.size(); ++i) { // close together: pages too overlap
                    shards_.of(keys[i].digest.high).prefetch(keys[i].digest.high);
                }
                for (std::size_t i = 0; i < some.size(); ++i) {
                    auto& shard = shards_.of(keys[i].digest.high);
                    const std::scoped_lock lock(shard.mutex);
                    shard.make_ready(keys[i].digest.high, moment);
                }
                for (std::size_t i = 0; i < some.size(); ++i) {
                    claims.push_back(claim_at(some[i], keys[i], moment));
                }
            }
        } catch (...) {
            for (const auto& claim : claims) {
                if (const auto* mine = std::get_if<Claimed<Ticket>>(&claim)) {
                    refund(mine->ticket);
                }
            }
            throw;
        }
        return claims;
    }

    TicketState complete(const Ticket& ticket, std::string_view result) {
        return complete_at(ticket, result, now());
    }
    [[nodiscard]] std::vector<TicketState> complete(std::span<const Ticket> tickets,
                                                    std::span<const std::string> results) {
        const auto moment = now();
        std::vector<TicketState> states;
        states.reserve(tickets.size());
        for (std::size_t from = 0; from < tickets.size(); from += at_once) {
            const auto some = part_of(tickets, from);
            for (const auto& ticket : some) {
                shards_.of(ticket.hash).prefetch(ticket.hash);
            }
            for (std::size_t i = 0; i < some.size(); ++i) {
                states.push_back(complete_at(some[i], results[from + i], moment));
            }
        }
        return states;
    }

    TicketState renew(const Ticket& ticket, milliseconds lease) {
        return with(ticket, now(), [&](Rules& rules, const auto& place) {
            return rules.renew(place, lease);
        });
    }
    void abandon(const Ticket& ticket, std::string_view) noexcept { give_back(ticket, false); }
    void refund(const Ticket& ticket) noexcept { give_back(ticket, true); }
    TicketState park(const Ticket& ticket, std::string_view) {
        return with(
            ticket, now(), [](Rules& rules, const auto& place) { return rules.park(place); });
    }

    /// A token of 32 hexadecimal digits, good for a first redeem within `ttl`. It is remembered as
    /// expired for seven days more. Throws: as claim(); std::invalid_argument for a ttl of 0 or less.
    [[nodiscard]] std::string
    issue(std::string_view scope, seconds ttl, const Fingerprint& intent) {
        detail::require_ttl(ttl);
        auto token = detail::fresh_token();
        const auto key = filed(Key{scope, token});
        auto& shard = shards_.of(key.digest.high);
        const std::scoped_lock lock(shard.mutex);
        const auto moment = now();
        const auto place = shards_.add(shard, key.new_record(intent, {}), moment);
        Rules(shard, moment).issue(place, ttl, seconds{604'800});
        return token;
    }

    [[nodiscard]] Heartbeat<BasicMemoryStore>& heartbeat() noexcept { return heartbeat_; }

    /// Records at this moment, those past their retention but not yet dropped among them.
    [[nodiscard]] std::size_t size() const {
        return shards_.sum([](const Shard& shard) { return shard.size(); });
    }
    /// What counts against max_bytes.
    [[nodiscard]] std::size_t bytes() const {
        return shards_.sum([](const Shard& shard) { return shard.bytes(); });
    }
    /// How many records evict_oldest has forgotten before their time.
    [[nodiscard]] std::size_t evicted() const {
        return shards_.sum([](const Shard& shard) { return shard.evicted(); });
    }

private:
    static constexpr std::size_t at_once = 32; // so many lines a processor fetches side by side

    template <class T>
    static std::span<const T> part_of(std::span<const T> all, std::size_t from) noexcept {
        return all.subspan(from, all.size() - from < at_once ? all.size() - from : at_once);
    }
    [[nodiscard]] Moment now() const noexcept {
        const auto life = Clock::now() - epoch_;
        return {static_cast<std::uint64_t>(std::chrono::floor<milliseconds>(life).count()),
                static_cast<std::uint64_t>(std::chrono::ceil<milliseconds>(life).count())};
    }
    [[nodiscard]] FiledKey filed(const Key& key) const {
        require_valid(key);
        return {hash_(key.scope, key.id), key.scope, key.id, !compact_};
    }
    [[nodiscard]] FiledKey filed(const ClaimRequest& request) const {
        if (request.token.empty()) {
            return filed(request.key);
        }
        require_valid(request.key);
        return filed(Key{request.key.scope, request.token});
    }
    [[nodiscard]] Claim<Ticket>
    claim_at(const ClaimRequest& request, const FiledKey& key, const Moment& moment) {
        auto& shard = shards_.of(key.digest.high);
        const std::scoped_lock lock(shard.mutex);
        Rules rules(shard, moment);
        auto place = shard.find(key, moment);
        if (!place) {
            const bool by_token = !request.token.empty();
            if (by_token && !request.token_may_be_new) {
                return Refused{reason::token_unknown};
            }
            const auto holder = by_token ? request.key.id : std::string_view{};
            place = shards_.add(shard, key.new_record(request.fingerprint, holder), moment);
        } else if (auto answer = rules.refusal(*place, request)) {
            return std::move(*answer);
        }
        return rules.take(place, request);
    }
    TicketState complete_at(const Ticket& ticket, std::string_view result, const Moment& moment) {
        return with(ticket, moment, [&](Rules& rules, const auto& place) {
            return rules.complete(place, result);
        });
    }
    void give_back(const Ticket& ticket, bool refund) noexcept {
        static_cast<void>(with(ticket, now(), [&](Rules& rules, const auto& place) {
            return rules.give_back(place, refund);
        }));
    }
    template <class Change>
    TicketState with(const Ticket& ticket, const Moment& moment, const Change& change) {
        auto& shard = shards_.of(ticket.hash);
        const std::scoped_lock lock(shard.mutex);
        const auto place = shard.find(ticket.hash, ticket.fence, moment);
        Rules rules(shard, moment);
        return place ? change(rules, place) : TicketState::outdated;
    }

    bool compact_;
    detail::MemoryHash hash_;
    typename Clock::time_point epoch_ = Clock::now();
    detail::MemoryShards shards_;
    Heartbeat<BasicMemoryStore> heartbeat_; // last: its thread uses the rest
};

using MemoryStore = BasicMemoryStore<BootClock>;

static_assert(BatchStore<MemoryStore> && TokenStore<MemoryStore> && BeatingStore<MemoryStore> &&
              RefundingStore<MemoryStore> && ParkingStore<MemoryStore>);

} // namespace idem::inline v0

#endif // IDEM_STORE_MEMORY_HPP
