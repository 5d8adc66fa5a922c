// SPDX-License-Identifier: MIT
// RedisStreamSource: what it gives, and what the server shows after each settlement.
#include "redis_group.hpp"

namespace idem::broker_tests {
namespace {

class RedisStream : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RedisServer::missing()); }
};

std::string refusal(RedisStreamOptions options) {
    try {
        RedisStreamSource source("localhost", std::move(options));
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing";
}

TEST(RedisStreamOptions, what_cannot_be_is_refused_with_the_field) {
    const RedisStreamOptions good{.stream = "s", .group = "g", .consumer = "c"};
    auto with = [&](auto change) {
        auto options = good;
        change(options);
        return refusal(options);
    };
    EXPECT_EQ(refusal(good), "nothing");
    EXPECT_NE(with([](auto& o) { o.stream.clear(); }).find(".stream"), std::string::npos);
    EXPECT_NE(with([](auto& o) { o.group.clear(); }).find(".group"), std::string::npos);
    EXPECT_NE(with([](auto& o) { o.consumer.clear(); }).find(".consumer"), std::string::npos);
    EXPECT_NE(with([](auto& o) { o.dead_stream = "s"; }).find(".dead_stream"), std::string::npos);
    EXPECT_NE(with([](auto& o) { o.count = 0; }).find(".count"), std::string::npos);
    EXPECT_NE(with([](auto& o) { o.claim_idle = 1ms; }).find(".claim_idle"), std::string::npos);
    EXPECT_NE(with([](auto& o) { o.deadline = 0ms; }).find(".deadline"), std::string::npos);
    EXPECT_THROW(RedisStreamSource("ftp://localhost", good), std::invalid_argument);
}

TEST_F(RedisStream, makes_the_group_at_first_use_and_gives_what_was_there_before) {
    Group group;
    RedisStreamSource source(group.address, group.options("c1"));
    EXPECT_EQ(group.redis.number({"EXISTS", group.stream}), 0);
    EXPECT_TRUE(source.receive(0ms).empty());
    EXPECT_EQ(group.redis.number({"EXISTS", group.stream}), 1);

    Group other;
    const auto id = other.add({"message-id", "m1", "payload", "hello"});
    RedisStreamSource late(other.address, other.options("c1"));
    const auto received = late.receive(0ms);
    ASSERT_EQ(received.size(), 1U);
    EXPECT_EQ(received[0].entry_id(), id);
    EXPECT_EQ(received[0].payload(), "hello");
    EXPECT_FALSE(received[0].redelivered());
}

TEST_F(RedisStream, r5_1_a_delivery_knows_its_identity) {
    Group group;
    const std::string bytes("any \0 bytes \xff\r\n", 15);
    const auto first = group.add({"idempotency-key",
                                  "k1",
                                  "message-id",
                                  "m1",
                                  "payload",
                                  bytes,
                                  "idem-created",
                                  "1700000000123",
                                  bytes,
                                  "named by bytes"});
    group.add({"payload", "x", "message-id", "m2", "idem-created", "yesterday"});
    group.add({"payload", "x", "id", "an entity"});
    RedisStreamSource source(group.address, group.options("c1"));
    const auto received = source.receive(0ms);
    ASSERT_EQ(received.size(), 3U);
    const auto identity = received[0].identity();
    EXPECT_EQ(identity.id.view(), "k1");
    EXPECT_EQ(identity.fingerprint, fingerprint_of(bytes));
    EXPECT_EQ(identity.created, Timestamp(1700000000123ms));
    EXPECT_FALSE(identity.redelivered);
    EXPECT_EQ(received[0].payload(), bytes);
    EXPECT_EQ(received[0].header(bytes), "named by bytes");
    EXPECT_EQ(received[0].header("absent"), std::nullopt);
    EXPECT_EQ(received[0].position(), group.stream + "/" + first);
    EXPECT_EQ(received[1].identity().id.view(), "m2");
    EXPECT_EQ(received[1].identity().created, std::nullopt);
    EXPECT_EQ(received[2].identity().id.view(), "") << "an entity's id is no message's id";
    EXPECT_EQ(DeliveryPosition{}(received[2]).id.view(), received[2].position());
}

TEST_F(RedisStream, takes_no_more_than_it_is_asked_for) {
    Group group;
    group.add_numbered(10);
    auto options = group.options("c1");
    options.count = 4;
    RedisStreamSource source(group.address, options);
    EXPECT_EQ(source.receive(0ms, 3).size(), 3U);
    EXPECT_TRUE(source.receive(0ms, 0).empty());
    EXPECT_EQ(source.receive(0ms, 100).size(), 4U);
    EXPECT_EQ(group.pending().size(), 7U);
}

TEST_F(RedisStream, r7_an_ack_leaves_nothing_pending) {
    Group group;
    group.add_numbered(3);
    RedisStreamSource source(group.address, group.options("c1"));
    auto received = source.receive(0ms);
    ASSERT_EQ(received.size(), 3U);
    EXPECT_EQ(source.settle(received[0], settlement(Action::ack)), Settled::yes);
    EXPECT_EQ(group.pending().size(), 2U);
    RedisStreamDelivery* const rest[] = {&received[1], &received[0], &received[2]};
    EXPECT_EQ(source.acknowledge(rest),
              (std::vector<Settled>{Settled::yes, Settled::lost, Settled::yes}));
    EXPECT_TRUE(group.pending().empty());
    EXPECT_EQ(group.length(group.stream), 3);
    EXPECT_EQ(group.length(source.dead_stream()), 0);
}

TEST_F(RedisStream, r9_14_a_second_settlement_is_lost) {
    Group group;
    group.add_numbered(1);
    RedisStreamSource source(group.address, group.options("c1"));
    auto received = source.receive(0ms);
    EXPECT_EQ(source.settle(received[0], settlement(Action::ack)), Settled::yes);
    EXPECT_EQ(source.settle(received[0], settlement(Action::dead_letter)), Settled::lost);
    EXPECT_EQ(source.settle(received[0], settlement(Action::retry)), Settled::lost);
    EXPECT_FALSE(source.extend(received[0], 1s));
    EXPECT_TRUE(group.dead().empty());
}

TEST_F(RedisStream, r7_a_retry_stays_pending_and_anybody_may_take_it_after_the_delay) {
    Group group;
    const auto id = group.add_numbered(1)[0];
    RedisStreamSource source(group.address, group.options("c1"));
    auto received = source.receive(0ms);
    auto later = settlement(Action::retry);
    later.delay = 10s;
    EXPECT_EQ(source.settle(received[0], later), Settled::yes);
    auto pending = group.pending();
    ASSERT_EQ(pending.size(), 1U);
    EXPECT_EQ(pending[0].count, 1) << "JUSTID raises no count";
    EXPECT_GE(pending[0].idle, 50'000); // of 60 s
    EXPECT_LT(pending[0].idle, 60'000);

    RedisStreamSource second(group.address, group.options("c2"));
    EXPECT_TRUE(second.receive(0ms).empty());

    Group other;
    other.add_numbered(1);
    RedisStreamSource third(other.address, other.options("c1"));
    received = third.receive(0ms);
    EXPECT_EQ(third.settle(received[0], settlement(Action::retry)), Settled::yes);
    RedisStreamSource fourth(other.address, other.options("c2"));
    const auto again = fourth.receive(0ms);
    ASSERT_EQ(again.size(), 1U);
    EXPECT_TRUE(again[0].redelivered());
    EXPECT_TRUE(again[0].identity().redelivered);
    EXPECT_EQ(again[0].count(), 2U);
    EXPECT_EQ(other.pending()[0].consumer, "c2");
    EXPECT_EQ(other.pending()[0].count, 2);
}

TEST_F(RedisStream, r7_3_a_dead_letter_has_all_fields_and_the_reason) {
    Group group;
    const auto id = group.add({"message-id",
                               "m1",
                               "payload",
                               "body",
                               "idem-created",
                               "17",
                               "idem-reason",
                               "an earlier death"});
    RedisStreamSource source(group.address, group.options("c1"));
    auto received = source.receive(0ms);
    Settlement dead{Action::dead_letter, 0ms, reason::dead, "it always throws", 7};
    EXPECT_EQ(source.settle(received[0], dead), Settled::yes);
    EXPECT_EQ(group.dead(),
              (std::vector<Fields>{{{"message-id", "m1"},
                                    {"payload", "body"},
                                    {"idem-created", "17"},
                                    {"idem-reason", "attempts used up"},
                                    {"idem-detail", "it always throws"},
                                    {"idem-attempts", "7"},
                                    {"idem-origin", id}}}));
    EXPECT_TRUE(group.pending().empty());
    EXPECT_EQ(group.length(group.stream), 1);
}

TEST_F(RedisStream, a_dead_letter_may_have_more_fields_than_a_script_can_pass_on) {
    Group group;
    std::vector<std::string> names;
    names.reserve(5'000);
    for (int i = 0; i < 5'000; ++i) {
        names.push_back("field " + std::to_string(i));
    }
    std::vector<std::string_view> words{"XADD", group.stream, "*", "payload", "x"};
    for (const auto& name : names) {
        words.insert(words.end(), {name, "value"});
    }
    group.add_words(words);
    RedisStreamSource source(group.address, group.options("c1"));
    auto received = source.receive(0ms);
    ASSERT_EQ(received.size(), 1U);
    EXPECT_EQ(source.settle(received[0], settlement(Action::dead_letter, reason::conflict)),
              Settled::yes);
    ASSERT_EQ(group.dead().size(), 1U);
    EXPECT_EQ(group.dead()[0].size(), 5'005U);
    EXPECT_TRUE(group.pending().empty());
}

TEST_F(RedisStream, a_missing_or_empty_payload_is_a_defect_that_names_the_field) {
    Group group;
    group.add({"message-id", "m1", "body", "x"});
    group.add({"message-id", "m2", "payload", ""});
    group.add({"message-id", "m3", "payload", "x"});
    RedisStreamSource source(group.address, group.options("c1"));
    const auto received = source.receive(0ms);
    ASSERT_EQ(received.size(), 3U);
    const auto missing = received[0].defect(), empty = received[1].defect();
    ASSERT_TRUE(missing && empty);
    EXPECT_EQ(missing->action, Action::dead_letter);
    EXPECT_EQ(missing->reason, reason::undecodable);
    EXPECT_NE(missing->detail.find("no field payload"), std::string::npos);
    EXPECT_NE(empty->detail.find("empty field payload"), std::string::npos);
    EXPECT_FALSE(received[2].defect());

    Group other;
    other.add({"message-id", "m1", "body", "x"});
    auto options = other.options("c1");
    options.payload_field = "body";
    RedisStreamSource named(other.address, options);
    EXPECT_EQ(named.receive(0ms)[0].payload(), "x");
    options.consumer = "c2";
    options.payload_field = "";
    other.add({"message-id", "m2"});
    RedisStreamSource without(other.address, options);
    const auto whole = without.receive(0ms);
    ASSERT_EQ(whole.size(), 1U);
    EXPECT_FALSE(whole[0].defect());
    EXPECT_EQ(whole[0].identity().fingerprint.algorithm, 0U);
}

TEST_F(RedisStream, a_consumer_that_starts_again_gets_its_own_pending_entries_first) {
    Group group;
    const auto ids = group.add_numbered(5);
    {
        RedisStreamSource before(group.address, group.options("c1"));
        auto received = before.receive(0ms, 3);
        ASSERT_EQ(received.size(), 3U);
        EXPECT_EQ(before.settle(received[1], settlement(Action::ack)), Settled::yes);
    }
    auto options = group.options("c1");
    options.count = 1; // page by page
    RedisStreamSource after(group.address, options);
    std::vector<std::string> seen;
    std::vector<bool> redelivered;
    for (int i = 0; i < 4; ++i) {
        for (const auto& delivery : after.receive(0ms)) {
            seen.push_back(delivery.entry_id());
            redelivered.push_back(delivery.redelivered());
        }
    }
    EXPECT_EQ(seen, (std::vector<std::string>{ids[0], ids[2], ids[3], ids[4]}));
    EXPECT_EQ(redelivered, (std::vector<bool>{true, true, false, false}));
}

} // namespace
} // namespace idem::broker_tests
