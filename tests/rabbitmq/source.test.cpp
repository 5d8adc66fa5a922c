// SPDX-License-Identifier: MIT
// RabbitSource on classic and quorum queues: what is received, and what the server shows of it.
#include "queue.hpp"

namespace idem::rabbitmq_tests {
namespace {

class RabbitSourceOn : public ::testing::TestWithParam<std::string> {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RabbitServer::missing()); }
};

TEST_P(RabbitSourceOn, a_delivery_has_all_that_was_published) {
    Queue queue(GetParam());
    queue.add({.body = std::string("any \0 bytes", 11),
               .message_id = "m1",
               .headers = {{"color", "blue"}, {"idem-created", "1700000000000"}},
               .numbers = {{"size", -5}}});
    RabbitSource source(queue.address, queue.options());
    const auto received = receive(source);
    ASSERT_EQ(received.size(), 1U);
    const auto& delivery = received[0];
    EXPECT_EQ(delivery.payload(), std::string_view("any \0 bytes", 11));
    EXPECT_EQ(delivery.message_id(), "m1");
    EXPECT_EQ(delivery.header("color"), "blue");
    EXPECT_EQ(delivery.header("size"), std::nullopt);
    EXPECT_EQ(delivery.number("size"), -5);
    EXPECT_EQ(delivery.header("none"), std::nullopt);
    EXPECT_EQ(delivery.exchange(), "");
    EXPECT_EQ(delivery.routing_key(), queue.name);
    EXPECT_FALSE(delivery.redelivered());
    EXPECT_EQ(delivery.count(), 1U);
}

TEST_P(RabbitSourceOn, a_body_of_many_frames_and_an_empty_one_come_whole) {
    Queue queue(GetParam());
    std::string large;
    for (int i = 0; large.size() < 1'000'000; ++i) {
        large += std::to_string(i) + ' ';
    }
    queue.add({.body = large, .message_id = "large"});
    queue.add({.body = "", .message_id = "empty"});
    RabbitSource source(queue.address, queue.options());
    const auto received = receive(source, 2);
    ASSERT_EQ(received.size(), 2U);
    EXPECT_EQ(received[0].payload(), large);
    EXPECT_EQ(received[1].payload(), "");
    EXPECT_EQ(received[1].message_id(), "empty");
}

TEST_P(RabbitSourceOn, r7_an_acked_one_is_gone_and_others_come_again_to_the_next) {
    Queue queue(GetParam());
    queue.add_numbered(4);
    {
        RabbitSource source(queue.address, queue.options());
        auto received = receive(source, 4);
        EXPECT_EQ(source.settle(received[1], settlement(Action::ack)), Settled::yes);
        RabbitDelivery* const both[] = {&received[2], &received[3]};
        EXPECT_EQ(source.acknowledge(both), (std::vector{Settled::yes, Settled::yes}));
    }
    EXPECT_EQ(queue.ready_becomes(1), 1U);
    RabbitSource next(queue.address, queue.options());
    const auto again = receive(next);
    ASSERT_EQ(again.size(), 1U);
    EXPECT_EQ(again[0].payload(), "body 0");
    EXPECT_TRUE(again[0].redelivered());
    EXPECT_TRUE(again[0].identity().redelivered);
    EXPECT_EQ(again[0].count(), 2U);
}

TEST_P(RabbitSourceOn, r9_14_a_delivery_is_settled_at_most_once) {
    Queue queue(GetParam());
    queue.add_numbered(2);
    RabbitSource source(queue.address, queue.options());
    auto received = receive(source, 2);
    EXPECT_EQ(source.settle(received[0], settlement(Action::ack)), Settled::yes);
    EXPECT_EQ(source.settle(received[0], settlement(Action::ack)), Settled::lost);
    EXPECT_EQ(source.settle(received[0], settlement(Action::retry)), Settled::lost);
    EXPECT_EQ(source.settle(received[0], settlement(Action::dead_letter)), Settled::lost);
    RabbitDelivery* const twice[] = {&received[0], &received[1], &received[1]};
    EXPECT_EQ(source.acknowledge(twice), (std::vector{Settled::lost, Settled::yes, Settled::lost}));
    // A second ack of a tag would have closed the channel.
    queue.add({.body = "on", .message_id = "on"});
    auto on = receive(source);
    ASSERT_EQ(on.size(), 1U);
    EXPECT_FALSE(on[0].redelivered());
    EXPECT_EQ(source.settle(on[0], settlement(Action::ack)), Settled::yes);
}

TEST_P(RabbitSourceOn, what_was_acked_before_a_close_does_not_come_again) {
    Queue queue(GetParam());
    for (int round = 0; round < 3; ++round) {
        queue.add_numbered(500);
        {
            RabbitSource source(queue.address, queue.options());
            std::size_t acked = 0;
            while (acked < 500) {
                auto received = receive(source);
                acked += received.size();
                for (auto& delivery : received) {
                    EXPECT_EQ(source.settle(delivery, settlement(Action::ack)), Settled::yes);
                }
            }
        }
        RabbitSource next(queue.address, queue.options()); // it would be given them first
        queue.add({.body = "fresh", .message_id = "fresh"});
        auto received = receive(next);
        ASSERT_EQ(received.size(), 1U);
        EXPECT_EQ(received[0].payload(), "fresh");
        EXPECT_EQ(next.settle(received[0], settlement(Action::ack)), Settled::yes);
    }
}

TEST_P(RabbitSourceOn, stop_tells_the_broker_nothing) {
    Queue queue(GetParam());
    queue.add_numbered(1);
    {
        RabbitSource source(queue.address, queue.options());
        auto received = receive(source);
        EXPECT_EQ(source.settle(received[0], settlement(Action::stop)), Settled::yes);
        EXPECT_EQ(source.settle(received[0], settlement(Action::ack)), Settled::lost);
        EXPECT_EQ(queue.ready(), 0U) << "it is this consumer's still";
    }
    EXPECT_EQ(queue.ready_becomes(1), 1U);
}

TEST_P(RabbitSourceOn, every_message_is_handled_once_and_acked) {
    Queue queue(GetParam());
    queue.add_numbered(500);
    std::vector<RabbitLetter> resends; // of the producer
    for (int i = 0; i < 500; i += 3) {
        resends.push_back({.body = "body " + std::to_string(i), .message_id = std::to_string(i)});
    }
    queue.rabbit.publish(queue.name, resends);
    queue.add({.body = "something else", .message_id = "7"});
    queue.add({.body = "no id"});
    RabbitSource source(queue.address, queue.options());
    std::stop_source stop;
    StopAfter observer(stop, 500 + 167 + 2);
    Counting counting;
    run(source, counting.handler(), stop.get_token(), {.concurrency = 4, .observer = &observer});
    counting.expect_each_once(500);
    EXPECT_EQ(queue.ready(), 0U);
    std::multiset<std::string> reasons;
    for (const auto& letter : queue.dead()) {
        reasons.insert(letter.headers.at("idem-reason"));
    }
    EXPECT_EQ(reasons,
              (std::multiset<std::string>{std::string(reason::conflict),
                                          std::string(reason::invalid_key)}));
}

TEST_P(RabbitSourceOn, a_graceful_stop_leaves_nothing_acked_that_was_not_handled) {
    Queue queue(GetParam());
    queue.add_numbered(300);
    std::stop_source stop;
    Counting counting;
    {
        RabbitSource source(queue.address, queue.options());
        run(source,
            counting.handler([&](const std::string&) {
                // Not ==: two threads may both count before either asks.
                if (counting.distinct() >= 50) {
                    stop.request_stop();
                }
            }),
            stop.get_token(),
            {.concurrency = 3});
    }
    const auto handled = counting.distinct();
    EXPECT_LE(handled, 55U);
    const auto left = static_cast<unsigned>(300 - handled);
    EXPECT_EQ(queue.ready_becomes(left), left);
    for (const auto& letter : queue.drain()) {
        EXPECT_FALSE(counting.handled.contains(letter.body)) << letter.body;
    }
}

INSTANTIATE_TEST_SUITE_P(Rabbit,
                         RabbitSourceOn,
                         ::testing::Values("classic", "quorum"),
                         [](const auto& each) { return each.param; });

class RabbitRefusal : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RabbitServer::missing()); }

    static Fault fault_at(const std::string& address, RabbitOptions options) {
        RabbitSource source(address, std::move(options));
        try {
            static_cast<void>(source.receive(10ms));
        } catch (const StoreError& error) {
            EXPECT_EQ(std::string(error.what()).find("secret"), std::string::npos);
            return error.fault();
        }
        ADD_FAILURE() << "it received";
        return Fault::in_doubt;
    }
    static std::string with(std::string address, const std::string& from, const std::string& to) {
        return address.replace(address.find(from), from.size(), to);
    }
};

TEST_F(RabbitRefusal, what_a_human_must_mend_is_rejected) {
    Queue queue;
    const auto options = queue.options();
    EXPECT_EQ(fault_at(queue.address, {.queue = "no.such.queue"}), Fault::rejected) << "404";
    EXPECT_EQ(fault_at(with(queue.address, "guest:guest", "guest:secret"), options),
              Fault::rejected)
        << "403";
    EXPECT_EQ(fault_at(with(queue.address, "%2f", "no-such-host"), options), Fault::rejected)
        << "530";
    EXPECT_EQ(fault_at(queue.address,
                       {.queue = queue.name, .consumer_arguments = {{"x-priority", "high"}}}),
              Fault::rejected)
        << "406";
}

TEST_F(RabbitRefusal, a_server_that_is_not_there_is_unavailable) {
    const auto nobody = RabbitServer::address_at(testing_support::free_port());
    EXPECT_EQ(fault_at(nobody, {.queue = "orders"}), Fault::unavailable);
}

TEST_F(RabbitRefusal, run_throws_where_the_queue_does_not_exist) {
    RabbitSource source(testing_support::shared_rabbit().address(), {.queue = "no.such.queue"});
    Counting counting;
    EXPECT_THROW(run(source, counting.handler(), {}), StoreError);
}

TEST_F(RabbitRefusal, consumer_arguments_reach_the_broker) {
    Queue queue;
    RabbitSource first(queue.address,
                       {.queue = queue.name,
                        .consumer_tag = "tagged",
                        .consumer_arguments = {{"x-priority", std::int64_t{5}}}});
    RabbitSource second(queue.address, {.queue = queue.name});
    EXPECT_TRUE(first.receive(0ms).empty());
    EXPECT_TRUE(second.receive(0ms).empty());
    queue.add_numbered(10);
    EXPECT_EQ(receive(first, 10).size(), 10U) << "the higher priority gets all";
    EXPECT_TRUE(second.receive(0ms).empty());
}

TEST(RabbitOptionsCheck, names_the_field) {
    const auto refused = [](RabbitOptions options) {
        try {
            RabbitSource source("amqp://localhost", std::move(options));
        } catch (const std::invalid_argument& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    const auto names = [&](const std::string& field, RabbitOptions options) {
        const auto text = refused(std::move(options));
        EXPECT_NE(text.find("RabbitOptions." + field), std::string::npos) << text;
    };
    EXPECT_EQ(refused({.queue = "q"}), "");
    names("queue", {});
    names("queue", {.queue = std::string(226, 'q')});
    names("dead_letter_queue", {.queue = "q", .dead_letter_queue = "q"});
    names("prefetch", {.queue = "q", .prefetch = 0});
    names("prefetch", {.queue = "q", .prefetch = 65'536});
    names("consumer_timeout", {.queue = "q", .consumer_timeout = 0ms});
    names("consumer_timeout", {.queue = "q", .consumer_timeout = milliseconds::max()});
    names("heartbeat", {.queue = "q", .heartbeat = seconds{-1}});
    names("deadline", {.queue = "q", .deadline = 0ms});
    names("deadline", {.queue = "q", .deadline = milliseconds::max()});
}

TEST(RabbitAddress, reads_uris_and_refuses_what_it_cannot_do) {
    const auto full = detail::parse_rabbit_address("amqp://u%40x:p%2fw@h:1234/v%2fh");
    EXPECT_EQ(full.user, "u@x");
    EXPECT_EQ(full.password, "p/w");
    EXPECT_EQ(full.host, "h");
    EXPECT_EQ(full.port, 1234);
    EXPECT_EQ(full.virtual_host, "v/h");
    const auto bare = detail::parse_rabbit_address("amqp://h");
    EXPECT_EQ(bare.user, "guest");
    EXPECT_EQ(bare.port, 5672);
    EXPECT_EQ(bare.virtual_host, "/");
    EXPECT_EQ(detail::parse_rabbit_address("amqp://h/").virtual_host, "/");
    for (const char* wrong : {"",
                              "h:5672",
                              "http://h",
                              "amqps://h",
                              "amqp://h?heartbeat=1",
                              "amqp://h:port",
                              "amqp://u:p%00w@h",
                              "amqp://u:p@h/v%00h"}) {
        EXPECT_THROW(detail::parse_rabbit_address(wrong), std::invalid_argument) << wrong;
    }
}

} // namespace
} // namespace idem::rabbitmq_tests
