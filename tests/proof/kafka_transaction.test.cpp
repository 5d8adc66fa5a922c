// SPDX-License-Identifier: MIT
// BrokerTransaction under kills, zombies, rebalances and a broker's death: a reader of committed
// records finds each message once, in order.

#include <gtest/gtest.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "proof/kafka_input.hpp"
#include "proof/kafka_output.hpp"
#include "proof/kafka_site.hpp"
#include "support/kafka_records.hpp"
#include "support/kafka_server.hpp"
#include "support/needs.hpp"

namespace {

using namespace idem::proof;
using idem::testing_support::Isolation;
using idem::testing_support::read_topic;
using idem::testing_support::shared_kafka;

/// From one topic to another.
struct TopicToTopic {
    TopicToTopic(const std::string& design, std::size_t count, const KafkaFaultPlan& plan)
        : site(shared_kafka(), design, count, plan)
        , output(make_output(), topic(), site.input()) {}
    [[nodiscard]] std::string topic() const { return site.design() + "-out"; }
    const KafkaServer& make_output() const {
        shared_kafka().create_topic(topic(), static_cast<int>(site.input().numbers().size()));
        return shared_kafka();
    }

    KafkaSite site;
    KafkaOutput output;
};

/// What a reader finds that comes afterwards.
struct Found {
    explicit Found(const TopicToTopic& way) {
        std::map<std::int32_t, std::vector<std::size_t>> by_partition;
        std::set<std::pair<std::int32_t, std::int64_t>> committed;
        for (const auto& record : read_topic(shared_kafka(), way.topic())) {
            ++count;
            by_partition[record.partition].push_back(
                number_of(record.payload.value_or("")).value_or(way.site.input().count()));
            committed.emplace(record.partition, record.offset);
        }
        const auto& numbers = way.site.input().numbers();
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            each_once_in_order =
                each_once_in_order && by_partition[static_cast<std::int32_t>(i)] == numbers[i];
        }
        for (const auto& record :
             read_topic(shared_kafka(), way.topic(), Isolation::read_uncommitted)) {
            if (!committed.contains({record.partition, record.offset})) {
                ++aborted[record.header("worker").value_or("")];
            }
        }
    }
    std::size_t count = 0;
    bool each_once_in_order = true;
    std::map<std::string, std::size_t> aborted{}; // outputs, by who wrote them
};

class KafkaTransactionProof : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(KafkaServer::missing()); }
};

TEST_F(KafkaTransactionProof, i1_i2_i8_each_message_once_in_order_whatever_is_killed) {
    TopicToTopic way("broker_transaction",
                     33'333,
                     {.kills = 3, .visits = 3, .broker = true, .freezes = {SIGUSR1, SIGUSR2}});
    ASSERT_NO_FATAL_FAILURE(way.site.work(way.topic(), way.output));
    EXPECT_EQ(way.output.doubled(), 0U) << "while it went on";
    EXPECT_EQ(way.output.out_of_order(), 0U) << "while it went on";
    EXPECT_EQ(way.output.strange(), 0U);
    EXPECT_EQ(way.output.lost(), 0U);
    EXPECT_EQ(way.site.frozen().size(), 2U) << "there was a zombie of each kind";

    const Found found(way);
    EXPECT_EQ(found.count, way.site.input().count());
    EXPECT_TRUE(found.each_once_in_order);
    for (const auto& [writer, count] : found.aborted) {
        std::cout << "  of " << writer << ' ' << count << " outputs are aborted\n";
    }
    EXPECT_TRUE(dead_letters_are_the_bad(shared_kafka(), way.site.input()));
    if (HasFailure()) {
        std::cout << way.site.said();
    }
}

TEST_F(KafkaTransactionProof, mutant_effect_then_commit_doubles_where_it_is_killed_between) {
    TopicToTopic way("effect_then_commit", 3'000, {.kills = 1, .visits = 1, .broker = false});
    ASSERT_NO_FATAL_FAILURE(way.site.work(way.topic(), way.output));
    std::cout << "  " << way.output.doubled() << " doubled\n";
    EXPECT_EQ(way.output.lost(), 0U);
    EXPECT_GT(way.output.doubled(), 0U);
}

} // namespace
