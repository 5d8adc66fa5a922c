// SPDX-License-Identifier: MIT
// What makes a record of Kafka the same message again.
#include <optional>

#include "kafka_test.hpp"

namespace idem::kafka_tests {
namespace {

using Headers = std::vector<std::pair<std::string, std::optional<std::string>>>;

/// Identities of records with those headers, as they come back from the server.
std::vector<std::string> ids_of(Topic& topic, const std::vector<Headers>& records) {
    for (const auto& headers : records) {
        topic.producer.write({.topic = topic.name, .key = "k", .payload = "p", .headers = headers});
    }
    KafkaSource source(topic.options());
    std::vector<std::string> ids;
    for (const auto& delivery : receive(source, records.size())) {
        ids.emplace_back(delivery.identity().id.view());
    }
    return ids;
}

TEST(KafkaIdentity, r5_1_is_the_key_header_then_the_message_id_then_a_cloud_event_then_none) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    const auto ids = ids_of(topic,
                            {{{"message-id", "m"}, {"idempotency-key", "k"}, {"ce_id", "1"}},
                             {{"ce_id", "1"}, {"ce_source", "s"}, {"message-id", "m"}},
                             {{"ce_id", "1"}, {"ce_source", "/shop"}},
                             {{"ce_id", "1"}},
                             {{"ce_source", "/shop"}},
                             {{"id", "entity"}, {"key", "entity"}},
                             {},
                             {{"idempotency-key", {}}, {"message-id", "m"}},
                             {{"idempotency-key", {}}, {"message-id", {}}, {"ce_id", {}}},
                             {{"message-id", "first"}, {"message-id", "last"}}});
    EXPECT_EQ(ids,
              (std::vector<std::string>{"k", "m", "5:/shop1", "", "", "", "", "m", "", "last"}));
}

TEST(KafkaIdentity, r5_1_source_and_id_of_two_cloud_events_never_run_into_each_other) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    const auto ids = ids_of(
        topic, {{{"ce_source", "a"}, {"ce_id", "bc"}}, {{"ce_source", "ab"}, {"ce_id", "c"}}});
    ASSERT_EQ(ids.size(), 2U);
    EXPECT_NE(ids[0], ids[1]);
}

TEST(KafkaIdentity, has_fingerprint_creation_time_and_position) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.producer.write(
        {.topic = topic.name, .payload = "body", .headers = {{"idem-created", "1700000000123"}}});
    topic.producer.write({.topic = topic.name, .payload = "body"});
    topic.producer.write({.topic = topic.name});
    topic.producer.write({.topic = topic.name, .payload = ""});
    KafkaSource source(topic.options());
    const auto all = receive(source, 4);
    ASSERT_EQ(all.size(), 4U);
    EXPECT_TRUE(all[2].is_tombstone());
    EXPECT_FALSE(all[3].is_tombstone());
    EXPECT_TRUE(all[3].payload().empty());
    EXPECT_EQ(all[3].identity().fingerprint.algorithm, 0U);
    const auto first = all[0].identity(), second = all[1].identity(), third = all[2].identity();
    EXPECT_EQ(first.fingerprint, fingerprint_of("body"));
    EXPECT_EQ(first.fingerprint, second.fingerprint);
    EXPECT_EQ(third.fingerprint.algorithm, 0U); // a tombstone has no payload to have an opinion of
    EXPECT_EQ(first.created, Timestamp(milliseconds(1'700'000'000'123)));
    EXPECT_FALSE(second.created.has_value()); // the record's own time is another on each resend
    ASSERT_TRUE(second.position.has_value());
    EXPECT_EQ(second.position->offset, 1U);
    EXPECT_GT(second.position->epoch, 0U);
    const std::string partition(second.position->partition);
    EXPECT_EQ(partition.substr(partition.find('/')), '/' + topic.name + "/0");
    EXPECT_GT(partition.find('/'), 0U); // the cluster
    EXPECT_EQ(all[1].position(), partition + "/1");
    EXPECT_EQ(delivery_position(all[1]).id.view(), partition + "/1");
}

TEST(KafkaIdentity, r6_3_a_topic_made_anew_has_other_positions) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(1);
    auto options = topic.options();
    options.topic_epoch = "2";
    KafkaSource source(options);
    const auto all = receive(source, 1);
    ASSERT_EQ(all.size(), 1U);
    const std::string partition(all[0].identity().position->partition);
    EXPECT_EQ(partition.substr(partition.find('/')), '/' + topic.name + "@2/0");
}

} // namespace
} // namespace idem::kafka_tests
