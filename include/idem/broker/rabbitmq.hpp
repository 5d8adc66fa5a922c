// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_RABBITMQ_HPP
#define IDEM_BROKER_RABBITMQ_HPP

// Deliveries from a queue of RabbitMQ.

#include <idem/broker/rabbitmq_consumer.hpp>
#include <idem/broker/rabbitmq_delivery.hpp>
#include <idem/broker/rabbitmq_forwarding.hpp>
#include <idem/broker/rabbitmq_options.hpp>
#include <idem/broker/source.hpp>
#include <idem/detail/rabbitmq_address.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// A consumer of a queue, classic or quorum, for idem::run or a loop of your own. Connects at first
/// use, and anew after an outage. AMQP 0-9-1, without TLS.
///
/// A delivery is this consumer's until it is settled or its channel ends: with the connection, by
/// consumer_timeout, or by an error. After that it is lost here, and the queue gives it again.
///
/// ack: basic.ack. retry: a copy goes to the retry queue `<queue>.idem-retry-<ms>` of the next
/// longer delay, which gives it back to the queue when that is over; without a delay, to the
/// queue's end. Neither uses up a delivery limit, nor makes it a redelivery.
/// dead_letter: a copy with the header:: fields goes to the dead-letter queue. Copies are
/// persistent, mandatory and confirmed before the original is acked, and go by a connection of
/// their own; a crash between the two leaves both. A copy keeps properties and headers, but for its
/// expiration, a user id, CC and BCC (broker/rabbitmq_copy.hpp says why).
///
/// The queues that it makes stay when it goes: a retry queue that was deleted early would take with
/// it what is still to come back.
/// Concurrency: one thread, but for the deliveries.
class RabbitSource {
public:
    using Delivery = RabbitDelivery;

    /// `address`: amqp://user:password@host:port/vhost.
    /// Throws: std::invalid_argument naming what is wrong with the address or the options.
    RabbitSource(std::string_view address, RabbitOptions options)
        : options_(detail::checked(std::move(options)))
        , consumer_(link(address, "idem consumer of "), options_)
        , forwarding_(link(address, "idem retries and dead letters of "), options_) {}
    RabbitSource(const RabbitSource&) = delete;
    RabbitSource& operator=(const RabbitSource&) = delete;
    /// What it was sent and gave to nobody goes to the queue's end, as retry without a delay.
    ~RabbitSource() {
        const auto until = std::chrono::steady_clock::now() + options_.deadline;
        consumer_.cancel();
        try {
            auto& ready = consumer_.ready();
            while (!ready.empty() && std::chrono::steady_clock::now() < until) {
                auto delivery = std::move(ready.front());
                ready.pop_front();
                static_cast<void>(settle(delivery, {.action = Action::retry}));
            }
        } catch (const std::exception&) { // the queue gives the others again by itself
        }
    }

    [[nodiscard]] const RabbitOptions& options() const noexcept { return options_; }
    /// 80 % of consumer_timeout: AMQP 0-9-1 cannot renew a delivery.
    [[nodiscard]] DeliveryDeadline deadline() const noexcept {
        return {options_.consumer_timeout * 8 / 10, false};
    }
    /// Half the prefetch: held ones take the place of new ones.
    [[nodiscard]] std::size_t most_held() const noexcept { return options_.prefetch / 2; }

    /// Cost: no round trip; what the broker sent ahead is read.
    /// Throws: StoreError: unavailable; rejected for credentials, permissions, a queue that is not
    /// there.
    std::vector<Delivery> receive(milliseconds time) { return receive(time, options_.prefetch); }
    /// 0 deliveries: serves the connections alone.
    std::vector<Delivery> receive(milliseconds time, std::size_t at_most) {
        serve_forwarding();
        if (at_most > 0) {
            consumer_.connect();
        }
        consumer_.serve(at_most > 0 ? time : milliseconds{0});
        give_back_stale();
        auto& ready = consumer_.ready();
        const auto count =
            static_cast<std::ptrdiff_t>(at_most < ready.size() ? at_most : ready.size());
        std::vector<Delivery> received(std::move_iterator(ready.begin()),
                                       std::move_iterator(ready.begin() + count));
        ready.erase(ready.begin(), ready.begin() + count);
        return received;
    }

    /// Cost: of an ack none; of a copy one confirm, and a declaration the first time.
    /// Throws: StoreError unavailable (nothing happened), rejected.
    Settled settle(Delivery& delivery, const Settlement& settlement) {
        if (!consumer_.is_ours(delivery)) {
            return Settled::lost;
        }
        if (settlement.action == Action::retry && settlement.delay <= milliseconds{0}) {
            consumer_.cancel(); // else it would be sent to us again at once
            if (!consumer_.is_ours(delivery)) {
                return Settled::lost;
            }
        }
        Tag tag{consumer_, delivery};
        const auto settled = forwarding_.settle(content_of(delivery), settlement, tag);
        if (settlement.action == Action::stop) { // nothing is told, and it stays unacked
            delivery.tag_ = 0;
        }
        return settled;
    }
    /// One frame each, sent together, not answered by the broker: `yes` means that they are on
    /// their way.
    std::vector<Settled> acknowledge(std::span<Delivery* const> deliveries) {
        return consumer_.acknowledge(deliveries);
    }
    /// Whether its channel lives. It cannot be renewed.
    bool extend(Delivery& delivery, milliseconds time) {
        static_cast<void>(time);
        return consumer_.is_ours(delivery);
    }

private:
    struct Tag {
        detail::RabbitConsumer& consumer;
        RabbitDelivery& delivery;
        Settled ack() {
            RabbitDelivery* const only = &delivery;
            return consumer.acknowledge(std::span(&only, 1))[0];
        }
        Settled requeue() { return consumer.requeue(delivery); }
    };

    [[nodiscard]] detail::RabbitLink link(std::string_view address, const char* role) const {
        return {.address = detail::parse_rabbit_address(address),
                .deadline = options_.deadline,
                .heartbeat = options_.heartbeat,
                .name = role + options_.queue};
    }
    static detail::RabbitContent content_of(const Delivery& delivery) {
        return {.properties = delivery.properties(),
                .exchange = delivery.exchange(),
                .routing_key = delivery.routing_key(),
                .body = delivery.payload(),
                .retries = delivery.retries()};
    }
    void serve_forwarding() noexcept {
        const auto now = std::chrono::steady_clock::now();
        if (now >= serve_at_) {
            constexpr milliseconds often{200};
            serve_at_ = now + often;
            forwarding_.serve();
        }
    }
    /// What has waited here for long would reach consumer_timeout in a handler, which ends the
    /// channel and with it all other deliveries.
    void give_back_stale() {
        auto& ready = consumer_.ready();
        const auto since = std::chrono::steady_clock::now() - options_.consumer_timeout / 10;
        bool copies = true; // each that cannot be made may take the whole deadline
        while (!ready.empty() && ready.front().received_ < since) {
            auto stale = std::move(ready.front());
            ready.pop_front();
            try {
                copies = copies && settle(stale, {.action = Action::retry}) != Settled::in_doubt;
            } catch (const StoreError&) {
                copies = false;
            }
            if (!copies) {
                static_cast<void>(consumer_.requeue(stale)); // it counts, and is not stuck
            }
        }
    }

    RabbitOptions options_;
    detail::RabbitConsumer consumer_;
    detail::RabbitForwarding forwarding_;
    std::chrono::steady_clock::time_point serve_at_{};
};

static_assert(Source<RabbitSource> && BoundedSource<RabbitSource> && BulkAckSource<RabbitSource> &&
              DeadlinedSource<RabbitSource> && HoldBoundSource<RabbitSource>);

} // namespace idem::inline v0

#endif // IDEM_BROKER_RABBITMQ_HPP
