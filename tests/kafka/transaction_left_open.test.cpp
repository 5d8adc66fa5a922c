// SPDX-License-Identifier: MIT
// What a killed instance left open: its successor under the same name ends it before it asks where
// its partitions start, for the broker does not tell while a transaction holds a pending offset.

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "kafka/transactional_worker.hpp"
#include "support/kafka_records.hpp"
#include "support/needs.hpp"

namespace idem::kafka_test {

using testing_support::committed_offset;
using testing_support::KafkaProducer;
using testing_support::read_topic;
using testing_support::shared_kafka;

/// A transaction as a kill right before the commit leaves it: an output, and a pending offset.
void leave_open(KafkaProducer& killed,
                const std::string& group,
                const std::string& input,
                const std::string& output) {
    const auto require = [](rd_kafka_error_t* raw) {
        if (const detail::KafkaError error(raw); error) {
            throw std::runtime_error(rd_kafka_error_string(error.get()));
        }
    };
    require(rd_kafka_init_transactions(killed.native(), 60'000));
    require(rd_kafka_begin_transaction(killed.native()));
    killed.write({.topic = output, .payload = "of the killed one"});
    const auto offsets = detail::kafka_partitions(1);
    detail::add_partition(offsets, input, 0).offset = 1;
    const detail::KafkaGroupMetadata member(rd_kafka_consumer_group_metadata_new(group.c_str()));
    require(
        rd_kafka_send_offsets_to_transaction(killed.native(), offsets.get(), member.get(), 60'000));
}

TEST(KafkaLeftOpen, a_successor_of_the_same_name_does_not_wait_for_the_timeout_of_a_killed_one) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    auto& server = shared_kafka();
    const std::string input = "left-open", output = "left-open-out";
    server.create_topic(input);
    server.create_topic(output);
    KafkaProducer(server).write_numbered(input, 2);
    ASSERT_EQ(committed_offset(server, "left-open", input),
              -1); // and the group's coordinator is up
    KafkaProducer killed(server,
                         {{"transactional.id", "left-open"}, {"transaction.timeout.ms", "600000"}});
    leave_open(killed, "left-open", input, output);

    auto sink = sink_options("left-open");
    sink.transaction_timeout = milliseconds{600'000};
    TransactionalWorker worker(source_options(server, input, "left-open"), sink, output);
    auto deliveries = worker.take(2); // within 120 s
    ASSERT_EQ(deliveries.size(), 2U);
    worker.settle(deliveries, worker.handle(deliveries));
    EXPECT_EQ(committed_offset(server, "left-open", input), 2);
    const auto outputs = read_topic(server, output);
    ASSERT_EQ(outputs.size(), 2U);
    EXPECT_EQ(outputs[0].payload, "body 0");
}

} // namespace idem::kafka_test
