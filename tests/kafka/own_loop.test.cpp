// SPDX-License-Identifier: MIT
// KafkaMessage and KafkaSettler on a consumer and a loop that are the user's own.
#include <idem/broker/kafka_settlement.hpp>
#include <idem/idem.hpp>

#include "kafka_test.hpp"

namespace idem::kafka_tests {
namespace {

/// A plain consumer, as a user has it: offsets are stored by hand and committed by librdkafka.
class OwnLoop {
public:
    explicit OwnLoop(const Topic& topic, const std::string& stores = "false") {
        auto config = topic.server.client();
        config.set("group.id", topic.group);
        config.set("enable.auto.offset.store", stores);
        config.set("auto.offset.reset", "earliest");
        config.set("session.timeout.ms", "3000");
        config.set("fetch.wait.max.ms", "20");
        rd_kafka_conf_set_opaque(config.get(), this);
        rd_kafka_conf_set_rebalance_cb(config.get(),
                                       [](rd_kafka_t* handle,
                                          rd_kafka_resp_err_t what,
                                          rd_kafka_topic_partition_list_t* partitions,
                                          void* self) {
                                           auto* settling = static_cast<OwnLoop*>(self)->settler;
                                           const bool gained =
                                               what == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
                                           if (!gained && settling != nullptr) {
                                               settling->revoked(*partitions);
                                           }
                                           rd_kafka_assign(handle, gained ? partitions : nullptr);
                                       });
        handle_ = std::move(config).make(RD_KAFKA_CONSUMER);
        rd_kafka_poll_set_consumer(handle_.get());
        const auto topics = detail::kafka_partitions(1);
        detail::add_partition(topics, topic.name, RD_KAFKA_PARTITION_UA);
        rd_kafka_subscribe(handle_.get(), topics.get());
    }
    OwnLoop(const OwnLoop&) = delete;
    OwnLoop& operator=(const OwnLoop&) = delete;
    ~OwnLoop() { rd_kafka_consumer_close(handle_.get()); }

    /// The next record; null: none in time.
    detail::KafkaRawMessage next(milliseconds time = 60s) {
        const auto until = std::chrono::steady_clock::now() + time;
        do {
            if (settler != nullptr) {
                settler->resume();
            }
            detail::KafkaRawMessage message(rd_kafka_consumer_poll(handle_.get(), 10));
            if (message && message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
                return message;
            }
        } while (std::chrono::steady_clock::now() < until);
        return {};
    }
    [[nodiscard]] rd_kafka_t* native() const { return handle_.get(); }

    KafkaSettler* settler = nullptr;

private:
    detail::KafkaHandle handle_;
};

/// While it lives the rebalance callback reaches the settler, which goes before the loop's close.
class Linked {
public:
    Linked(OwnLoop& loop, KafkaSettler& settler) : loop_(loop) { loop.settler = &settler; }
    Linked(const Linked&) = delete;
    Linked& operator=(const Linked&) = delete;
    ~Linked() { loop_.settler = nullptr; }

private:
    OwnLoop& loop_;
};

KafkaSettlerOptions settler_options(const Topic& topic) {
    return {.producer = {{"bootstrap.servers", topic.server.address()}}};
}

TEST(KafkaOwnLoop, a_wrapped_handler_reads_the_users_own_record) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(3);
    topic.write(1, 0, 1); // the second once more
    OwnLoop loop(topic);
    KafkaSettler settler(loop.native(), settler_options(topic));
    const Linked linked(loop, settler);
    MemoryStore store;
    IdempotentConsumer consumer{store, DistributedLock{}};
    std::vector<std::string> billed;
    const auto bill = consumer.wrap("billing", delivery_id, [&](const KafkaMessage& message) {
        billed.push_back(text(message));
    });
    std::vector<Status> statuses;
    for (int i = 0; i < 4; ++i) {
        const auto record = loop.next();
        ASSERT_TRUE(record);
        const KafkaMessage message(*record);
        EXPECT_FALSE(message.identity().position.has_value());
        EXPECT_EQ(message.position(), topic.name + "/0/" + std::to_string(i));
        const auto outcome = bill.handle(message);
        statuses.push_back(outcome.status());
        EXPECT_EQ(settler.settle(message, outcome.settlement()), Settled::yes);
    }
    EXPECT_EQ(billed, (std::vector<std::string>{"body 0", "body 1", "body 2"}));
    EXPECT_EQ(statuses[3], Status::replayed);
    rd_kafka_commit(loop.native(), nullptr, 0);
    EXPECT_EQ(topic.committed(), 4);
}

TEST(KafkaOwnLoop, a_position_is_there_where_the_user_names_the_partition) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(1);
    OwnLoop loop(topic);
    const auto record = loop.next();
    ASSERT_TRUE(record);
    const std::string partition = "cluster/" + topic.name + "/0";
    const auto identity = KafkaMessage(*record, partition, 5).identity();
    ASSERT_TRUE(identity.position.has_value());
    EXPECT_EQ(identity.position->partition, partition);
    EXPECT_EQ(identity.position->offset, 0U);
    EXPECT_EQ(identity.position->epoch, 5U);
}

TEST(KafkaOwnLoop, r7_2_a_retry_comes_again_after_the_delay_while_another_partition_goes_on) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(2, 0);
    OwnLoop loop(topic);
    KafkaSettler settler(loop.native(), settler_options(topic));
    const Linked linked(loop, settler);
    const auto first = loop.next(), second = loop.next();
    ASSERT_TRUE(first && second);
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(settler.settle(KafkaMessage(*first), retry_after(500ms)), Settled::yes);
    // What was taken behind it comes again too, so that order holds.
    EXPECT_EQ(settler.settle(KafkaMessage(*second), settlement(Action::ack)), Settled::lost);
    topic.write(1, 1, 2);
    const auto other = loop.next();
    ASSERT_TRUE(other);
    EXPECT_EQ(other->partition, 1);
    EXPECT_EQ(settler.settle(KafkaMessage(*other), settlement(Action::ack)), Settled::yes);
    for (std::int64_t offset = 0; offset < 2; ++offset) {
        const auto again = loop.next();
        ASSERT_TRUE(again);
        EXPECT_EQ(again->partition, 0);
        EXPECT_EQ(again->offset, offset);
        EXPECT_EQ(settler.settle(KafkaMessage(*again), settlement(Action::ack)), Settled::yes);
    }
    EXPECT_GE(std::chrono::steady_clock::now() - began, 500ms);
    rd_kafka_commit(loop.native(), nullptr, 0);
    EXPECT_EQ(topic.committed(0), 2);
    EXPECT_EQ(topic.committed(1), 1);
}

TEST(KafkaOwnLoop, r7_3_a_dead_letter_is_written_before_its_offset_is_stored) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(1);
    OwnLoop loop(topic);
    KafkaSettler settler(loop.native(), settler_options(topic));
    const auto record = loop.next();
    ASSERT_TRUE(record);
    const Settlement letter{Action::dead_letter, 0ms, reason::dead, "enough", 5};
    EXPECT_EQ(settler.settle(KafkaMessage(*record), letter), Settled::yes);
    const auto dead = topic.dead();
    ASSERT_EQ(dead.size(), 1U);
    EXPECT_EQ(dead[0].header(header::reason), reason::dead);
    EXPECT_EQ(dead[0].header(header::attempts), "5");
    EXPECT_EQ(dead[0].header(header::origin), topic.name + "/0/0");
    EXPECT_EQ(topic.committed(), -1);
    rd_kafka_commit(loop.native(), nullptr, 0);
    EXPECT_EQ(topic.committed(), 1);
}

TEST(KafkaOwnLoop, what_is_not_assigned_any_more_is_lost) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(1);
    OwnLoop loop(topic);
    KafkaSettler settler(loop.native(), settler_options(topic));
    const auto record = loop.next();
    ASSERT_TRUE(record);
    rd_kafka_assign(loop.native(), nullptr);
    EXPECT_EQ(settler.settle(KafkaMessage(*record), settlement(Action::ack)), Settled::lost);
    EXPECT_EQ(settler.settle(KafkaMessage(*record), retry_after(0ms)), Settled::lost);
}

TEST(KafkaOwnLoop, a_consumer_that_stores_offsets_by_itself_is_refused) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    OwnLoop loop(topic, "true");
    EXPECT_THROW(KafkaSettler(loop.native()), std::invalid_argument);
}

} // namespace
} // namespace idem::kafka_tests
