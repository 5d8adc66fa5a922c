// SPDX-License-Identifier: MIT
// consumer_timeout and heartbeats: what must be over in time, and what is kept alive.
#include <atomic>

#include "queue.hpp"
#include "support/tcp_proxy.hpp"

namespace idem::rabbitmq_tests {
namespace {

using testing_support::TcpProxy;

class RabbitDeadline : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RabbitServer::missing_program()); }

    /// Closes a channel that has something unacked for 10 s; it looks each second.
    static RabbitServer& impatient() {
        static RabbitServer server({.consumer_timeout = 10s});
        return server;
    }
    static RabbitOptions options(const Queue& queue, milliseconds consumer_timeout) {
        auto options = queue.options();
        options.consumer_timeout = consumer_timeout;
        return options;
    }
};

TEST_F(RabbitDeadline, r7_5_is_four_fifths_of_consumer_timeout_and_not_renewable) {
    RabbitSource source("amqp://localhost", {.queue = "q", .consumer_timeout = 10s});
    EXPECT_EQ(source.deadline().length, 8s);
    EXPECT_FALSE(source.deadline().renewable);
    RabbitSource usual("amqp://localhost", {.queue = "q"});
    EXPECT_EQ(usual.deadline().length, std::chrono::minutes(24));
}

TEST_F(RabbitDeadline, r7_5_a_handler_is_asked_to_stop_before_the_channel_is_closed) {
    Queue queue("quorum", impatient());
    TcpProxy proxy(impatient().port());
    queue.add_numbered(1);
    RabbitSource source(RabbitServer::address_at(proxy.port()), options(queue, 10s));
    struct Slow {
        std::atomic<int>* calls;
        std::stop_source* stop;
        [[nodiscard]] Outcome<void> handle(const RabbitDelivery&, std::stop_token asked) const {
            Verdict verdict;
            if (calls->fetch_add(1) == 0) {
                const auto until = std::chrono::steady_clock::now() + 60s;
                while (!asked.stop_requested() && std::chrono::steady_clock::now() < until) {
                    std::this_thread::sleep_for(1ms);
                }
                verdict.status = Status::failed; // in time to be given back
            } else {
                stop->request_stop();
            }
            return Outcome<void>(verdict);
        }
    };
    std::atomic<int> calls{0};
    std::stop_source stop;
    StopAfter observer(stop, 1);
    run(source, Slow{&calls, &stop}, stop.get_token(), {.observer = &observer});
    EXPECT_EQ(calls, 2);
    EXPECT_EQ(observer.failures, 0) << "the channel was never closed";
    EXPECT_EQ(observer.lost, 0);
    EXPECT_EQ(queue.ready(), 0U);
}

TEST_F(RabbitDeadline, r7_5_a_channel_closed_by_consumer_timeout_takes_its_tags_with_it) {
    Queue queue("quorum", impatient());
    queue.add_numbered(2);
    RabbitSource source(queue.address, options(queue, std::chrono::minutes(30))); // misinformed
    auto received = receive(source, 2);
    const auto until = std::chrono::steady_clock::now() + 60s;
    auto fault = Fault::in_doubt;
    while (fault == Fault::in_doubt && std::chrono::steady_clock::now() < until) {
        try {
            static_cast<void>(source.receive(10ms, 1));
        } catch (const StoreError& error) {
            fault = error.fault();
        }
    }
    EXPECT_EQ(fault, Fault::unavailable) << "the channel is opened anew";
    EXPECT_FALSE(source.extend(received.at(0), 1s));
    EXPECT_EQ(source.settle(received.at(0), settlement(Action::ack)), Settled::lost);
    auto again = receive(source, 2);
    for (auto& delivery : again) {
        EXPECT_TRUE(delivery.redelivered());
        EXPECT_EQ(source.settle(delivery, settlement(Action::ack)), Settled::yes);
    }
}

TEST_F(RabbitDeadline, r7_5_what_a_closed_channel_had_sent_ahead_is_not_taken_as_the_next_ones) {
    Queue queue("classic", impatient()); // a quorum queue has them back only at the close-ok
    queue.add_numbered(1);
    queue.add({.body = "earlier", .message_id = "earlier"});
    std::map<std::string, int> handled;
    {
        RabbitSource source(queue.address, options(queue, std::chrono::minutes(30)));
        auto first = receive(source, 2);
        EXPECT_EQ(source.settle(first.at(1), settlement(Action::ack)), Settled::yes);
        // While the handler of the first works, nobody reads what comes: ten, and the close.
        std::vector<RabbitLetter> letters;
        for (int i = 1; i <= 10; ++i) {
            letters.push_back(
                {.body = "body " + std::to_string(i), .message_id = std::to_string(i)});
        }
        queue.rabbit.publish(queue.name, letters);
        EXPECT_EQ(queue.ready_becomes(11), 11U) << "the channel was closed";
        EXPECT_EQ(source.settle(first.at(0), settlement(Action::retry)), Settled::lost);
        auto again = receive(source, 11);
        for (std::size_t at = 0; at < 3 && at < again.size(); ++at) {
            EXPECT_TRUE(again[at].redelivered());
            EXPECT_EQ(source.settle(again[at], settlement(Action::ack)), Settled::yes);
            ++handled[std::string(again[at].payload())];
        }
        while (!source.receive(10ms).empty()) { // what is left in its hands it would copy back
        }
    }
    // What was not handled comes back when the source ends.
    const auto until = std::chrono::steady_clock::now() + 60s;
    auto seen = handled;
    while (seen.size() < 11 && std::chrono::steady_clock::now() < until) {
        for (const auto& letter : queue.drain()) {
            ++seen[letter.body];
        }
    }
    for (int i = 0; i <= 10; ++i) {
        EXPECT_TRUE(seen.contains("body " + std::to_string(i)))
            << i << " was acked, and given to nobody";
    }
}

TEST_F(RabbitDeadline, what_waited_too_long_for_a_handler_is_given_back) {
    Queue queue("quorum", impatient());
    queue.add_numbered(3);
    auto mine = options(queue, 5s); // so after 500 ms
    RabbitSource source(queue.address, mine);
    auto first = receive(source, 1); // the others wait here
    const auto until = std::chrono::steady_clock::now() + 60s;
    while (queue.ready() < 2 && std::chrono::steady_clock::now() < until) {
        EXPECT_TRUE(source.receive(0ms, 0).empty());
    }
    EXPECT_EQ(queue.ready(), 2U);
    EXPECT_EQ(source.settle(first.at(0), settlement(Action::ack)), Settled::yes);
    for (auto& delivery : receive(source, 2)) {
        EXPECT_FALSE(delivery.redelivered());
        EXPECT_EQ(source.settle(delivery, settlement(Action::ack)), Settled::yes);
    }
}

TEST_F(RabbitDeadline, r7_8_receive_of_nothing_keeps_the_connections_alive) {
    Queue queue("quorum", impatient());
    TcpProxy proxy(impatient().port());
    queue.add_numbered(3);
    auto mine = queue.options();
    mine.heartbeat = 1s; // the broker ends a connection that is silent for two
    RabbitSource source(RabbitServer::address_at(proxy.port()), mine);
    auto received = receive(source, 2);
    EXPECT_EQ(source.settle(received.at(0), settlement(Action::dead_letter)), Settled::yes);
    EXPECT_EQ(proxy.connections(), 2U);
    const auto until = std::chrono::steady_clock::now() + 4s; // less than consumer_timeout
    while (std::chrono::steady_clock::now() < until) {
        EXPECT_TRUE(source.receive(0ms, 0).empty()) << "none is asked for";
        std::this_thread::sleep_for(20ms);
    }
    EXPECT_TRUE(source.extend(received.at(1), 1s));
    EXPECT_EQ(source.settle(received.at(1), settlement(Action::dead_letter)), Settled::yes);
    EXPECT_EQ(proxy.connections(), 2U) << "neither was made anew";
    EXPECT_EQ(receive(source, 1).at(0).payload(), "body 2");
    EXPECT_EQ(queue.dead().size(), 2U);
}

TEST_F(RabbitDeadline, a_connection_whose_server_fell_silent_is_given_up) {
    Queue queue("quorum", impatient());
    TcpProxy proxy(impatient().port());
    queue.add_numbered(1);
    auto mine = queue.options();
    mine.heartbeat = 1s;
    RabbitSource source(RabbitServer::address_at(proxy.port()), mine);
    auto received = receive(source, 1);
    proxy.silence_server();
    const auto until = std::chrono::steady_clock::now() + 60s;
    bool given_up = false;
    while (!given_up && std::chrono::steady_clock::now() < until) {
        try {
            EXPECT_TRUE(source.receive(1ms, 0).empty());
            std::this_thread::sleep_for(10ms);
        } catch (const StoreError& error) {
            given_up = error.fault() == Fault::unavailable;
        }
    }
    EXPECT_TRUE(given_up);
    EXPECT_FALSE(source.extend(received.at(0), 1s));
}

} // namespace
} // namespace idem::rabbitmq_tests
