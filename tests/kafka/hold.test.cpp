// SPDX-License-Identifier: MIT
// A retry holds its partition, and the others go on.
#include <idem/idem.hpp>

#include <map>
#include <mutex>

#include "kafka_test.hpp"

namespace idem::kafka_tests {
namespace {

TEST(KafkaHold, a_paused_partition_gives_nothing_and_goes_on_where_it_was) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(10, 0);
    topic.write(10, 1, 10);
    KafkaSource source(topic.options());
    std::optional<std::uint64_t> lane;
    std::int64_t next[2] = {};
    while (!lane) {
        const auto received = receive(source, 1);
        ASSERT_EQ(received.size(), 1U);
        EXPECT_EQ(received[0].offset(), next[received[0].partition()]++);
        if (received[0].partition() == 0) {
            lane = source.lane(received[0]);
        }
    }
    source.pause(*lane);
    const auto others = receive(source, static_cast<std::size_t>(10 - next[1]));
    for (const auto& delivery : others) {
        EXPECT_EQ(delivery.partition(), 1);
        EXPECT_EQ(delivery.offset(), next[1]++);
    }
    EXPECT_EQ(next[1], 10);
    EXPECT_TRUE(source.receive(50ms).empty());
    source.resume(*lane);
    for (const auto& delivery : receive(source, static_cast<std::size_t>(10 - next[0]))) {
        EXPECT_EQ(delivery.partition(), 0);
        EXPECT_EQ(delivery.offset(), next[0]++);
    }
    EXPECT_EQ(next[0], 10);
}

TEST(KafkaHold, r7_2_a_retry_comes_again_after_the_delay_and_before_what_is_younger) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(3, 0);
    KafkaSource source(topic.options());
    auto first = receive(source, 1);
    ASSERT_EQ(first.size(), 1U);
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(source.settle(first[0], retry_after(300ms)), Settled::yes);
    EXPECT_EQ(source.settle(first[0], settlement(Action::ack)), Settled::lost); // given back
    topic.write(1, 1, 3);
    const auto other = receive(source, 1);
    ASSERT_EQ(other.size(), 1U);
    EXPECT_EQ(other[0].partition(), 1);
    auto rest = receive(source, 3);
    EXPECT_GE(std::chrono::steady_clock::now() - began, 300ms);
    ASSERT_EQ(rest.size(), 3U);
    for (std::int64_t i = 0; i < 3; ++i) {
        EXPECT_EQ(rest[static_cast<std::size_t>(i)].offset(), i);
    }
    EXPECT_TRUE(rest[0].redelivered());
    for (auto& delivery : rest) {
        EXPECT_EQ(source.settle(delivery, settlement(Action::ack)), Settled::yes);
    }
}

TEST(KafkaHold, a_retry_is_never_committed_past) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(5);
    {
        auto options = topic.options();
        options.commit_interval = 1ms;
        KafkaSource source(options);
        auto all = receive(source, 5);
        ASSERT_EQ(all.size(), 5U);
        EXPECT_EQ(source.settle(all[0], settlement(Action::ack)), Settled::yes);
        EXPECT_EQ(source.settle(all[1], retry_after(1h)), Settled::yes);
        for (std::size_t i = 2; i < 5; ++i) {
            EXPECT_EQ(source.settle(all[i], settlement(Action::ack)), Settled::yes);
        }
        EXPECT_TRUE(serve_until({&source}, [&] { return topic.committed() == 1; }));
    }
    EXPECT_EQ(topic.committed(), 1);
}

TEST(KafkaHold, without_order_the_others_of_its_partition_go_on) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(3);
    auto options = topic.options();
    options.ordered = false;
    KafkaSource source(options);
    auto first = receive(source, 1);
    ASSERT_EQ(first.size(), 1U);
    EXPECT_EQ(source.settle(first[0], retry_after(1h)), Settled::yes);
    const auto rest = receive(source, 2);
    ASSERT_EQ(rest.size(), 2U);
    EXPECT_EQ(rest[0].offset(), 1);
}

TEST(KafkaHold, r6_9_run_holds_the_partition_and_keeps_its_order_while_others_go_on) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    constexpr int count = 50;
    topic.write(count, 0);
    topic.write(count, 1, count);
    std::mutex mutex;
    std::vector<std::int64_t> handled[2];
    int refused = 0;
    std::stop_source stop;
    MemoryStore store;
    IdempotentConsumer consumer{store, DistributedLock{}};
    const auto bill = consumer.wrap("billing", delivery_id, [&](const KafkaMessage& message) {
        const std::scoped_lock lock(mutex);
        // Each waits for the other: the first for all of the second, the second's last for a refusal
        // of the first.
        if (message.partition() == 0 && message.offset() == 7 && handled[1].size() < count) {
            ++refused;
            throw RetryLater(20ms);
        }
        if (message.partition() == 1 && message.offset() == count - 1 && refused == 0) {
            throw RetryLater(20ms);
        }
        handled[message.partition()].push_back(message.offset());
        if (handled[0].size() + handled[1].size() == 2 * count) {
            stop.request_stop();
        }
    });
    KafkaSource source(topic.options());
    run(source, bill, stop.get_token(), {.concurrency = 2});
    EXPECT_GT(refused, 0);
    for (const auto& partition : handled) {
        ASSERT_EQ(partition.size(), static_cast<std::size_t>(count));
        for (std::int64_t i = 0; i < count; ++i) {
            EXPECT_EQ(partition[static_cast<std::size_t>(i)], i);
        }
    }
}

} // namespace
} // namespace idem::kafka_tests
