// SPDX-License-Identifier: MIT
// A server that asks who a client is and what it may do: what the source says where it is refused,
// that nothing is lost by it, and that it goes on once it is allowed.
#include <idem/idem.hpp>

#include "kafka_test.hpp"

namespace idem::kafka_tests {
namespace {

using testing_support::kafka_credentials;
using testing_support::KafkaUser;

const KafkaUser root{"root", "of-all"}, clerk{"clerk", "open-sesame"}, guest{"guest", "first"};

/// One for all tests of this file. May do nothing but what is allowed: the clerk and the guest.
KafkaServer& guarded_kafka() {
    static KafkaServer server({.users = {root, clerk, guest}});
    return server;
}

/// Written by root.
struct GuardedTopic : Topic {
    explicit GuardedTopic(int count = 0) : Topic(1, guarded_kafka()) { write(count); }

    [[nodiscard]] KafkaOptions as(const KafkaUser& user) const {
        auto options = this->options();
        for (auto& setting : kafka_credentials(user)) {
            options.settings.push_back(std::move(setting));
        }
        // How soon a permission that comes later is noticed.
        options.settings.emplace_back("topic.metadata.refresh.interval.ms", "200");
        return options;
    }
    void allow_topic(rd_kafka_AclOperation_t operation, const KafkaUser& user = clerk) const {
        server.allow(user.name, operation, RD_KAFKA_RESOURCE_TOPIC, name);
    }
    void allow_group(const KafkaUser& user = clerk) const {
        server.allow(user.name, RD_KAFKA_ACL_OPERATION_READ, RD_KAFKA_RESOURCE_GROUP, group);
    }
};

/// What the source says of what a human must mend; outages go by. Empty: nothing.
std::string refusal_of(KafkaSource& source) {
    const auto until = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < until) {
        try {
            EXPECT_TRUE(source.receive(10ms, 10).empty());
        } catch (const StoreError& error) {
            if (error.fault() == Fault::rejected) {
                return error.what();
            }
        }
    }
    return {};
}
std::string refusal_of(const KafkaOptions& options) {
    KafkaSource source(options);
    return refusal_of(source);
}
/// So many, although it was refused before.
std::size_t received_at_last(KafkaSource& source, std::size_t count) {
    const auto until = std::chrono::steady_clock::now() + patience;
    std::size_t received = 0;
    while (received < count && std::chrono::steady_clock::now() < until) {
        try {
            received += source.receive(10ms, count - received).size();
        } catch (const StoreError&) { // once more of what was refused
        }
    }
    return received;
}
void expect_says(const std::string& text, const std::vector<std::string>& parts) {
    for (const auto& part : parts) {
        EXPECT_NE(text.find(part), std::string::npos) << "\"" << text << "\" has no " << part;
    }
}

TEST(KafkaCredentials, wrong_ones_are_rejected_and_the_right_ones_find_everything_there) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    const GuardedTopic topic(5);
    topic.allow_topic(RD_KAFKA_ACL_OPERATION_READ);
    topic.allow_group();
    for (const KafkaUser& wrong : {KafkaUser{clerk.name, "sesame"}, KafkaUser{"stranger", "?"}}) {
        expect_says(refusal_of(topic.as(wrong)), {"sasl.username", "sasl.password"});
    }
    auto options = topic.as(clerk);
    for (auto& [name, value] : options.settings) {
        value = name == "sasl.mechanism" ? "SCRAM-SHA-256" : value;
    }
    expect_says(refusal_of(options), {"sasl.mechanism", "SCRAM-SHA-256", "PLAIN"});
    EXPECT_EQ(topic.committed(), -1);
    KafkaSource source(topic.as(clerk));
    EXPECT_EQ(receive(source, 5).size(), 5U);
}

TEST(KafkaCredentials, wrong_ones_stop_run) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    const GuardedTopic topic(1);
    MemoryStore store;
    IdempotentConsumer consumer{store, AtMostOnce{}};
    int runs = 0;
    const auto bill = consumer.wrap("billing", delivery_id, [&](const KafkaMessage&) { ++runs; });
    KafkaSource source(topic.as({clerk.name, "sesame"}));
    try {
        run(source, bill, std::stop_token());
        FAIL() << "it ended";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::rejected) << error.what();
        expect_says(error.what(), {"sasl.password"});
    }
    EXPECT_EQ(runs, 0);
}

TEST(KafkaCredentials, a_client_that_does_not_say_who_it_is_is_told_what_is_asked_for) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    const GuardedTopic topic;
    KafkaSource source(topic.options());
    std::string said;
    const auto until = std::chrono::steady_clock::now() + patience;
    while (said.empty() && std::chrono::steady_clock::now() < until) {
        try {
            EXPECT_TRUE(source.receive(10ms).empty());
        } catch (const StoreError& error) {
            said = error.what(); // the server closes the connection, as one that goes down does
            EXPECT_EQ(error.fault(), Fault::unavailable) << said;
        }
    }
    expect_says(said, {"security.protocol"});
}

TEST(KafkaCredentials, without_permission_of_the_group_it_is_rejected_and_goes_on_with_it) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    const GuardedTopic topic(3);
    topic.allow_topic(RD_KAFKA_ACL_OPERATION_READ);
    KafkaSource source(topic.as(clerk));
    expect_says(refusal_of(source), {"GROUP_AUTHORIZATION_FAILED", "allow this user READ"});
    EXPECT_EQ(topic.committed(), -1);
    topic.allow_group();
    EXPECT_EQ(received_at_last(source, 3), 3U);
}

TEST(KafkaCredentials, without_permission_of_the_topic_it_is_rejected_and_goes_on_with_it) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    const GuardedTopic topic(3);
    topic.allow_group();
    KafkaSource source(topic.as(clerk));
    expect_says(refusal_of(source), {"TOPIC_AUTHORIZATION_FAILED", topic.name, "allow this user"});
    topic.allow_topic(RD_KAFKA_ACL_OPERATION_DESCRIBE); // it may know of it, and not read it
    expect_says(refusal_of(source), {"TOPIC_AUTHORIZATION_FAILED", "allow this user READ"});
    EXPECT_EQ(topic.committed(), -1);
    topic.allow_topic(RD_KAFKA_ACL_OPERATION_READ);
    EXPECT_EQ(received_at_last(source, 3), 3U);
}

TEST(KafkaCredentials, a_dead_letter_that_may_not_be_written_is_rejected_until_it_may) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    const GuardedTopic topic(1);
    topic.allow_topic(RD_KAFKA_ACL_OPERATION_READ);
    topic.allow_group();
    const auto dead = topic.name + ".dead";
    const auto letter = settlement(Action::dead_letter, reason::dead);
    {
        KafkaSource source(topic.as(clerk));
        auto all = receive(source, 1);
        ASSERT_EQ(all.size(), 1U);
        const auto is_refused = [&] {
            try {
                static_cast<void>(source.settle(all[0], letter));
                return false;
            } catch (const StoreError& error) {
                EXPECT_EQ(error.fault(), Fault::rejected) << error.what();
                expect_says(error.what(), {dead, "AUTHORIZATION_FAILED", "allow this user"});
                return true;
            }
        };
        for (int turn = 0; turn < 10; ++turn) { // the producer too is refused, some time later
            EXPECT_TRUE(is_refused());
            EXPECT_TRUE(source.receive(50ms).empty());
        }
        topic.server.create_topic(dead);
        EXPECT_TRUE(is_refused());
        topic.server.allow(clerk.name, RD_KAFKA_ACL_OPERATION_WRITE, RD_KAFKA_RESOURCE_TOPIC, dead);
        EXPECT_TRUE(source.extend(all[0], 1s));
        EXPECT_EQ(source.settle(all[0], letter), Settled::yes);
        EXPECT_EQ(source.settle(all[0], letter), Settled::lost);
    }
    EXPECT_EQ(topic.dead().size(), 1U);
    EXPECT_EQ(topic.committed(), 1);
}

TEST(KafkaCredentials, ones_that_are_changed_under_it_are_rejected_and_what_is_unfinished_stays) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    GuardedTopic topic(5);
    topic.allow_topic(RD_KAFKA_ACL_OPERATION_READ, guest);
    topic.allow_group(guest);
    auto options = topic.as(guest);
    options.commit_interval = 10ms;
    {
        KafkaSource source(options);
        auto all = receive(source, 5);
        ASSERT_EQ(all.size(), 5U);
        EXPECT_EQ(source.settle(all[0], settlement(Action::ack)), Settled::yes);
        EXPECT_EQ(source.settle(all[1], settlement(Action::ack)), Settled::yes);
        ASSERT_TRUE(serve_until({&source}, [&] { return topic.committed() == 2; }));
        topic.server.set_users({root, clerk, {guest.name, "second"}});
        topic.server.restart();
        expect_says(refusal_of(source), {"sasl.password"});
        all.clear();
    }
    EXPECT_EQ(topic.committed(), 2);
    KafkaSource source(topic.as({guest.name, "second"}));
    const auto rest = receive(source, 3);
    ASSERT_EQ(rest.size(), 3U);
    EXPECT_EQ(rest[0].offset(), 2);
}

} // namespace
} // namespace idem::kafka_tests
