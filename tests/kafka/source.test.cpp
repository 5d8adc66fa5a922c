// SPDX-License-Identifier: MIT
// KafkaSource: what it gives, what it refuses, and where it starts.
#include <algorithm>
#include <set>

#include "kafka_test.hpp"

namespace idem::kafka_tests {
namespace {

TEST(KafkaSource, gives_every_message_of_every_partition_in_its_order) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(3);
    for (std::int32_t partition = 0; partition < 3; ++partition) {
        topic.write(200, partition, 200 * partition);
    }
    KafkaSource source(topic.options());
    const auto all = receive(source, 600);
    ASSERT_EQ(all.size(), 600U);
    std::set<std::string> texts;
    std::int64_t next[3] = {};
    for (const auto& delivery : all) {
        EXPECT_EQ(delivery.offset(), next[delivery.partition()]++);
        EXPECT_EQ(delivery.topic(), topic.name);
        EXPECT_EQ(delivery.key(), "key");
        texts.insert(text(delivery));
    }
    EXPECT_EQ(texts.size(), 600U);
}

TEST(KafkaSource, serves_the_group_and_takes_nothing_when_asked_for_none) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(10);
    KafkaSource source(topic.options());
    auto first = receive(source, 1);
    ASSERT_EQ(first.size(), 1U);
    for (int i = 0; i < 50; ++i) {
        EXPECT_TRUE(source.receive(1ms, 0).empty());
    }
    const auto rest = receive(source, 9);
    ASSERT_EQ(rest.size(), 9U);
    EXPECT_EQ(rest[0].offset(), 1);
}

TEST(KafkaSource, gives_each_partition_a_share_of_what_it_is_asked_for) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(500, 0);
    topic.write(500, 1, 500);
    KafkaSource source(topic.options());
    const auto one = receive(source, 1);
    ASSERT_EQ(one.size(), 1U);
    source.pause(source.lane(one[0]));
    const auto other = receive(source, 1);
    ASSERT_EQ(other.size(), 1U);
    ASSERT_NE(one[0].partition(), other[0].partition());
    source.resume(source.lane(one[0])); // both have more here
    const auto some = source.receive(1s, 100);
    ASSERT_EQ(some.size(), 100U);
    const auto of_first = std::count_if(
        some.begin(), some.end(), [](const auto& each) { return each.partition() == 0; });
    EXPECT_EQ(of_first, 50);
}

TEST(KafkaSource, r3_3_the_first_of_an_assignment_may_have_been_given_before) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(30);
    auto options = topic.options();
    options.commit_count = 10;
    KafkaSource source(options);
    auto all = receive(source, 30);
    ASSERT_EQ(all.size(), 30U);
    for (std::size_t i = 0; i < all.size(); ++i) {
        EXPECT_EQ(all[i].redelivered(), i < 20) << i;
        EXPECT_EQ(all[i].identity().redelivered, i < 20) << i;
    }
}

TEST(KafkaSource, wakes_for_a_message_before_the_time_is_over) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(1);
    KafkaSource source(topic.options());
    ASSERT_EQ(receive(source, 1).size(), 1U);
    topic.write(1, 0, 1);
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(source.receive(60s, 10).size(), 1U);
    EXPECT_LT(std::chrono::steady_clock::now() - began, 30s);
}

TEST(KafkaSource, starts_at_the_end_and_does_not_begin_later_after_a_restart) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(5);
    auto options = topic.options();
    options.start = KafkaStart::latest;
    {
        KafkaSource source(options);
        std::vector<KafkaDelivery> received;
        for (int i = 5; received.empty() && i < 10'000; ++i) { // once it is there it gets them
            topic.write(1, 0, i);
            received = source.receive(10ms);
        }
        ASSERT_FALSE(received.empty());
        EXPECT_GE(received[0].offset(), 5);
        topic.write(1, 0, 77'777);
        const auto first = received[0].offset();
        ASSERT_TRUE(serve_until({&source}, [&] { return topic.committed() == first; }));
    }
    KafkaSource again(options);
    EXPECT_EQ(receive(again, 1)[0].offset(), topic.committed());
}

TEST(KafkaSource, refuses_to_choose_a_start_where_it_is_told_so) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(1);
    auto options = topic.options();
    options.start = KafkaStart::refuse;
    KafkaSource source(options);
    try {
        receive(source, 1);
        FAIL() << "it chose one";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::rejected) << error.what();
    }
}

TEST(KafkaSource, an_unknown_topic_is_rejected_by_name) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    auto options = topic.options();
    options.topics = {"nobody-made-this"};
    options.deadline = 500ms;
    KafkaSource source(options);
    try {
        receive(source, 1);
        FAIL() << "it is there";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::rejected);
        EXPECT_NE(std::string(error.what()).find("nobody-made-this"), std::string::npos);
    }
}

TEST(KafkaSource, a_broker_that_is_not_there_is_unavailable) {
    auto settings = testing_support::kafka_client_settings();
    KafkaSource source({.servers = "127.0.0.1:1",
                        .group = "billing",
                        .topics = {"orders"},
                        .settings = std::move(settings)});
    const auto until = std::chrono::steady_clock::now() + patience;
    bool told = false;
    while (!told && std::chrono::steady_clock::now() < until) {
        try {
            EXPECT_TRUE(source.receive(50ms).empty());
        } catch (const StoreError& error) {
            EXPECT_EQ(error.fault(), Fault::unavailable) << error.what();
            told = true;
        }
    }
    EXPECT_TRUE(told);
}

std::string refusal_of(const KafkaOptions& options) {
    try {
        const KafkaSource source(options);
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return {};
}

TEST(KafkaOptions, what_is_wrong_is_refused_by_name) {
    const KafkaOptions good{.servers = "127.0.0.1:1", .group = "g", .topics = {"t"}};
    EXPECT_EQ(refusal_of(good), "");
    const auto with = [&](auto change) {
        auto options = good;
        change(options);
        return refusal_of(options);
    };
    const auto names = [](const std::string& refusal, const std::string& name) {
        return refusal.find(name) != std::string::npos;
    };
    EXPECT_TRUE(names(with([](auto& options) { options.servers = ""; }), "servers"));
    EXPECT_TRUE(names(with([](auto& options) { options.group = ""; }), "group"));
    EXPECT_TRUE(names(with([](auto& options) { options.topics = {}; }), "topics"));
    EXPECT_TRUE(names(with([](auto& options) { options.topics = {""}; }), "topics"));
    EXPECT_TRUE(names(with([](auto& options) { options.dead_letter_topic = "t"; }), "dead_letter"));
    EXPECT_TRUE(names(with([](auto& options) {
                          options.topics = {"t", "u", "t"};
                      }),
                      "topics has t twice"));
    EXPECT_TRUE(names(with([](auto& options) { options.topics = {"^t("}; }), "^t("));
    EXPECT_EQ(with([](auto& options) { options.topics = {"^t{1,2}$", "u"}; }), "");
    // A pattern leaves out dead letters, here even those that are asked for.
    EXPECT_TRUE(names(with([](auto& options) { options.topics = {"^t.*", "u.dead"}; }), "u.dead"));
    EXPECT_EQ(with([](auto& options) {
                  options.topics = {"^t.*", "u.dead"};
                  options.dead_letter_topic = "graves";
              }),
              "");
    EXPECT_TRUE(names(with([](auto& options) { options.count = 0; }), "count"));
    EXPECT_TRUE(names(with([](auto& options) { options.deadline = 0ms; }), "deadline"));
    for (const std::string name :
         {"enable.auto.commit", "group.id", "auto.offset.reset", "max.poll.interval.ms"}) {
        EXPECT_TRUE(names(with([&](auto& options) { options.settings = {{name, "true"}}; }), name));
    }
    EXPECT_TRUE(names(with([](auto& options) {
                          options.settings = {{"no.such", "1"}};
                      }),
                      "no.such")); // librdkafka's own words
    EXPECT_EQ(with([](auto& options) { options.settings = {{"fetch.wait.max.ms", "20"}}; }), "");
}

TEST(KafkaOptions, r6_3_offsets_kept_in_fence_rows_need_order) {
    struct : OffsetKeeper {
        std::optional<std::uint64_t> next(std::string_view) override { return {}; }
        void passed(const Position&) override {}
    } offsets;
    KafkaOptions options{.servers = "127.0.0.1:1", .group = "g", .topics = {"t"}};
    options.offsets = &offsets;
    EXPECT_EQ(refusal_of(options), "");
    options.ordered = false;
    EXPECT_NE(refusal_of(options).find("ordered"), std::string::npos) << refusal_of(options);
}

TEST(KafkaOptions, settings_that_contradict_each_other_are_refused_at_the_first_receive) {
    KafkaSource source({.servers = "127.0.0.1:1",
                        .group = "g",
                        .topics = {"t"},
                        .max_poll_interval = 1s,
                        .settings = {{"session.timeout.ms", "6000"}}});
    EXPECT_THROW(static_cast<void>(source.receive(0ms)), std::invalid_argument);
}

} // namespace
} // namespace idem::kafka_tests
