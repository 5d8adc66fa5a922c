// SPDX-License-Identifier: MIT
// max.poll.interval: kept by run() while a handler is slow, and what happens when it is not.
#include <idem/idem.hpp>

#include <atomic>
#include <thread>

#include "kafka_test.hpp"

namespace idem::kafka_tests {
namespace {

KafkaOptions impatient(const Topic& topic) {
    auto options = topic.options();
    options.max_poll_interval = 1'500ms;
    options.commit_interval = 10ms;
    for (auto& [name, value] : options.settings) {
        if (name == "session.timeout.ms") {
            value = "1000";
        }
    }
    return options;
}

TEST(KafkaPoll, r7_8_a_slow_handler_keeps_its_partition) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(2);
    std::stop_source stop;
    std::atomic<int> runs{0};
    MemoryStore store;
    IdempotentConsumer consumer{store, AtMostOnce{}};
    const auto bill = consumer.wrap("billing", delivery_id, [&](const KafkaMessage& message) {
        ++runs;
        if (message.offset() == 0) {
            std::this_thread::sleep_for(4s); // the work: more than twice the interval
        } else {
            stop.request_stop();
        }
    });
    struct Settlements final : Observer {
        void on(const Event&) noexcept override {}
        void settled(const Settlement&, Settled how) noexcept override {
            (how == Settled::yes ? yes : lost) += 1;
        }
        int yes = 0, lost = 0;
    } settlements;
    {
        KafkaSource source(impatient(topic));
        run(source, bill, stop.get_token(), {.observer = &settlements});
    }
    EXPECT_EQ(runs, 2);
    EXPECT_EQ(settlements.yes, 2);
    EXPECT_EQ(settlements.lost, 0);
    EXPECT_EQ(topic.committed(), 2);
}

TEST(KafkaPoll, r7_6_a_loop_that_does_not_ask_loses_its_deliveries_and_goes_on) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(3);
    KafkaSource source(impatient(topic));
    auto all = receive(source, 3);
    ASSERT_EQ(all.size(), 3U);
    EXPECT_EQ(source.settle(all[0], settlement(Action::ack)), Settled::yes);
    ASSERT_TRUE(serve_until({&source}, [&] { return topic.committed() == 1; }));
    std::this_thread::sleep_for(4s); // what the loop does wrong
    bool told = false;
    const auto until = std::chrono::steady_clock::now() + patience;
    std::vector<KafkaDelivery> again;
    while (again.size() < 2 && std::chrono::steady_clock::now() < until) {
        try {
            for (auto& delivery : source.receive(20ms)) {
                again.push_back(std::move(delivery));
            }
        } catch (const StoreError& error) {
            EXPECT_EQ(error.fault(), Fault::unavailable) << error.what();
            told = true;
        }
    }
    EXPECT_TRUE(told);
    ASSERT_EQ(again.size(), 2U);
    EXPECT_EQ(again[0].offset(), 1);
    EXPECT_TRUE(again[0].redelivered());
    EXPECT_FALSE(source.extend(all[1], 1s));
    EXPECT_EQ(source.settle(all[1], settlement(Action::ack)), Settled::lost);
    EXPECT_TRUE(source.extend(again[0], 1s));
    EXPECT_EQ(source.settle(again[0], settlement(Action::ack)), Settled::yes);
    EXPECT_TRUE(serve_until({&source}, [&] { return topic.committed() == 2; }));
}

} // namespace
} // namespace idem::kafka_tests
