// SPDX-License-Identifier: MIT
// Members join and leave: what each has, and what becomes of late settlements.
#include <idem/idem.hpp>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "kafka_test.hpp"

namespace idem::kafka_tests {
namespace {

class KafkaRebalancing : public ::testing::TestWithParam<KafkaRebalance> {
protected:
    static KafkaOptions options(const Topic& topic) {
        auto options = topic.options();
        options.rebalance = GetParam();
        options.commit_interval = 1h; // only what the rebalance itself commits
        return options;
    }
};

/// Two members of one group; the second joins while the first has everything in hand.
struct Pair {
    explicit Pair(const KafkaOptions& options) : first(options), second(options) {
        in_hand = receive(first, 20);
        EXPECT_EQ(in_hand.size(), 20U);
        for (auto& delivery : in_hand) {
            if (delivery.offset() < 4) {
                EXPECT_EQ(first.settle(delivery, settlement(Action::ack)), Settled::yes);
            }
        }
        // The first is served beside it: that is where its partitions are taken from it.
        const auto until = std::chrono::steady_clock::now() + patience;
        while (given.size() < 6 && std::chrono::steady_clock::now() < until) {
            for (auto& delivery : second.receive(10ms)) {
                given.push_back(std::move(delivery));
            }
            for (auto& delivery : first.receive(0ms)) {
                given_again.push_back(std::move(delivery));
            }
        }
        EXPECT_EQ(given.size(), 6U);
        moved = given.empty() ? -1 : given[0].partition();
    }
    KafkaSource first, second;
    std::vector<KafkaDelivery> in_hand, given, given_again;
    std::int32_t moved = -1;
};

TEST_P(KafkaRebalancing, r7_6_what_moves_starts_at_the_lowest_unfinished_offset) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(10, 0);
    topic.write(10, 1, 10);
    Pair pair(options(topic));
    for (std::size_t i = 0; i < pair.given.size(); ++i) {
        EXPECT_EQ(pair.given[i].partition(), pair.moved);
        EXPECT_EQ(pair.given[i].offset(), static_cast<std::int64_t>(4 + i));
    }
    EXPECT_EQ(topic.committed(pair.moved), 4); // before the partition was given back
}

TEST_P(KafkaRebalancing, r7_6_late_settlements_of_what_moved_are_lost_and_commit_nothing) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(10, 0);
    topic.write(10, 1, 10);
    std::int32_t moved = -1;
    {
        Pair pair(options(topic));
        moved = pair.moved;
        for (auto& delivery : pair.in_hand) {
            if (delivery.partition() != moved || delivery.offset() < 4) {
                continue;
            }
            EXPECT_FALSE(pair.first.extend(delivery, 1s));
            const auto action = delivery.offset() == 5   ? Action::retry
                                : delivery.offset() == 6 ? Action::dead_letter
                                                         : Action::ack;
            EXPECT_EQ(pair.first.settle(delivery, settlement(action)), Settled::lost);
        }
        for (auto& delivery : pair.given) {
            EXPECT_TRUE(pair.second.extend(delivery, 1s));
        }
        for (int turn = 0; turn < 20; ++turn) {
            EXPECT_TRUE(pair.first.receive(2ms, 0).empty());
            EXPECT_TRUE(pair.second.receive(2ms, 0).empty());
        }
    }
    EXPECT_EQ(topic.committed(moved), 4);
    EXPECT_TRUE(topic.dead().empty());
}

TEST_P(KafkaRebalancing, what_stays_is_kept_by_the_cooperative_protocol_alone) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(10, 0);
    topic.write(10, 1, 10);
    Pair pair(options(topic));
    const bool keeps = GetParam() == KafkaRebalance::cooperative;
    for (auto& delivery : pair.in_hand) {
        if (delivery.partition() != pair.moved && delivery.offset() >= 4) {
            EXPECT_EQ(pair.first.extend(delivery, 1s), keeps);
            EXPECT_EQ(pair.first.settle(delivery, settlement(Action::ack)),
                      keeps ? Settled::yes : Settled::lost);
        }
    }
    if (keeps) {
        EXPECT_TRUE(pair.given_again.empty());
        return;
    }
    for (auto& delivery : receive(pair.first, 6 - pair.given_again.size(), {&pair.second})) {
        pair.given_again.push_back(std::move(delivery));
    }
    ASSERT_EQ(pair.given_again.size(), 6U); // assigned anew, from where it was finished
    EXPECT_EQ(pair.given_again[0].offset(), 4);
    EXPECT_NE(pair.given_again[0].partition(), pair.moved);
}

TEST_P(KafkaRebalancing, a_member_that_leaves_hands_on_what_it_did_not_finish) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(10, 0);
    topic.write(10, 1, 10);
    KafkaSource stays(options(topic));
    std::set<std::string> seen;
    {
        KafkaSource leaves(options(topic));
        std::vector<KafkaDelivery> theirs;
        const auto until = std::chrono::steady_clock::now() + patience;
        while ((theirs.empty() || seen.empty()) && std::chrono::steady_clock::now() < until) {
            for (auto& delivery : leaves.receive(10ms)) {
                theirs.push_back(std::move(delivery));
            }
            for (auto& delivery : stays.receive(10ms)) {
                seen.insert(text(delivery));
            }
        }
        ASSERT_FALSE(theirs.empty());
        for (auto& delivery : theirs) {
            if (leaves.extend(delivery, 1s) && delivery.offset() < 3) {
                EXPECT_EQ(leaves.settle(delivery, settlement(Action::ack)), Settled::yes);
            }
        }
    }
    const auto until = std::chrono::steady_clock::now() + patience;
    // 3 of the partition of the one that left are done, by it.
    while (seen.size() < 17 && std::chrono::steady_clock::now() < until) {
        for (auto& delivery : stays.receive(10ms)) {
            seen.insert(text(delivery));
        }
    }
    EXPECT_GE(seen.size(), 17U);
}

/// Counts the effects of each id.
struct Effects {
    std::mutex mutex;
    std::map<std::string, int> of;
    void add(const std::string& id) {
        const std::scoped_lock lock(mutex);
        ++of[id];
    }
    std::size_t size() {
        const std::scoped_lock lock(mutex);
        return of.size();
    }
};

TEST_P(KafkaRebalancing, r9_1_each_message_has_one_effect_while_members_come_and_go) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(4);
    constexpr int each = 1'000;
    constexpr std::size_t all = 4'000;
    for (std::int32_t partition = 0; partition < 4; ++partition) {
        topic.write(each, partition, partition * each);
    }
    Effects effects;
    MemoryStore store;
    IdempotentConsumer consumer{store, DistributedLock{}};
    std::atomic<std::size_t> target{0};
    std::atomic<int> joined{0};
    const auto bill = consumer.wrap("billing", delivery_id, [&](const KafkaMessage& message) {
        // Work, so that all take part; and some is left for those that come late.
        const bool wait = joined < 2 && effects.size() >= target;
        std::this_thread::sleep_for(std::chrono::microseconds(wait ? 20'000 : 200));
        effects.add(text(message));
    });
    auto member = [&](std::stop_token stop) {
        auto settings = options(topic);
        settings.commit_interval = 50ms;
        KafkaSource source(settings);
        run(source, bill, std::move(stop), {.concurrency = 2});
    };
    std::jthread stays(member);
    const auto until = std::chrono::steady_clock::now() + 2 * patience;
    while (effects.size() < all && std::chrono::steady_clock::now() < until) {
        target = effects.size() + all / 8;
        std::jthread comes(member);
        ++joined;
        while (effects.size() < target && effects.size() < all &&
               std::chrono::steady_clock::now() < until) {
            std::this_thread::sleep_for(2ms);
        }
    }
    stays.request_stop();
    stays.join();
    EXPECT_GE(joined, 2);
    ASSERT_EQ(effects.size(), all);
    for (const auto& [id, count] : effects.of) {
        EXPECT_EQ(count, 1) << id;
    }
    for (std::int32_t partition = 0; partition < 4; ++partition) {
        EXPECT_EQ(topic.committed(partition), each);
    }
}

INSTANTIATE_TEST_SUITE_P(Kafka,
                         KafkaRebalancing,
                         ::testing::Values(KafkaRebalance::eager, KafkaRebalance::cooperative),
                         [](const auto& each) {
                             return each.param == KafkaRebalance::eager ? "eager" : "cooperative";
                         });

} // namespace
} // namespace idem::kafka_tests
