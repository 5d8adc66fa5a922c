// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_RABBITMQ_FORWARDING_HPP
#define IDEM_BROKER_RABBITMQ_FORWARDING_HPP

// A settlement as RabbitMQ carries it out: a message that goes elsewhere is confirmed there before
// it is acked here.

#include <idem/broker/rabbitmq_copy.hpp>
#include <idem/broker/rabbitmq_identity.hpp>
#include <idem/broker/rabbitmq_options.hpp>
#include <idem/detail/failpoint.hpp>
#include <idem/detail/rabbitmq_properties.hpp>
#include <idem/detail/rabbitmq_publisher.hpp>
#include <idem/settlement.hpp>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// The delays of retry queues: what is asked for is rounded up, so that there are few of them. A
/// longer one comes back after a day.
inline constexpr std::array<milliseconds::rep, 14> rabbit_retry_delays{100,
                                                                       200,
                                                                       500,
                                                                       1'000,
                                                                       2'000,
                                                                       5'000,
                                                                       10'000,
                                                                       30'000,
                                                                       60'000,
                                                                       300'000,
                                                                       900'000,
                                                                       3'600'000,
                                                                       21'600'000,
                                                                       86'400'000};

[[nodiscard]] constexpr milliseconds rabbit_retry_delay(milliseconds asked) noexcept {
    for (const auto delay : rabbit_retry_delays) {
        if (delay >= asked.count()) {
            return milliseconds{delay};
        }
    }
    return milliseconds{rabbit_retry_delays.back()};
}

/// What is copied of a message. Views.
struct RabbitContent {
    std::string_view properties, exchange, routing_key, body;
    std::uint64_t retries = 0; ///< so far
};

/// Concurrency: one thread.
class RabbitForwarding {
public:
    RabbitForwarding(RabbitLink link, const RabbitOptions& options)
        : queue_(options.queue)
        , dead_letter_queue_(options.dead_letter_queue)
        , declares_(options.declare_queues)
        , publisher_(std::move(link)) {}

    void serve() noexcept { publisher_.serve(); }

    /// Carries out all but `stop`, of which nothing is told. `tag` acks the original or has it
    /// requeued. Throws: StoreError unavailable where nothing happened, rejected.
    ///
    /// What is given back goes as a copy, which is new where it comes to: all else that brings a
    /// message back (basic.nack, basic.reject, the close of its channel or its connection) makes it
    /// redelivered, and is counted by a quorum queue (RabbitMQ 3.10.8), which may have a limit.
    template <class Tag>
    Settled settle(const RabbitContent& message, const Settlement& settlement, Tag& tag) {
        auto published = Published::yes;
        switch (settlement.action) {
        case Action::ack:
            break;
        case Action::retry:
            published = give_back(message, settlement.delay);
            break;
        case Action::dead_letter:
            published = dead_letter(message, settlement);
            break;
        case Action::stop:
            return Settled::yes;
        }
        if (published == Published::in_doubt) {
            static_cast<void>(tag.requeue()); // better twice than never
            return Settled::in_doubt;
        }
        IDEM_FAILPOINT("rabbitmq: before ack");
        const auto settled = tag.ack();
        IDEM_FAILPOINT("rabbitmq: after ack");
        return settled;
    }

private:
    Published give_back(const RabbitContent& message, milliseconds delay) {
        const auto retries = std::to_string(message.retries + 1);
        const auto properties =
            copy(message, {{rabbit_header::retries, retries}}, delay > milliseconds{0});
        if (delay <= milliseconds{0}) {
            return published(queue_, publish(queue_, properties, message.body));
        }
        const auto rung = rabbit_retry_delay(delay);
        const auto name = queue_ + ".idem-retry-" + std::to_string(rung.count());
        return deliver(
            name, properties, message.body, [&] { declare_retry_queue(name, rung.count()); });
    }
    Published dead_letter(const RabbitContent& message, const Settlement& settlement) {
        constexpr std::size_t most = 4'096; // of a text that may quote the payload
        const auto attempts = std::to_string(settlement.attempts);
        const auto properties =
            copy(message,
                 {{header::reason, settlement.reason},
                  {header::detail, std::string_view(settlement.detail).substr(0, most)},
                  {header::attempts, attempts},
                  {header::origin, queue_}},
                 false);
        return deliver(
            dead_letter_queue_, properties, message.body, [this] { declare_dead_letter_queue(); });
    }

    /// Where its producer published it to stays with it.
    static std::string copy(const RabbitContent& message,
                            std::initializer_list<RabbitHeader> headers,
                            bool comes_back) {
        const RabbitProperties properties(message.properties);
        std::vector<RabbitHeader> added(headers);
        added.emplace_back(rabbit_header::exchange, message.exchange);
        added.emplace_back(rabbit_header::routing_key, message.routing_key);
        return copied_properties(properties, added, comes_back);
    }
    Published
    publish(const std::string& queue, const std::string& properties, std::string_view body) {
        IDEM_FAILPOINT("rabbitmq: before publish");
        const auto answer = publisher_.publish(queue, properties, body);
        IDEM_FAILPOINT("rabbitmq: after publish");
        return answer;
    }
    /// Where there is no such queue any more, it is made once more.
    template <class Declare>
    Published deliver(const std::string& queue,
                      const std::string& properties,
                      std::string_view body,
                      const Declare& declare) {
        const bool new_here = declares_ && !declared_.contains(queue);
        if (new_here) {
            declare();
            declared_.insert(queue);
        }
        auto answer = publish(queue, properties, body);
        if (answer == Published::unroutable && declares_ && !new_here) {
            declare();
            answer = publish(queue, properties, body);
        }
        return published(queue, answer);
    }
    /// Throws where it is in no queue.
    Published published(const std::string& queue, Published answer) const {
        if (answer == Published::unroutable) {
            throw publisher_.error(Fault::rejected,
                                   "there is no queue " + queue +
                                       "; declare it, or set RabbitOptions.declare_queues");
        }
        if (answer == Published::refused) {
            throw publisher_.error(Fault::unavailable,
                                   "the queue " + queue + " takes no more messages");
        }
        return answer;
    }

    static amqp_table_entry_t argument(const char* name, std::string_view value) noexcept {
        amqp_table_entry_t entry{};
        entry.key = amqp_cstring_bytes(name);
        entry.value.kind = AMQP_FIELD_KIND_UTF8;
        entry.value.value.bytes = bytes_of(value);
        return entry;
    }
    void declare_dead_letter_queue() {
        std::array arguments{argument("x-queue-type", "quorum")};
        declare(dead_letter_queue_, arguments);
    }
    /// What lies here until its time is over goes back whatever happens: at-least-once keeps it
    /// until the queue it came from has confirmed it, and asks for reject-publish.
    void declare_retry_queue(const std::string& name, milliseconds::rep delay) {
        std::array arguments{argument("x-queue-type", "quorum"),
                             argument("x-dead-letter-exchange", ""),
                             argument("x-dead-letter-routing-key", queue_),
                             argument("x-dead-letter-strategy", "at-least-once"),
                             argument("x-overflow", "reject-publish"),
                             argument("x-message-ttl", "")};
        arguments.back().value.kind = AMQP_FIELD_KIND_I64;
        arguments.back().value.value.i64 = delay;
        declare(name, arguments);
    }
    void declare(const std::string& queue, std::span<amqp_table_entry_t> arguments) {
        const auto refused =
            publisher_.declare(queue, {static_cast<int>(arguments.size()), arguments.data()});
        if (refused && refused->code == AMQP_PRECONDITION_FAILED) { // another made it meanwhile
            return;
        }
        if (refused) {
            throw publisher_.error(fault_of_reply(refused->code),
                                   "queue.declare " + queue + ": " + refused->text);
        }
    }

    std::string queue_, dead_letter_queue_;
    bool declares_;
    RabbitPublisher publisher_;
    std::set<std::string> declared_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_BROKER_RABBITMQ_FORWARDING_HPP
