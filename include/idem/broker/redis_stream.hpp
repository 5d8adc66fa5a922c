// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_REDIS_STREAM_HPP
#define IDEM_BROKER_REDIS_STREAM_HPP

// Deliveries from a consumer group of a Redis stream.

#include <idem/broker/redis_stream_delivery.hpp>
#include <idem/broker/redis_stream_group.hpp>
#include <idem/broker/redis_stream_options.hpp>
#include <idem/broker/source.hpp>
#include <idem/detail/hiredis.hpp>
#include <idem/detail/redis_address.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// A consumer of a group, for idem::run or a loop of your own. Connects at first use, makes stream
/// and group where they are missing, and connects anew after an outage. Needs Redis 7.0, no
/// cluster.
///
/// What it gives first: its own pending entries, after a start or an outage; then, every quarter of
/// claim_idle (5 s at most), those that no consumer kept alive for claim_idle, whoever owned them;
/// then new ones. A delivery is this consumer's until it is settled, another took it over, or it
/// was given here anew; every call about it asks the server first who owns it.
///
/// ack: XACK. retry: the entry stays pending, and is taken over by whoever looks first after the
/// delay. dead_letter: its fields and the header:: fields go to the dead stream in one step with
/// the XACK. An entry that was trimmed while it was pending goes there with its id alone.
/// Concurrency: one thread, but for the deliveries.
class RedisStreamSource {
public:
    using Delivery = RedisStreamDelivery;

    /// `address`: redis://user:password@host:port/database, unix:/path?db=database, host:port.
    /// Throws: std::invalid_argument naming what is wrong with the address or the options.
    RedisStreamSource(std::string_view address, RedisStreamOptions options)
        : group_(detail::parse_redis_address(address), std::move(options)) {}
    RedisStreamSource(const RedisStreamSource&) = delete; // its deliveries refer to it
    RedisStreamSource& operator=(const RedisStreamSource&) = delete;
    ~RedisStreamSource() = default;

    [[nodiscard]] const RedisStreamOptions& options() const noexcept { return group_.options(); }
    /// Where dead letters go.
    [[nodiscard]] const std::string& dead_stream() const noexcept { return options().dead_stream; }
    [[nodiscard]] DeliveryDeadline deadline() const noexcept {
        return {options().claim_idle, true};
    }

    /// Cost: one round trip where there is something new, and one for a look at what others left.
    /// Throws: StoreError: unavailable, in_doubt; rejected for credentials, permissions, a key that
    /// is no stream.
    std::vector<Delivery> receive(milliseconds time) { return receive(time, options().count); }
    std::vector<Delivery> receive(milliseconds time, std::size_t at_most) {
        const std::size_t count = at_most < options().count ? at_most : options().count;
        if (count == 0) {
            return {};
        }
        if (group_.is_new_connection()) {
            cursor_ = "0";
        }
        std::vector<Delivery> received;
        while (!cursor_.empty() && received.empty()) {
            read_own(count, received);
        }
        const auto now = std::chrono::steady_clock::now();
        if (received.empty() && now >= look_at_) {
            look_at_ = now + group_.look_every();
            take_over(count, received);
        }
        if (received.empty()) {
            const auto reply = group_.read(">", count, time);
            take_entries(reply.value()[0][1], 1, received);
        }
        return received;
    }

    /// Cost: one round trip. A delivery that is settled a second time, or was given anew, is lost.
    /// Throws: StoreError unavailable (nothing happened), rejected.
    Settled settle(Delivery& delivery, const Settlement& settlement) {
        if (settlement.action == Action::ack) {
            Delivery* const only = &delivery;
            return acknowledge(std::span(&only, 1))[0];
        }
        if (!is_ours(delivery)) {
            return Settled::lost;
        }
        auto settled = Settled::yes;
        if (settlement.action == Action::dead_letter && !delivery.dead_lettered_) {
            settled = group_.dead_letter(delivery, settlement);
        } else if (settlement.action == Action::retry) {
            settled = group_.give_back(delivery, settlement.delay);
        }
        forget(delivery); // of `stop` nothing is told, and the entry stays pending
        return settled;
    }

    /// Cost: one round trip for all.
    std::vector<Settled> acknowledge(std::span<Delivery* const> deliveries) {
        std::vector<Settled> answers(deliveries.size(), Settled::lost);
        std::vector<std::string_view> ids;
        for (const Delivery* delivery : deliveries) {
            if (is_ours(*delivery)) {
                ids.push_back(delivery->entry_id());
            }
        }
        if (ids.empty()) {
            return answers;
        }
        const auto settled = group_.acknowledge(ids);
        for (std::size_t i = 0, next = 0; i < deliveries.size(); ++i) {
            if (is_ours(*deliveries[i])) {
                answers[i] = settled[next++];
                forget(*deliveries[i]);
            }
        }
        return answers;
    }

    /// Starts claim_idle anew; `time` is at most that. False also where it was given here anew.
    /// Cost: one round trip.
    /// Throws: as receive().
    bool extend(Delivery& delivery, milliseconds time) {
        static_cast<void>(time);
        if (!is_ours(delivery)) {
            return false;
        }
        if (delivery.dead_lettered_ || group_.keep(delivery)) {
            return true;
        }
        forget(delivery);
        return false;
    }

private:
    using Value = detail::RedisValue;

    [[nodiscard]] bool is_ours(const Delivery& delivery) const {
        const auto found = ours_.find(delivery.entry_id());
        return found != ours_.end() && found->second == delivery.turn_;
    }
    void forget(const Delivery& delivery) { ours_.erase(delivery.entry_id()); }

    void take(Value id, std::uint64_t count, Value fields, std::vector<Delivery>& received) {
        Delivery delivery(options().stream, options().payload_field, id.text(), count);
        for (std::size_t at = 0; at < fields.size(); ++at) {
            delivery.add(fields[at].text());
        }
        delivery.turn_ = ++turns_;
        ours_[delivery.entry_id()] = delivery.turn_;
        received.push_back(std::move(delivery));
    }
    void take_entries(Value entries, std::uint64_t count, std::vector<Delivery>& received) {
        for (std::size_t at = 0; at < entries.size(); ++at) {
            take(entries[at][0], count, entries[at][1], received);
        }
    }
    /// What was pending for us before this connection, but for what is in hand.
    void read_own(std::size_t count, std::vector<Delivery>& received) {
        const auto reply = group_.read(cursor_, count, milliseconds{0});
        const auto entries = reply.value()[0][1];
        for (std::size_t at = 0; at < entries.size(); ++at) {
            cursor_ = entries[at][0].text();
            if (!ours_.contains(cursor_)) {
                take(entries[at][0], 2, entries[at][1], received); // 2: given before, at least once
            }
        }
        if (entries.size() < count) {
            cursor_.clear();
        }
    }
    void take_over(std::size_t count, std::vector<Delivery>& received) {
        const auto reply = group_.take_over(count);
        for (std::size_t at = 0; at < reply.value().size(); ++at) {
            const auto one = reply.value()[at];
            take(one[0], static_cast<std::uint64_t>(one[1].integer()), one[2], received);
            received.back().dead_lettered_ = received.back().fields() == 0;
        }
    }

    detail::RedisStreamGroup group_;
    std::unordered_map<std::string, std::uint64_t> ours_; // given and not settled: its turn
    std::uint64_t turns_ = 0;
    std::string cursor_; // among our own pending entries; empty: all were read
    std::chrono::steady_clock::time_point look_at_{};
};

static_assert(Source<RedisStreamSource> && BoundedSource<RedisStreamSource> &&
              BulkAckSource<RedisStreamSource> && DeadlinedSource<RedisStreamSource> &&
              InspectedDelivery<RedisStreamDelivery>);

} // namespace idem::inline v0

#endif // IDEM_BROKER_REDIS_STREAM_HPP
