// SPDX-License-Identifier: MIT
// What becomes of a dead letter, and of its source.
#include <idem/idem.hpp>

#include <fstream>

#include "kafka_test.hpp"

namespace idem::kafka_tests {
namespace {

TEST(KafkaDeadLetter, r7_3_carries_the_record_and_the_reason_and_is_confirmed_before_the_commit) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.producer.write(
        {.topic = topic.name,
         .key = "order 7",
         .payload = std::string("body\0with a zero", 16),
         .headers = {{"message-id", "m-7"}, {"trace", "a"}, {"trace", "b"}, {"none", {}}}});
    topic.write(1, 0, 1);
    {
        KafkaSource source(topic.options());
        auto all = receive(source, 2);
        ASSERT_EQ(all.size(), 2U);
        Settlement letter{Action::dead_letter, 0ms, reason::unprocessable, "no such order", 3};
        const auto origin = all[0].position();
        EXPECT_EQ(source.settle(all[0], letter), Settled::yes);
        const auto dead = topic.dead(); // it is there before the source commits anything
        ASSERT_EQ(dead.size(), 1U);
        EXPECT_EQ(topic.committed(), -1);
        EXPECT_EQ(dead[0].key, "order 7");
        EXPECT_EQ(dead[0].payload, std::string("body\0with a zero", 16));
        EXPECT_EQ(dead[0].header("message-id"), "m-7");
        EXPECT_EQ(dead[0].header(header::reason), reason::unprocessable);
        EXPECT_EQ(dead[0].header(header::detail), "no such order");
        EXPECT_EQ(dead[0].header(header::attempts), "3");
        EXPECT_EQ(dead[0].header(header::origin), origin);
        std::vector<std::optional<std::string>> traces, nothings;
        for (const auto& [name, value] : dead[0].headers) {
            if (name == "trace") {
                traces.push_back(value);
            } else if (name == "none") {
                nothings.push_back(value);
            }
        }
        EXPECT_EQ(traces, (std::vector<std::optional<std::string>>{"a", "b"}));
        EXPECT_EQ(nothings, (std::vector<std::optional<std::string>>{{}}));
        EXPECT_EQ(source.settle(all[0], letter), Settled::lost);
    }
    EXPECT_EQ(topic.committed(), 1);
    EXPECT_EQ(topic.dead().size(), 1U);
}

TEST(KafkaDeadLetter, one_that_was_sent_back_and_died_again_has_the_last_reason_alone) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.producer.write({.topic = topic.name,
                          .payload = "body",
                          .headers = {{"idem-reason", "old"}, {"idem-origin", "elsewhere"}}});
    KafkaSource source(topic.options());
    auto all = receive(source, 1);
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(source.settle(all[0], settlement(Action::dead_letter, reason::dead)), Settled::yes);
    const auto dead = topic.dead();
    ASSERT_EQ(dead.size(), 1U);
    std::size_t reasons = 0;
    for (const auto& [name, value] : dead[0].headers) {
        reasons += name == "idem-reason" ? 1 : 0;
    }
    EXPECT_EQ(reasons, 1U);
    EXPECT_EQ(dead[0].header(header::reason), reason::dead);
}

TEST(KafkaDeadLetter, a_tombstone_stays_one) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.producer.write({.topic = topic.name, .key = "gone"});
    KafkaSource source(topic.options());
    auto all = receive(source, 1);
    ASSERT_EQ(all.size(), 1U);
    EXPECT_TRUE(all[0].is_tombstone());
    EXPECT_EQ(source.settle(all[0], settlement(Action::dead_letter, reason::dead)), Settled::yes);
    const auto dead = topic.dead();
    ASSERT_EQ(dead.size(), 1U);
    EXPECT_FALSE(dead[0].payload.has_value());
    EXPECT_EQ(dead[0].key, "gone");
}

TEST(KafkaDeadLetter, an_empty_payload_and_no_headers_stay_so_too) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.producer.write({.topic = topic.name, .payload = ""});
    MemoryStore store;
    IdempotentConsumer consumer{store, AtMostOnce{}};
    std::stop_source stop;
    struct StopAtFirst final : Observer {
        explicit StopAtFirst(std::stop_source& stops) : stop(stops) {}
        void on(const Event&) noexcept override {}
        void settled(const Settlement&, Settled) noexcept override { stop.request_stop(); }
        std::stop_source& stop;
    } observer{stop};
    int runs = 0;
    const auto bill = consumer.wrap("billing", delivery_id, [&](const KafkaMessage&) { ++runs; });
    {
        KafkaSource source(topic.options());
        run(source, bill, stop.get_token(), {.observer = &observer});
    }
    EXPECT_EQ(runs, 0); // it has no id
    EXPECT_EQ(topic.committed(), 1);
    const auto dead = topic.dead();
    ASSERT_EQ(dead.size(), 1U);
    EXPECT_EQ(dead[0].payload, "");
    EXPECT_FALSE(dead[0].key.has_value());
    EXPECT_EQ(dead[0].header(header::reason), reason::invalid_key);
}

TEST(KafkaDeadLetter, goes_to_the_topic_that_the_options_name) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(1);
    auto options = topic.options();
    options.dead_letter_topic = topic.name + "-graveyard";
    KafkaSource source(options);
    EXPECT_EQ(source.dead_letter_topic(topic.name), options.dead_letter_topic);
    auto all = receive(source, 1);
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(source.settle(all[0], settlement(Action::dead_letter, reason::dead)), Settled::yes);
    EXPECT_EQ(testing_support::read_topic(topic.server, options.dead_letter_topic).size(), 1U);
    EXPECT_TRUE(topic.dead().empty());
}

TEST(KafkaDeadLetter, too_large_for_its_topic_is_rejected_and_commits_nothing) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.server.create_topic(topic.name + ".dead", 1, {{"max.message.bytes", "200"}});
    topic.producer.write({.topic = topic.name, .payload = std::string(1'000, 'x')});
    {
        KafkaSource source(topic.options());
        auto all = receive(source, 1);
        ASSERT_EQ(all.size(), 1U);
        try {
            static_cast<void>(source.settle(all[0], settlement(Action::dead_letter, reason::dead)));
            FAIL() << "it was written";
        } catch (const StoreError& error) {
            EXPECT_EQ(error.fault(), Fault::rejected) << error.what();
            EXPECT_NE(std::string(error.what()).find(topic.name + ".dead"), std::string::npos);
        }
        EXPECT_TRUE(source.extend(all[0], 1s));
    }
    EXPECT_EQ(topic.committed(), -1);
}

/// Keeps offsets as a fence row does, and fails as often as it is told.
struct Keeper final : OffsetKeeper {
    std::optional<std::uint64_t> next(std::string_view) override { return start; }
    void passed(const Position& position) override {
        if (failures > 0) {
            --failures;
            throw StoreError(Fault::unavailable, "the store is down");
        }
        rows.emplace_back(position.partition, position.offset);
    }
    std::optional<std::uint64_t> start;
    int failures = 0;
    std::vector<std::pair<std::string, std::uint64_t>> rows;
};

TEST(KafkaDeadLetter, r6_3_advances_the_kept_offset_and_is_written_once_while_that_fails) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(3);
    Keeper keeper;
    keeper.failures = 2;
    keeper.start = 1;
    auto options = topic.options();
    options.offsets = &keeper;
    {
        KafkaSource source(options);
        auto all = receive(source, 2);
        ASSERT_EQ(all.size(), 2U);
        EXPECT_EQ(all[0].offset(), 1); // where the keeper said
        const auto letter = settlement(Action::dead_letter, reason::dead);
        EXPECT_THROW(static_cast<void>(source.settle(all[0], letter)), StoreError);
        EXPECT_THROW(static_cast<void>(source.settle(all[0], letter)), StoreError);
        EXPECT_TRUE(keeper.rows.empty());
        EXPECT_EQ(source.settle(all[0], letter), Settled::yes);
        ASSERT_EQ(keeper.rows.size(), 1U);
        EXPECT_EQ(keeper.rows[0].first, all[0].identity().position->partition);
        EXPECT_EQ(keeper.rows[0].second, 1U);
    }
    EXPECT_EQ(topic.dead().size(), 1U);
    EXPECT_EQ(topic.committed(), 2);
}

TEST(KafkaDeadLetter, r6_3_a_kept_offset_past_the_end_is_rejected) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(3);
    Keeper keeper;
    keeper.start = 4;
    auto options = topic.options();
    options.offsets = &keeper;
    KafkaSource source(options);
    try {
        receive(source, 1);
        FAIL() << "it started";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::rejected) << error.what();
        EXPECT_NE(std::string(error.what()).find("topic_epoch"), std::string::npos);
    }
    keeper.start = 3; // it goes on when somebody has mended it
    topic.write(1, 0, 3);
    const auto rest = receive(source, 1);
    ASSERT_EQ(rest.size(), 1U);
    EXPECT_EQ(rest[0].offset(), 3);
}

TEST(KafkaDeadLetter, through_run_each_has_its_reason_and_the_rest_is_handled) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(20);
    topic.producer.write({.topic = topic.name, .payload = "nameless"});
    std::stop_source stop;
    MemoryStore store;
    std::atomic<int> handled{0};
    IdempotentConsumer consumer{store, DistributedLock{}};
    const auto bill = consumer.wrap("billing", delivery_id, [&](const KafkaMessage& message) {
        if (message.offset() % 5 == 3) {
            throw Unprocessable("offset " + std::to_string(message.offset()));
        }
        ++handled;
    });
    struct Watching final : Observer {
        void on(const Event&) noexcept override {}
        void settled(const Settlement&, Settled how) noexcept override {
            if (how == Settled::yes && ++count == 21) {
                stop->request_stop();
            }
        }
        std::stop_source* stop = nullptr;
        int count = 0;
    } watching;
    watching.stop = &stop;
    {
        KafkaSource source(topic.options());
        run(source, bill, stop.get_token(), {.observer = &watching});
    }
    EXPECT_EQ(handled, 16);
    EXPECT_EQ(topic.committed(), 21);
    const auto dead = topic.dead();
    ASSERT_EQ(dead.size(), 5U);
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(dead[i].header(header::reason), reason::unprocessable);
        EXPECT_EQ(dead[i].header(header::detail), "offset " + std::to_string(5 * i + 3));
    }
    EXPECT_EQ(dead[4].header(header::reason), reason::invalid_key);
}

} // namespace
} // namespace idem::kafka_tests
