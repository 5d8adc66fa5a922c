// SPDX-License-Identifier: MIT
// The lowest unfinished offset of a partition, against a plain model.
#include <idem/detail/kafka_tracker.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <set>
#include <vector>

namespace idem::kafka_tests {
namespace {

using detail::KafkaTracker;

TEST(KafkaTracker, starts_with_nothing_to_commit) {
    KafkaTracker tracker;
    EXPECT_EQ(tracker.next(), -1);
    EXPECT_FALSE(tracker.finish(0));
}

TEST(KafkaTracker, the_lowest_unfinished_offset_is_next_and_gaps_are_passed) {
    KafkaTracker tracker;
    for (const std::int64_t offset : {10, 11, 15, 20}) {
        tracker.take(offset);
    }
    EXPECT_EQ(tracker.next(), 10);
    EXPECT_TRUE(tracker.finish(15));
    EXPECT_EQ(tracker.next(), 10);
    EXPECT_TRUE(tracker.finish(10));
    EXPECT_EQ(tracker.next(), 11);
    EXPECT_TRUE(tracker.finish(11));
    EXPECT_EQ(tracker.next(), 20);
    EXPECT_TRUE(tracker.finish(20));
    EXPECT_EQ(tracker.next(), 21);
    tracker.take(30);
    EXPECT_EQ(tracker.next(), 30);
}

TEST(KafkaTracker, r9_14_an_offset_is_finished_once) {
    KafkaTracker tracker;
    tracker.take(1);
    tracker.take(2);
    EXPECT_TRUE(tracker.finish(2));
    EXPECT_FALSE(tracker.finish(2));
    EXPECT_TRUE(tracker.finish(1));
    EXPECT_FALSE(tracker.finish(1));
    EXPECT_FALSE(tracker.finish(7));
}

TEST(KafkaTracker, tells_how_many_below_an_offset_are_unfinished) {
    KafkaTracker tracker;
    for (std::int64_t offset = 0; offset < 10; ++offset) {
        tracker.take(offset);
    }
    EXPECT_TRUE(tracker.finish(3));
    EXPECT_EQ(tracker.unfinished_up_to(4), 4U);
    EXPECT_EQ(tracker.unfinished_up_to(100), 9U);
    EXPECT_TRUE(tracker.is_unfinished(4));
    EXPECT_FALSE(tracker.is_unfinished(3));
    EXPECT_FALSE(tracker.is_unfinished(10));
}

TEST(KafkaTracker, r9_9_never_passes_an_unfinished_offset_in_any_order) {
    std::mt19937 random(7); // NOLINT(cert-msc51-cpp): the same on every run
    KafkaTracker tracker;
    std::set<std::int64_t> unfinished;
    std::int64_t offset = 0, before = -1;
    for (int step = 0; step < 100'000; ++step) {
        if (unfinished.size() < 200 && random() % 2 == 0) {
            offset += 1 + static_cast<std::int64_t>(random() % 3);
            tracker.take(offset);
            unfinished.insert(offset);
        } else if (!unfinished.empty()) {
            auto one = unfinished.begin();
            std::advance(one, static_cast<std::ptrdiff_t>(random() % unfinished.size()));
            ASSERT_TRUE(tracker.finish(*one));
            unfinished.erase(one);
        }
        if (!unfinished.empty()) {
            ASSERT_EQ(tracker.next(), *unfinished.begin());
        }
        ASSERT_GE(tracker.next(), before);
        before = tracker.next();
    }
    EXPECT_GT(before, 10'000);
}

} // namespace
} // namespace idem::kafka_tests
