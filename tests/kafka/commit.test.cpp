// SPDX-License-Identifier: MIT
// What a Kafka source commits, as the server shows it.
#include <algorithm>
#include <random>

#include "kafka_test.hpp"

namespace idem::kafka_tests {
namespace {

/// Commits whatever is finished at each receive.
KafkaOptions eager_commits(const Topic& topic) {
    auto options = topic.options();
    options.commit_interval = 1ms;
    return options;
}

TEST(KafkaCommit, is_the_lowest_unfinished_offset) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(10);
    KafkaSource source(eager_commits(topic));
    auto all = receive(source, 10);
    ASSERT_EQ(all.size(), 10U);
    for (const std::size_t at : {1U, 2U, 4U}) {
        EXPECT_EQ(source.settle(all[at], settlement(Action::ack)), Settled::yes);
    }
    EXPECT_EQ(source.settle(all[0], settlement(Action::ack)), Settled::yes);
    ASSERT_TRUE(serve_until({&source}, [&] { return topic.committed() >= 3; }));
    EXPECT_EQ(topic.committed(), 3); // 4 is finished, 3 is not
    EXPECT_EQ(source.settle(all[3], settlement(Action::ack)), Settled::yes);
    ASSERT_TRUE(serve_until({&source}, [&] { return topic.committed() >= 5; }));
    EXPECT_EQ(topic.committed(), 5);
}

TEST(KafkaCommit, nothing_is_committed_before_something_is_finished) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(3);
    {
        KafkaSource source(eager_commits(topic));
        const auto all = receive(source, 3);
        ASSERT_EQ(all.size(), 3U);
        for (int i = 0; i < 20; ++i) {
            EXPECT_TRUE(source.receive(2ms, 0).empty());
        }
    }
    EXPECT_EQ(topic.committed(), -1);
}

TEST(KafkaCommit, r9_14_a_delivery_is_settled_once) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(2);
    KafkaSource source(topic.options());
    auto all = receive(source, 2);
    ASSERT_EQ(all.size(), 2U);
    EXPECT_EQ(source.settle(all[1], settlement(Action::ack)), Settled::yes);
    EXPECT_EQ(source.settle(all[1], settlement(Action::ack)), Settled::lost);
    EXPECT_EQ(source.settle(all[1], settlement(Action::retry)), Settled::lost);
    EXPECT_EQ(source.settle(all[1], settlement(Action::dead_letter)), Settled::lost);
    KafkaDelivery* const both[] = {&all[0], &all[1]};
    EXPECT_EQ(source.acknowledge(both), (std::vector{Settled::yes, Settled::lost}));
    EXPECT_TRUE(topic.dead().empty());
}

TEST(KafkaCommit, comes_after_so_many_although_the_interval_is_long) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(30);
    auto options = topic.options();
    options.commit_interval = 1h;
    options.commit_count = 10;
    KafkaSource source(options);
    auto all = receive(source, 30);
    ASSERT_EQ(all.size(), 30U);
    for (std::size_t i = 0; i < 9; ++i) {
        EXPECT_EQ(source.settle(all[i], settlement(Action::ack)), Settled::yes);
    }
    EXPECT_TRUE(source.receive(0ms, 0).empty());
    EXPECT_EQ(source.settle(all[9], settlement(Action::ack)), Settled::yes);
    ASSERT_TRUE(serve_until({&source}, [&] { return topic.committed() > 0; }));
    EXPECT_EQ(topic.committed(), 10);
}

TEST(KafkaCommit, the_end_of_the_source_commits_what_is_finished) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(5, 0);
    topic.write(5, 1, 5);
    auto options = topic.options();
    options.commit_interval = 1h;
    {
        KafkaSource source(options);
        auto all = receive(source, 10);
        ASSERT_EQ(all.size(), 10U);
        for (auto& delivery : all) {
            if (delivery.partition() == 0 || delivery.offset() < 2) {
                EXPECT_EQ(source.settle(delivery, settlement(Action::ack)), Settled::yes);
            }
        }
    }
    EXPECT_EQ(topic.committed(0), 5);
    EXPECT_EQ(topic.committed(1), 2);
}

TEST(KafkaCommit, r9_9_never_passes_the_lowest_unfinished_one_and_never_goes_back) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    constexpr int count = 300;
    topic.write(count);
    auto options = eager_commits(topic);
    options.ordered = false;
    KafkaSource source(options);
    auto all = receive(source, count);
    ASSERT_EQ(all.size(), static_cast<std::size_t>(count));
    std::vector<std::size_t> order(count);
    for (std::size_t i = 0; i < order.size(); ++i) {
        order[i] = i;
    }
    std::mt19937 random(11); // NOLINT(cert-msc51-cpp): the same on every run
    std::shuffle(order.begin() + 1, order.end(), random);
    std::vector<bool> finished(count, false);
    std::int64_t before = -1;
    for (std::size_t i = 0; i < order.size(); ++i) {
        EXPECT_EQ(source.settle(all[order[i]], settlement(Action::ack)), Settled::yes);
        finished[order[i]] = true;
        EXPECT_TRUE(source.receive(0ms, 0).empty());
        if (i % 10 == 0) {
            const auto committed = topic.committed();
            const auto lowest = std::find(finished.begin(), finished.end(), false);
            EXPECT_LE(committed, lowest - finished.begin());
            EXPECT_GE(committed, before);
            before = committed;
        }
    }
    EXPECT_TRUE(serve_until({&source}, [&] { return topic.committed() == count; }));
}

TEST(KafkaCommit, without_order_each_delivery_is_a_lane_and_the_window_bounds_them) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(50);
    auto options = eager_commits(topic);
    options.ordered = false;
    options.window = 20;
    KafkaSource source(options);
    auto all = receive(source, 20);
    ASSERT_EQ(all.size(), 20U);
    EXPECT_NE(source.lane(all[0]), source.lane(all[1]));
    EXPECT_TRUE(source.receive(50ms, 100).empty()); // the lowest is unfinished
    for (std::size_t i = 1; i < 20; ++i) {
        EXPECT_EQ(source.settle(all[i], settlement(Action::ack)), Settled::yes);
    }
    EXPECT_TRUE(source.receive(50ms, 100).empty());
    EXPECT_EQ(source.settle(all[0], settlement(Action::ack)), Settled::yes);
    EXPECT_EQ(receive(source, 20).size(), 20U);
}

TEST(KafkaCommit, with_order_a_partition_is_a_lane) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(3, 0);
    topic.write(3, 1, 3);
    KafkaSource source(topic.options());
    const auto all = receive(source, 6);
    ASSERT_EQ(all.size(), 6U);
    for (const auto& one : all) {
        for (const auto& other : all) {
            EXPECT_EQ(source.lane(one) == source.lane(other), one.partition() == other.partition());
        }
    }
}

} // namespace
} // namespace idem::kafka_tests
