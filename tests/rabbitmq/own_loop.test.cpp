// SPDX-License-Identifier: MIT
// RabbitMessage and RabbitSettler in a loop of the user's own, over the user's own connection.
#include <idem/broker/rabbitmq_settlement.hpp>

#include "queue.hpp"

namespace idem::rabbitmq_tests {
namespace {

/// What a user has: a connection that consumes, and a settler.
class OwnLoop {
public:
    explicit OwnLoop(Queue& queue)
        : connection_(queue.address)
        , settler_(queue.address, queue.options()) {
        amqp_basic_qos(connection_.native(), 1, 0, 10, 0);
        amqp_basic_consume(connection_.native(),
                           1,
                           detail::bytes_of(queue.name),
                           amqp_empty_bytes,
                           0,
                           0,
                           0,
                           amqp_empty_table);
    }
    /// The next is given to `handle`, which answers its settlement.
    template <class Handle>
    Settled next(const Handle& handle) {
        amqp_maybe_release_buffers(connection_.native());
        amqp_envelope_t envelope;
        timeval time{.tv_sec = 60, .tv_usec = 0};
        const auto reply = amqp_consume_message(connection_.native(), &envelope, &time, 0);
        EXPECT_EQ(reply.reply_type, AMQP_RESPONSE_NORMAL);
        const auto settled =
            settler_.settle(connection_.native(), envelope, handle(RabbitMessage(envelope)));
        amqp_destroy_envelope(&envelope);
        settler_.serve();
        return settled;
    }

private:
    RabbitSession connection_;
    RabbitSettler settler_;
};

class RabbitOwnLoop : public ::testing::TestWithParam<std::string> {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RabbitServer::missing()); }
};

TEST_P(RabbitOwnLoop, each_outcome_of_a_wrapped_handler_is_carried_out) {
    Queue queue(GetParam());
    queue.add({.body = "bill", .message_id = "1"});
    queue.add({.body = "bill", .message_id = "1"});
    queue.add({.body = "other", .message_id = "1"});
    queue.add({.body = "refuse", .message_id = "2", .headers = {{"color", "blue"}}});
    queue.add({.body = "none"});
    MemoryStore store;
    IdempotentConsumer consumer{store, DistributedLock{}};
    int bills = 0;
    auto handler = consumer.wrap("billing", delivery_id, [&](const RabbitMessage& message) {
        if (message.payload() == "refuse") {
            throw Unprocessable("not this one");
        }
        ++bills;
    });
    OwnLoop loop(queue);
    for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(loop.next([&](const RabbitMessage& message) {
            return handler.handle(message).settlement();
        }),
                  Settled::yes);
    }
    EXPECT_EQ(bills, 1);
    EXPECT_EQ(queue.ready(), 0U);
    std::map<std::string, RabbitLetter> letters;
    for (auto& letter : queue.dead()) {
        letters.emplace(letter.body, std::move(letter));
    }
    ASSERT_EQ(letters.size(), 3U);
    EXPECT_EQ(letters.at("other").headers.at("idem-reason"), reason::conflict);
    EXPECT_EQ(letters.at("none").headers.at("idem-reason"), reason::invalid_key);
    EXPECT_EQ(letters.at("refuse").headers.at("idem-reason"), reason::unprocessable);
    EXPECT_EQ(letters.at("refuse").headers.at("idem-detail"), "not this one");
    EXPECT_EQ(letters.at("refuse").headers.at("color"), "blue");
    EXPECT_EQ(letters.at("refuse").message_id, "2");
}

TEST_P(RabbitOwnLoop, a_retry_comes_back_after_its_delay_and_burns_no_limit) {
    Queue queue(GetParam());
    queue.add({.body = "b", .message_id = "m", .numbers = {{"size", 3}}, .correlation_id = "c"});
    OwnLoop loop(queue);
    for (std::uint64_t round = 0; round < 3; ++round) {
        EXPECT_EQ(loop.next([&](const RabbitMessage& message) {
            EXPECT_EQ(message.retries(), round);
            EXPECT_EQ(message.count(), round + 1);
            EXPECT_EQ(message.number("size"), 3);
            EXPECT_EQ(message.routing_key(), queue.name);
            EXPECT_FALSE(message.redelivered());
            return settlement(Action::retry, round == 1 ? 100ms : 0ms);
        }),
                  Settled::yes);
    }
    EXPECT_EQ(loop.next([](const RabbitMessage& message) {
        EXPECT_EQ(message.message_id(), "m");
        return settlement(Action::ack);
    }),
              Settled::yes);
    EXPECT_EQ(queue.ready(), 0U);
}

TEST_P(RabbitOwnLoop, stop_leaves_it_unacked) {
    Queue queue(GetParam());
    queue.add_numbered(1);
    {
        OwnLoop loop(queue);
        EXPECT_EQ(loop.next([](const RabbitMessage&) { return settlement(Action::stop); }),
                  Settled::yes);
        EXPECT_EQ(queue.ready(), 0U);
    }
    EXPECT_EQ(queue.ready_becomes(1), 1U);
}

INSTANTIATE_TEST_SUITE_P(Rabbit,
                         RabbitOwnLoop,
                         ::testing::Values("classic", "quorum"),
                         [](const auto& each) { return each.param; });

} // namespace
} // namespace idem::rabbitmq_tests
