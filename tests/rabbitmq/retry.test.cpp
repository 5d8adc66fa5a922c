// SPDX-License-Identifier: MIT
// Retries over RabbitMQ: held first, given back later, and what a quorum queue counts of it.
#include <algorithm>

#include "queue.hpp"

namespace idem::rabbitmq_tests {
namespace {

class RabbitRetry : public ::testing::TestWithParam<std::string> {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RabbitServer::missing()); }
};

/// Why a retry is no requeue: all that brings a message back is counted (RabbitMQ 3.10).
TEST_F(RabbitRetry, a_quorum_queue_counts_every_way_back_and_a_classic_one_none) {
    for (const std::string type : {"classic", "quorum"}) {
        Queue queue(type);
        queue.add({.body = "b", .message_id = "m"});
        std::vector<std::string> counts;
        const auto taken = [&](RabbitSession& session) {
            auto letter = session.get(queue.name);
            EXPECT_TRUE(letter);
            const auto& headers = letter.value().headers;
            const auto found = headers.find("x-delivery-count");
            counts.push_back(found == headers.end() ? "" : found->second);
            return *letter;
        };
        queue.rabbit.give_back(taken(queue.rabbit)); // basic.nack
        queue.rabbit.flush();
        {
            RabbitSession session(queue.address);
            taken(session);
            amqp_channel_close(session.native(), 1, AMQP_REPLY_SUCCESS);
            EXPECT_EQ(queue.ready_becomes(1), 1U);
        }
        {
            RabbitSession session(queue.address);
            taken(session);
            amqp_connection_close(session.native(), AMQP_REPLY_SUCCESS);
        }
        EXPECT_EQ(queue.ready_becomes(1), 1U);
        {
            RabbitSession session(queue.address);
            taken(session); // and no farewell
        }
        EXPECT_EQ(queue.ready_becomes(1), 1U);
        taken(queue.rabbit);
        EXPECT_EQ(counts,
                  type == "quorum" ? (std::vector<std::string>{"0", "1", "2", "3", "4"})
                                   : std::vector<std::string>(5));
    }
}

TEST_P(RabbitRetry, r7_2_what_never_started_goes_back_and_burns_no_limit) {
    testing_support::RabbitArguments limited;
    if (GetParam() == "quorum") {
        limited["x-delivery-limit"] = "2";
    }
    Queue queue(GetParam(), testing_support::shared_rabbit(), limited);
    queue.add({.body = "b", .message_id = "m"});
    RabbitSource source(queue.address, queue.options());
    for (unsigned round = 0; round < 6; ++round) {
        auto received = receive(source);
        ASSERT_EQ(received.size(), 1U) << round;
        EXPECT_FALSE(received[0].redelivered());
        EXPECT_EQ(received[0].retries(), round);
        EXPECT_EQ(source.settle(received[0], settlement(Action::retry)), Settled::yes);
    }
    auto last = receive(source);
    EXPECT_EQ(last.at(0).routing_key(), queue.name);
    EXPECT_EQ(last.at(0).payload(), "b");
}

TEST_P(RabbitRetry, r7_2_a_delayed_one_comes_back_after_its_delay_as_it_was) {
    Queue queue(GetParam());
    queue.add({.body = "b",
               .message_id = "m",
               .headers = {{"color", "blue"}},
               .numbers = {{"size", 5}},
               .expiration = "50000",
               .user_id = "guest",
               .correlation_id = "c",
               .content_type = "text/plain"});
    RabbitSource source(queue.address, queue.options());
    const auto begin = std::chrono::steady_clock::now();
    for (unsigned round = 1; round <= 3; ++round) {
        auto received = receive(source);
        EXPECT_EQ(source.settle(received.at(0), settlement(Action::retry, 150ms)), Settled::yes);
        EXPECT_EQ(source.settle(received.at(0), settlement(Action::ack)), Settled::lost);
    }
    auto received = receive(source);
    EXPECT_GE(std::chrono::steady_clock::now() - begin, 3 * 200ms) << "rounded up to 200 ms";
    const auto& delivery = received.at(0);
    EXPECT_EQ(delivery.retries(), 3U);
    EXPECT_EQ(delivery.count(), 4U);
    EXPECT_FALSE(delivery.redelivered()) << "it was given back in order: no suspect";
    EXPECT_EQ(delivery.header("color"), "blue");
    EXPECT_EQ(delivery.number("size"), 5);
    EXPECT_EQ(delivery.exchange(), "");
    EXPECT_EQ(delivery.routing_key(), queue.name);
    EXPECT_EQ(delivery.header("idem-expiration"), "50000");
    EXPECT_EQ(delivery.header("idem-user-id"), "guest");
    EXPECT_EQ(source.settle(received.at(0), settlement(Action::retry)), Settled::yes);
    auto back = receive(source);
    EXPECT_EQ(source.settle(back.at(0), settlement(Action::dead_letter)), Settled::yes);
    const auto letters = queue.dead();
    EXPECT_EQ(letters.at(0).message_id, "m");
    EXPECT_EQ(letters.at(0).correlation_id, "c");
    EXPECT_EQ(letters.at(0).content_type, "text/plain");
    EXPECT_EQ(queue.rabbit.ready(queue.retry_queue(200)), 0U);
}

/// The queues that a header names whose form is that of x-death, the last death first; of the next
/// message there, which is taken off.
std::vector<std::string> deaths(Queue& queue, const std::string& of, std::string_view header) {
    auto* const connection = queue.rabbit.native();
    amqp_basic_get(connection, 1, detail::bytes_of(of), 1);
    amqp_message_t message;
    EXPECT_EQ(amqp_read_message(connection, 1, &message, 0).reply_type, AMQP_RESPONSE_NORMAL);
    std::vector<std::string> queues;
    const auto& headers = message.properties.headers;
    for (int at = 0; at < headers.num_entries; ++at) {
        const auto& entry = headers.entries[at];
        if (detail::text_of(entry.key) != header || entry.value.kind != AMQP_FIELD_KIND_ARRAY) {
            continue;
        }
        const auto& events = entry.value.value.array;
        for (int event = 0; event < events.num_entries; ++event) {
            const auto& fields = events.entries[event].value.table;
            for (int field = 0; field < fields.num_entries; ++field) {
                if (detail::text_of(fields.entries[field].key) == "queue") {
                    queues.emplace_back(detail::text_of(fields.entries[field].value.value.bytes));
                }
            }
        }
    }
    amqp_destroy_message(&message);
    return queues;
}

/// A broker dead-letters nothing to a queue that its x-death names, and so never from a retry queue.
TEST_P(RabbitRetry, r9_7_what_died_in_this_queue_before_comes_back_and_carries_that_death) {
    const std::string expired = "expired." + std::to_string(::getpid()) + '.' + GetParam();
    Queue queue(GetParam(),
                testing_support::shared_rabbit(),
                {{"x-dead-letter-exchange", ""}, {"x-dead-letter-routing-key", expired}});
    queue.rabbit.declare(expired);
    queue.add({.body = "b", .message_id = "m", .expiration = "1"});
    {
        // An operator has it copied back, with its headers.
        RabbitSource redrive(queue.address, {.queue = expired, .dead_letter_queue = queue.name});
        auto died = receive(redrive);
        EXPECT_EQ(redrive.settle(died.at(0), settlement(Action::dead_letter)), Settled::yes);
    }
    RabbitSource source(queue.address, queue.options());
    for (unsigned round = 0; round < 3; ++round) {
        auto received = receive(source);
        ASSERT_EQ(received.size(), 1U) << "it stays in the retry queue";
        EXPECT_EQ(received[0].retries(), round);
        EXPECT_EQ(source.settle(received[0], settlement(Action::retry, 100ms)), Settled::yes);
    }
    auto last = receive(source);
    EXPECT_EQ(source.settle(last.at(0), settlement(Action::dead_letter)), Settled::yes);
    EXPECT_EQ(deaths(queue, queue.name + ".dead", "idem-x-death"),
              std::vector<std::string>{queue.name});
}

TEST_P(RabbitRetry, what_was_sent_ahead_and_given_to_nobody_goes_back_and_burns_no_limit) {
    Queue queue(GetParam());
    queue.add_numbered(100);
    {
        RabbitSource source(queue.address, queue.options());
        auto received = source.receive(10s, 1); // the others are here too, soon
        EXPECT_EQ(received.size(), 1U);
        while (queue.ready() > 0) {
            std::this_thread::yield();
        }
        EXPECT_EQ(source.settle(received.at(0), settlement(Action::ack)), Settled::yes);
    }
    const auto left = queue.drain();
    EXPECT_EQ(left.size(), 99U);
    for (const auto& letter : left) {
        EXPECT_FALSE(letter.redelivered);
    }
}

TEST_P(RabbitRetry, shorter_delays_come_back_before_longer_ones) {
    Queue queue(GetParam());
    RabbitSource source(queue.address, queue.options());
    for (const auto delay : {2000ms, 1000ms, 100ms}) { // a queue that is made takes its time
        queue.add({.body = "first", .message_id = "first"});
        auto first = receive(source);
        EXPECT_EQ(source.settle(first.at(0), settlement(Action::retry, delay)), Settled::yes);
        auto back = receive(source);
        EXPECT_EQ(source.settle(back.at(0), settlement(Action::ack)), Settled::yes);
    }
    queue.add_numbered(3);
    auto received = receive(source, 3);
    EXPECT_EQ(source.settle(received.at(0), settlement(Action::retry, 2000ms)), Settled::yes);
    EXPECT_EQ(source.settle(received.at(1), settlement(Action::retry, 1000ms)), Settled::yes);
    EXPECT_EQ(source.settle(received.at(2), settlement(Action::retry, 100ms)), Settled::yes);
    std::vector<std::string> order;
    for (const auto& delivery : receive(source, 3)) {
        order.emplace_back(delivery.payload());
    }
    EXPECT_EQ(order, (std::vector<std::string>{"body 2", "body 1", "body 0"}));
}

TEST_P(RabbitRetry, r7_2_a_retry_is_held_first) {
    Queue queue(GetParam());
    queue.add({.body = "b", .message_id = "m"});
    std::stop_source stop;
    Counting counting;
    RabbitSource source(queue.address, queue.options());
    const auto handler = counting.handler([&](const std::string&) {
        if (counting.handled["b"] < 3) {
            throw RetryLater(20ms);
        }
    });
    StopAfter observer(stop, 1);
    run(source, handler, stop.get_token(), {.observer = &observer});
    EXPECT_EQ(counting.handled["b"], 3);
    EXPECT_EQ(queue.ready(), 0U);
    for (const auto delay : detail::rabbit_retry_delays) {
        EXPECT_FALSE(RabbitSession::has(queue.address, queue.retry_queue(static_cast<int>(delay))));
    }
}

TEST_P(RabbitRetry, r7_2_half_the_prefetch_is_held_and_the_rest_goes_back_for_its_delay) {
    Queue queue(GetParam());
    queue.add_numbered(6);
    std::stop_source stop;
    Counting counting;
    std::atomic<int> retries{0};
    const auto handler = counting.handler([&](const std::string&) {
        if (++retries == 6) { // with a prefetch of 4 it sees all six only if some are given back
            stop.request_stop();
        }
        throw RetryLater(10min);
    });
    {
        RabbitSource source(queue.address, {.queue = queue.name, .prefetch = 4});
        EXPECT_EQ(source.most_held(), 2U);
        run(source, handler, stop.get_token());
    }
    EXPECT_EQ(counting.distinct(), 6U);
    // What was held when the stop came goes back at once, the others after their delay.
    EXPECT_EQ(queue.ready_becomes(2), 2U);
    EXPECT_EQ(queue.becomes(queue.retry_queue(900'000), 4), 4U);
}

TEST_P(RabbitRetry, a_stop_gives_back_what_is_held) {
    Queue queue(GetParam());
    queue.add_numbered(5);
    std::stop_source stop;
    Counting counting;
    std::atomic<int> retries{0};
    {
        RabbitSource source(queue.address, queue.options());
        run(source,
            counting.handler([&](const std::string&) {
                if (++retries == 5) {
                    stop.request_stop();
                }
                throw RetryLater(10min);
            }),
            stop.get_token());
    }
    const auto at_once = queue.drain();
    for (const auto& letter : at_once) {
        EXPECT_FALSE(letter.redelivered);
    }
    EXPECT_GE(at_once.size(), 4U);
    if (at_once.size() < 5) { // its handler came to the retry after the loop had seen the stop
        EXPECT_EQ(queue.becomes(queue.retry_queue(900'000), 1), 1U);
    }
}

INSTANTIATE_TEST_SUITE_P(Rabbit,
                         RabbitRetry,
                         ::testing::Values("classic", "quorum"),
                         [](const auto& each) { return each.param; });

TEST(RabbitRetryDelay, is_the_next_of_a_few) {
    EXPECT_EQ(detail::rabbit_retry_delay(1ms), 100ms);
    EXPECT_EQ(detail::rabbit_retry_delay(100ms), 100ms);
    EXPECT_EQ(detail::rabbit_retry_delay(101ms), 200ms);
    EXPECT_EQ(detail::rabbit_retry_delay(30s), 30s);
    EXPECT_EQ(detail::rabbit_retry_delay(31s), 60s);
    EXPECT_EQ(detail::rabbit_retry_delay(1h), 1h);
    EXPECT_EQ(detail::rabbit_retry_delay(1000h), 24h);
    EXPECT_TRUE(std::ranges::is_sorted(detail::rabbit_retry_delays));
}

} // namespace
} // namespace idem::rabbitmq_tests
