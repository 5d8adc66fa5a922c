// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_LEASE_STORE_HPP
#define IDEM_DETAIL_REDIS_LEASE_STORE_HPP

// What RedisLockStore and RedisTokenStore share: one record, one set of scripts.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/redis_claims.hpp>
#include <idem/detail/redis_connections.hpp>
#include <idem/detail/redis_health.hpp>
#include <idem/heartbeat.hpp>

#include <array>
#include <cstddef>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// `Self` is the store that inherits this. The laws are those of dedup_store.hpp.
template <class Self>
class RedisLeaseStore {
public:
    using Ticket = RedisTicket;
    /// The least of the three: records outlive every client process. A crash of the server loses
    /// what its persistence had not written (by default everything since the last snapshot; with
    /// appendonly yes and appendfsync everysec about a second; with always nothing), and a failover
    /// to a replica what was not replicated. What is lost runs again.
    static constexpr Durability durability = Durability::process;

    RedisLeaseStore(const RedisLeaseStore&) = delete;
    RedisLeaseStore& operator=(const RedisLeaseStore&) = delete;

    /// Cost: one round trip where the key is free or completed, two where it is anything else; a
    /// claim of a token that must have been issued is always one.
    /// Throws: StoreError; std::invalid_argument naming the field past its limit.
    [[nodiscard]] Claim<Ticket> claim(const ClaimRequest& request) {
        return std::move(claim(std::span(&request, 1)).front());
    }
    /// Cost: one round trip where all keys are free or completed, else two. Where one key makes it
    /// throw, what the others won is given back.
    [[nodiscard]] std::vector<Claim<Ticket>> claim(std::span<const ClaimRequest> requests) {
        std::vector<RedisClaim> claims;
        claims.reserve(requests.size());
        const auto nonces = draw_random(requests.size() * nonce_size);
        for (const auto& request : requests) {
            const auto at = claims.size() * nonce_size;
            claims.emplace_back(prefix_, request, std::string_view(nonces).substr(at, nonce_size));
        }
        if (claims.empty()) {
            return {};
        }
        IDEM_FAILPOINT("redis: before claim");
        auto taken = connections_.run([&](RedisLanes& lanes, Deadline deadline) {
            return take_redis_claims(lanes, claims, deadline);
        });
        IDEM_FAILPOINT("redis: after claim");
        if (taken.error) {
            give_back(taken.answers);
            std::rethrow_exception(taken.error);
        }
        std::vector<Claim<Ticket>> answers;
        answers.reserve(claims.size());
        for (auto& answer : taken.answers) {
            answers.push_back(std::move(*answer));
        }
        return answers;
    }

    /// Cost: one round trip. Repeating it with the same ticket and text is harmless, in doubt too.
    TicketState complete(const Ticket& ticket, std::string_view result) {
        return complete_each(std::span(&ticket, 1), [&](std::size_t) { return result; }).front();
    }
    /// Cost: one round trip.
    [[nodiscard]] std::vector<TicketState> complete(std::span<const Ticket> tickets,
                                                    std::span<const std::string> results) {
        return complete_each(tickets, [&](std::size_t i) { return std::string_view(results[i]); });
    }

    /// On a connection of its own: never waits for what handlers hold. Cost: one round trip.
    TicketState renew(const Ticket& ticket, milliseconds lease) {
        const auto record = record_of(ticket);
        require_redis_times(lease, record.grace, "lease");
        const auto px = std::to_string((lease + record.grace).count());
        return connections_.run_renewal([&](RedisLanes& lanes, Deadline deadline) {
            const auto reply =
                redis_renew_script.run(lanes, {ticket.key, ticket.record, px}, deadline);
            return state_of(lanes.where(), ticket, *reply);
        });
    }

    /// Cost: one round trip.
    void abandon(const Ticket& ticket, std::string_view why) noexcept { give_back(ticket, why, 0); }
    /// Cost: one round trip.
    void refund(const Ticket& ticket) noexcept { give_back(ticket, {}, 1); }

    /// The record lives for the retention, counted from now. Cost: one round trip.
    TicketState park(const Ticket& ticket, std::string_view why) {
        return replace(std::span(&ticket, 1),
                       [&](RedisRecord& record, std::size_t) {
                           record.state = RedisState::parked;
                           record.text = why.substr(0, longest_why);
                       })
            .front();
    }

    /// Renews tickets of this store, on the connection of renew().
    [[nodiscard]] Heartbeat<Self>& heartbeat() noexcept { return heartbeat_; }

    /// Checks what would lose records or refuse claims: version, cluster, replica, eviction policy,
    /// failing persistence. That persistence is off is no fault: see `durability`.
    /// Throws: StoreError rejected naming all that is wrong; unavailable.
    void verify() {
        connections_.run([](RedisLanes& lanes, Deadline deadline) {
            RedisPipeline asked;
            asked.append({"INFO"});
            const auto info = std::move(lanes.exchange(asked, deadline)[0]);
            if (info.value().is_error()) {
                throw redis_error(lanes.where() + " (INFO)", info.value().text());
            }
            std::string text;
            for (const auto& problem : problems_of_redis(info.value().text())) {
                text += "; " + problem;
            }
            if (!text.empty()) {
                throw StoreError(Fault::rejected, "idem: Redis at " + lanes.where() + text);
            }
        });
    }

protected:
    RedisLeaseStore(std::string_view address, const RedisOptions& options)
        : prefix_(options.prefix)
        , connections_(address, options)
        , heartbeat_(static_cast<Self&>(*this)) {}
    ~RedisLeaseStore() = default;

    [[nodiscard]] const std::string& prefix() const noexcept { return prefix_; }
    [[nodiscard]] RedisConnections& connections() noexcept { return connections_; }

private:
    static constexpr std::size_t longest_why = 512;
    static constexpr std::size_t tickets_of_a_call = 32; ///< of a script: the server waits for it

    template <class ResultOf>
    std::vector<TicketState> complete_each(std::span<const Ticket> tickets,
                                           const ResultOf& result) {
        IDEM_FAILPOINT("redis: before complete");
        auto states = replace(tickets, [&](RedisRecord& record, std::size_t i) {
            record.state = RedisState::completed;
            record.text = result(i);
        });
        IDEM_FAILPOINT("redis: after complete");
        return states;
    }

    /// Puts `change(record, i)` in the place of each ticket's record, where it still stands.
    template <class Change>
    std::vector<TicketState> replace(std::span<const Ticket> tickets, const Change& change) {
        struct Next {
            std::string record, px;
        };
        std::vector<Next> next;
        next.reserve(tickets.size());
        for (std::size_t i = 0; i < tickets.size(); ++i) {
            auto record = record_of(tickets[i]);
            record.fence = tickets[i].fence;
            change(record, i);
            next.push_back({pack_redis_record(record), std::to_string(record.grace.count())});
        }
        if (next.empty()) {
            return {};
        }
        const auto arguments = [&](std::size_t chunk) {
            const auto begin = chunk * tickets_of_a_call;
            const auto end = std::min(begin + tickets_of_a_call, tickets.size());
            std::vector<std::string_view> words;
            words.reserve(4 * (end - begin));
            for (auto i = begin; i < end; ++i) {
                words.push_back(tickets[i].key);
            }
            for (auto i = begin; i < end; ++i) {
                words.insert(words.end(), {tickets[i].record, next[i].record, next[i].px});
            }
            return words;
        };
        const auto calls = (tickets.size() + tickets_of_a_call - 1) / tickets_of_a_call;
        return connections_.run([&](RedisLanes& lanes, Deadline deadline) {
            const auto& script =
                tickets.size() == 1 ? redis_replace_script : redis_replace_each_script;
            const auto replies = script.run_all(lanes, calls, arguments, deadline);
            return states_of(lanes.where(), tickets, replies);
        });
    }

    void give_back(const Ticket& ticket, std::string_view why, unsigned refunded) noexcept {
        try {
            static_cast<void>(replace(std::span(&ticket, 1), [&](RedisRecord& record, std::size_t) {
                record.state = RedisState::free;
                record.attempts -= refunded;
                record.text = why.substr(0, longest_why);
            }));
        } catch (...) { // NOLINT(bugprone-empty-catch): best effort, the lease ends by itself
        }
    }
    void give_back(const std::vector<std::optional<Claim<Ticket>>>& answers) noexcept {
        for (const auto& answer : answers) {
            if (const auto* won = answer ? std::get_if<Claimed<Ticket>>(&*answer) : nullptr) {
                refund(won->ticket);
            }
        }
    }

    static RedisRecord record_of(const Ticket& ticket) {
        auto record = unpack_redis_record(ticket.record);
        if (!record) {
            throw std::invalid_argument("idem: a ticket that this store did not make");
        }
        return std::move(*record);
    }
    static TicketState state_of(const std::string& where, const Ticket& ticket, RedisValue answer) {
        if (answer.is_error()) {
            throw redis_error(where + " (key " + printable_redis_key(ticket.key) + ")",
                              answer.text());
        }
        return answer.integer() == 1 ? TicketState::valid : TicketState::outdated;
    }
    /// Where some were answered and one failed, what happened to it does not speak for all.
    static std::vector<TicketState> states_of(const std::string& where,
                                              std::span<const Ticket> tickets,
                                              const std::vector<RedisReply>& replies) {
        std::vector<TicketState> states;
        std::optional<StoreError> failed;
        for (std::size_t i = 0; i < tickets.size(); ++i) {
            try {
                const auto reply = *replies[i / tickets_of_a_call];
                states.push_back(state_of(
                    where, tickets[i], reply.is_array() ? reply[i % tickets_of_a_call] : reply));
            } catch (const StoreError& error) {
                failed = failed ? failed : error;
            }
        }
        if (failed && !states.empty() && failed->fault() == Fault::unavailable) {
            throw StoreError(Fault::in_doubt, failed->what());
        }
        if (failed) {
            throw StoreError(*failed);
        }
        return states;
    }

    std::string prefix_;
    RedisConnections connections_;
    Heartbeat<Self> heartbeat_; // last: its thread uses the rest
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_LEASE_STORE_HPP
