// SPDX-License-Identifier: MIT
// RabbitSource after the loss of a channel, a connection or the broker.
#include <atomic>
#include <latch>

#include "queue.hpp"
#include "support/tcp_proxy.hpp"

namespace idem::rabbitmq_tests {
namespace {

using testing_support::TcpProxy;

class RabbitRecovery : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RabbitServer::missing_program()); }

    /// One for all that only cut the way to it: its port is known.
    static RabbitServer& server() {
        static RabbitServer own({.own = true});
        return own;
    }
    static std::string through(const TcpProxy& proxy) {
        return RabbitServer::address_at(proxy.port());
    }
    /// As a loop asks: what is unavailable is asked again.
    static std::vector<RabbitDelivery> receive_in_spite(RabbitSource& source, std::size_t count) {
        const auto until = std::chrono::steady_clock::now() + 60s;
        std::vector<RabbitDelivery> received;
        while (received.size() < count && std::chrono::steady_clock::now() < until) {
            try {
                for (auto& delivery : source.receive(10ms, count - received.size())) {
                    received.push_back(std::move(delivery));
                }
            } catch (const StoreError& error) {
                EXPECT_EQ(error.fault(), Fault::unavailable) << error.what();
            }
        }
        EXPECT_EQ(received.size(), count);
        return received;
    }
};

TEST_F(RabbitRecovery, r7_5_the_tags_of_a_lost_channel_are_never_used) {
    Queue queue("quorum", server());
    TcpProxy proxy(server().port());
    RabbitSource source(through(proxy), queue.options());
    queue.add_numbered(3);
    auto old = receive(source, 3);
    EXPECT_TRUE(source.extend(old.at(0), 1s));
    proxy.cut();
    auto again = receive_in_spite(source, 3); // on a new channel, whose tags are 1, 2, 3 too
    EXPECT_EQ(proxy.connections(), 2U);
    for (auto& delivery : old) {
        EXPECT_FALSE(source.extend(delivery, 1s));
        EXPECT_EQ(source.settle(delivery, settlement(Action::ack)), Settled::lost);
        EXPECT_EQ(source.settle(delivery, settlement(Action::retry)), Settled::lost);
        EXPECT_EQ(source.settle(delivery, settlement(Action::dead_letter)), Settled::lost);
    }
    for (auto& delivery : again) {
        EXPECT_TRUE(delivery.redelivered());
        EXPECT_EQ(source.settle(delivery, settlement(Action::ack)), Settled::yes);
    }
    EXPECT_TRUE(queue.dead().empty());
}

TEST_F(RabbitRecovery, an_ack_into_a_broken_link_is_in_doubt_or_too_late_and_comes_again) {
    Queue queue("quorum", server());
    TcpProxy proxy(server().port());
    RabbitSource source(through(proxy), queue.options());
    queue.add_numbered(1);
    auto old = receive(source);
    proxy.cut_after(5); // in the middle of the frame
    EXPECT_EQ(source.settle(old.at(0), settlement(Action::ack)), Settled::yes)
        << "it is on its way, and nobody answers an ack";
    auto again = receive_in_spite(source, 1);
    EXPECT_EQ(again.at(0).payload(), "body 0");
    EXPECT_EQ(source.settle(again.at(0), settlement(Action::ack)), Settled::yes);
}

TEST_F(RabbitRecovery, a_confirm_that_does_not_come_is_in_doubt_and_the_message_comes_again) {
    Queue queue("quorum", server());
    TcpProxy proxy(server().port());
    auto options = queue.options();
    options.deadline = 1'500ms;
    options.declare_queues = false; // so that only the confirm is waited for
    queue.rabbit.declare(queue.name + ".dead");
    RabbitSource source(through(proxy), options);
    queue.add_numbered(2);
    auto received = receive(source, 2);
    EXPECT_EQ(source.settle(received.at(0), settlement(Action::dead_letter)), Settled::yes);
    proxy.silence_server();
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(source.settle(received.at(1), settlement(Action::dead_letter)), Settled::in_doubt);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);
    proxy.resume();
    auto again = receive_in_spite(source, 1);
    EXPECT_EQ(again.at(0).payload(), "body 1");
    EXPECT_EQ(source.settle(again.at(0), settlement(Action::dead_letter)), Settled::yes);
    EXPECT_EQ(queue.dead().size(), 3U) << "the one in doubt was written, and again";
}

TEST_F(RabbitRecovery, an_error_of_publishing_leaves_the_deliveries_alone) {
    Queue queue("quorum", server());
    auto options = queue.options();
    options.declare_queues = false;
    RabbitSource source(queue.address, options);
    queue.add_numbered(2);
    auto received = receive(source, 2);
    EXPECT_THROW(static_cast<void>(source.settle(received.at(0), settlement(Action::retry, 100ms))),
                 StoreError);
    EXPECT_EQ(source.settle(received.at(0), settlement(Action::ack)), Settled::yes);
    EXPECT_EQ(source.settle(received.at(1), settlement(Action::ack)), Settled::yes);
}

TEST_F(RabbitRecovery, a_queue_that_is_deleted_is_rejected_and_one_that_is_back_is_consumed) {
    Queue queue("quorum", server());
    RabbitSource source(queue.address, queue.options());
    EXPECT_TRUE(source.receive(0ms).empty());
    queue.rabbit.remove(queue.name);
    const auto until = std::chrono::steady_clock::now() + 60s;
    auto fault = Fault::in_doubt;
    while (fault == Fault::in_doubt && std::chrono::steady_clock::now() < until) {
        try {
            static_cast<void>(source.receive(10ms));
        } catch (const StoreError& error) {
            fault = error.fault();
        }
    }
    EXPECT_EQ(fault, Fault::rejected);
    queue.rabbit.declare(queue.name, {{"x-queue-type", "quorum"}});
    queue.add_numbered(1);
    auto received = receive_in_spite(source, 1);
    EXPECT_EQ(source.settle(received.at(0), settlement(Action::ack)), Settled::yes);
}

TEST_F(RabbitRecovery, r9_2_over_a_link_that_breaks_the_loop_goes_on_and_nothing_is_lost) {
    for (const std::string type : {"classic", "quorum"}) {
        Queue queue(type, server());
        queue.add_numbered(400);
        TcpProxy proxy(server().port());
        RabbitSource source(through(proxy), {.queue = queue.name, .prefetch = 32});
        std::stop_source stop;
        StopAfter observer(stop, 1'000'000);
        Counting counting;
        std::jthread watch([&] {
            RabbitSession look(queue.address);
            for (std::size_t cut = 1; cut <= 4; ++cut) {
                while (counting.distinct() < 80 * cut) {
                    std::this_thread::yield();
                }
                proxy.cut();
            }
            const auto until = std::chrono::steady_clock::now() + 60s;
            while (std::chrono::steady_clock::now() < until &&
                   (counting.distinct() < 400 || look.ready(queue.name) > 0)) {
                std::this_thread::sleep_for(2ms);
            }
            stop.request_stop();
        });
        run(source,
            counting.handler([](const std::string&) { std::this_thread::sleep_for(500us); }),
            stop.get_token(),
            {.concurrency = 2, .observer = &observer});
        watch.join();
        counting.expect_each_once(400); // and what is left, if anything, is a redelivery
        EXPECT_GE(proxy.connections(), 5U);
    }
}

TEST_F(RabbitRecovery, after_a_restart_of_the_broker_the_loop_goes_on_by_itself) {
    RabbitServer own({.own = true});
    std::string name;
    {
        Queue queue("quorum", own);
        queue.add_numbered(300);
        name = queue.name;
        Queue::let_it_be_written_down();
    }
    Counting counting;
    std::stop_source stop;
    StopAfter observer(stop, 1'000'000);
    std::latch killed(1);
    std::jthread loop([&] { // the server must be started by the thread of the test
        RabbitSource source(own.address(), {.queue = name, .prefetch = 64});
        run(source,
            counting.handler([&](const std::string&) {
                if (counting.distinct() >= 100) {
                    killed.wait();
                }
            }),
            stop.get_token(),
            {.concurrency = 2, .observer = &observer});
    });
    while (counting.distinct() < 100) {
        std::this_thread::yield();
    }
    own.kill();
    killed.count_down(); // the handlers go on, and their acks find nobody
    own.start();
    const auto until = std::chrono::steady_clock::now() + 60s;
    while (counting.distinct() < 300 && std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_for(2ms);
    }
    RabbitSession look(own.address());
    while (look.ready(name) > 0 && std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_for(2ms);
    }
    stop.request_stop();
    loop.join();
    counting.expect_each_once(300);
    EXPECT_GE(observer.failures + observer.in_doubt + observer.lost, 1);
    EXPECT_EQ(look.ready(name), 0U) << "nothing that was handled is left";
}

TEST_F(RabbitRecovery, r9_15_a_broker_that_hangs_holds_nothing_up_beyond_the_deadline) {
    RabbitServer own({.own = true});
    Queue queue("quorum", own);
    queue.add_numbered(2);
    auto options = queue.options();
    options.deadline = 1'500ms;
    RabbitSource source(queue.address, options);
    auto received = receive(source, 2);
    EXPECT_EQ(source.settle(received.at(0), settlement(Action::dead_letter)), Settled::yes);
    own.pause();
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(source.receive(1ms).empty());
    EXPECT_EQ(source.settle(received.at(1), settlement(Action::dead_letter)), Settled::in_doubt);
    {
        RabbitSource second(queue.address, options);
        EXPECT_THROW(static_cast<void>(second.receive(1ms)), StoreError);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);
    own.resume();
    auto again = receive_in_spite(source, 1);
    EXPECT_EQ(again.at(0).payload(), "body 1");
    EXPECT_EQ(source.settle(again.at(0), settlement(Action::ack)), Settled::yes);
}

/// Of the broker's memory: it reads nothing of who publishes.
class Alarm {
public:
    explicit Alarm(RabbitServer& server) : server_(server) {
        server_.control({"set_vm_memory_high_watermark", "absolute", "1000000"});
    }
    Alarm(const Alarm&) = delete;
    Alarm& operator=(const Alarm&) = delete;
    ~Alarm() { server_.control({"set_vm_memory_high_watermark", "0.9"}); }

private:
    RabbitServer& server_;
};

TEST_F(RabbitRecovery, r9_3_a_confirm_of_the_channel_before_does_not_count_for_the_next_publish) {
    Queue queue("quorum", server());
    detail::RabbitPublisher publisher(
        {.address = detail::parse_rabbit_address(queue.address), .deadline = 1s, .name = "test"});
    const auto publish = [&](const std::string& to) {
        return publisher.publish(
            to, detail::copied_properties(detail::RabbitProperties({}), {}, false), "b");
    };
    {
        const Alarm alarm(server());
        EXPECT_EQ(publish(queue.name), detail::Published::in_doubt);
    }
    EXPECT_EQ(queue.ready_becomes(1), 1U);    // and its confirm is on its way
    const auto other = queue.name + ".other"; // asking for what is not there ends the channel
    EXPECT_EQ(publisher.declare(other, amqp_empty_table), std::nullopt);
    queue.rabbit.remove(other);
    EXPECT_EQ(publish(other), detail::Published::unroutable);
    EXPECT_FALSE(RabbitSession::has(queue.address, other));
    EXPECT_EQ(publish(queue.name), detail::Published::yes);
    EXPECT_EQ(queue.ready_becomes(2), 2U);
}

TEST_F(RabbitRecovery, r9_15_under_an_alarm_each_settlement_is_answered_and_burns_no_limit) {
    Queue queue("quorum", server());
    TcpProxy proxy(server().port());
    auto options = queue.options();
    options.deadline = 2s; // of a login too
    queue.rabbit.declare(queue.name + ".dead");
    queue.add_numbered(2);
    {
        RabbitSource source(through(proxy), options);
        auto received = receive(source, 2);
        const Alarm alarm(server());
        // It learns of the alarm from what it publishes, and has that requeued.
        EXPECT_EQ(source.settle(received.at(0), settlement(Action::dead_letter)),
                  Settled::in_doubt);
        auto again = receive(source);
        EXPECT_EQ(again.at(0).count(), 2U);
        const auto begin = std::chrono::steady_clock::now();
        for (int round = 0; round < 2; ++round) {
            for (auto* delivery : {&received.at(1), &again.at(0)}) {
                EXPECT_THROW(
                    static_cast<void>(source.settle(*delivery, settlement(Action::dead_letter))),
                    StoreError);
                EXPECT_TRUE(source.extend(*delivery, 1s)) << "it is ours still";
            }
        }
        EXPECT_LT(std::chrono::steady_clock::now() - begin, 40s);
        EXPECT_EQ(proxy.connections(), 2U) << "another would learn of the alarm as the first did";
    }
    EXPECT_EQ(queue.ready_becomes(2), 2U);
    std::map<std::string, std::string> counts; // the end of the source is counted too
    for (const auto& letter : queue.drain()) {
        counts[letter.body] = letter.headers.at("x-delivery-count");
    }
    EXPECT_EQ(counts, (std::map<std::string, std::string>{{"body 0", "2"}, {"body 1", "1"}}));
}

} // namespace
} // namespace idem::rabbitmq_tests
