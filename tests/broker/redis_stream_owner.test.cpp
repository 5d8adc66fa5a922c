// SPDX-License-Identifier: MIT
// Who owns an entry of a Redis stream, and what becomes of one that was trimmed.
#include "redis_group.hpp"

namespace idem::broker_tests {
namespace {

class RedisStreamOwner : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RedisServer::missing()); }

    [[nodiscard]] static RedisStreamOptions quick(const Group& group, const std::string& consumer) {
        auto options = group.options(consumer);
        options.claim_idle = 200ms;
        return options;
    }
};

TEST_F(RedisStreamOwner, what_nobody_keeps_alive_is_taken_over) {
    Group group;
    const auto ids = group.add_numbered(3);
    RedisStreamSource silent(group.address, quick(group, "silent"));
    ASSERT_EQ(silent.receive(0ms).size(), 3U);
    RedisStreamSource heir(group.address, quick(group, "heir"));
    std::vector<std::string> taken;
    while (taken.size() < 3) {
        const auto received = receive_some(heir);
        ASSERT_FALSE(received.empty());
        for (const auto& delivery : received) {
            taken.push_back(delivery.entry_id());
            EXPECT_EQ(delivery.count(), 2U);
            EXPECT_FALSE(delivery.payload().empty());
        }
    }
    EXPECT_EQ(taken, ids);
    for (const auto& entry : group.pending()) {
        EXPECT_EQ(entry.consumer, "heir");
        EXPECT_EQ(entry.count, 2);
    }
}

TEST_F(RedisStreamOwner, what_is_extended_is_not_taken_over) {
    Group group;
    group.add_numbered(1);
    auto options = group.options("owner");
    RedisStreamSource owner(group.address, options);
    auto received = owner.receive(0ms);
    // As idle as if nobody had looked after it for long: an extension starts anew.
    group.redis.run({"XCLAIM",
                     group.stream,
                     group.group,
                     "owner",
                     "0",
                     received[0].entry_id(),
                     "IDLE",
                     "100000",
                     "JUSTID"});
    EXPECT_TRUE(owner.extend(received[0], 60s));
    EXPECT_LT(group.pending()[0].idle, 100'000);
    EXPECT_EQ(group.pending()[0].count, 1) << "JUSTID raises no count";
    options.consumer = "heir";
    RedisStreamSource heir(group.address, options);
    EXPECT_TRUE(heir.receive(0ms).empty());
    EXPECT_EQ(owner.settle(received[0], settlement(Action::ack)), Settled::yes);
}

TEST_F(RedisStreamOwner, r7_4_an_old_owner_changes_nothing) {
    Group group;
    const auto id = group.add_numbered(1)[0];
    RedisStreamSource old_owner(group.address, quick(group, "old"));
    auto held = old_owner.receive(0ms);
    ASSERT_EQ(held.size(), 1U);
    RedisStreamSource heir(group.address, quick(group, "heir"));
    auto taken = receive_some(heir);
    ASSERT_EQ(taken.size(), 1U);

    EXPECT_FALSE(old_owner.extend(held[0], 1s));
    EXPECT_EQ(group.pending()[0].consumer, "heir");
    // Each of the others from a source that does not know yet that it lost the entry.
    for (const auto action : {Action::ack, Action::retry, Action::dead_letter}) {
        group.redis.run({"XCLAIM", group.stream, group.group, "old", "0", id, "JUSTID"});
        RedisStreamSource again(group.address, quick(group, "old"));
        auto own = again.receive(0ms);
        ASSERT_EQ(own.size(), 1U);
        group.redis.run({"XCLAIM", group.stream, group.group, "heir", "0", id, "JUSTID"});
        EXPECT_EQ(again.settle(own[0], settlement(action, reason::dead)), Settled::lost);
        ASSERT_EQ(group.pending().size(), 1U);
        EXPECT_EQ(group.pending()[0].consumer, "heir");
    }
    EXPECT_TRUE(group.dead().empty());
    EXPECT_EQ(heir.settle(taken[0], settlement(Action::ack)), Settled::yes);

    // The mutant: a bare XCLAIM JUSTID does steal it, so the checks above can fail.
    group.add_numbered(1);
    auto mine = receive_some(heir);
    ASSERT_EQ(mine.size(), 1U);
    group.redis.run(
        {"XCLAIM", group.stream, group.group, "old", "0", mine[0].entry_id(), "JUSTID"});
    EXPECT_EQ(group.pending()[0].consumer, "old");
}

TEST_F(RedisStreamOwner, r9_14_a_delivery_that_was_given_anew_is_settled_by_the_new_one) {
    Group group;
    group.add_numbered(1);
    RedisStreamSource source(group.address, quick(group, "c1"));
    auto first = source.receive(0ms);
    auto second = receive_some(source); // forgotten here, so taken over from itself
    ASSERT_EQ(second.size(), 1U);
    EXPECT_EQ(first[0].entry_id(), second[0].entry_id());
    EXPECT_EQ(source.settle(first[0], settlement(Action::ack)), Settled::lost);
    EXPECT_FALSE(source.extend(first[0], 1s));
    EXPECT_EQ(group.pending().size(), 1U);
    EXPECT_EQ(source.settle(second[0], settlement(Action::ack)), Settled::yes);
    EXPECT_TRUE(group.pending().empty());
}

TEST_F(RedisStreamOwner, r7_4_what_was_trimmed_while_another_had_it_is_dead_lettered_by_id) {
    Group group;
    const auto ids = group.add_numbered(2);
    RedisStreamSource silent(group.address, quick(group, "silent"));
    ASSERT_EQ(silent.receive(0ms).size(), 2U);
    group.redis.run({"XDEL", group.stream, ids[0]});
    RedisStreamSource heir(group.address, quick(group, "heir"));
    auto received = receive_some(heir);
    while (received.size() < 2) {
        for (auto& delivery : receive_some(heir)) {
            received.push_back(std::move(delivery));
        }
    }
    ASSERT_EQ(received[0].entry_id(), ids[0]);
    ASSERT_TRUE(received[0].defect());
    EXPECT_EQ(received[0].defect()->reason, reason::trimmed);
    EXPECT_FALSE(received[1].defect());
    // In one step with the take-over: a crash here loses nothing.
    const std::vector<Fields> letters{
        {{"idem-reason", "trimmed before it was handled"}, {"idem-origin", ids[0]}}};
    EXPECT_EQ(group.dead(), letters);
    ASSERT_EQ(group.pending().size(), 1U);
    EXPECT_EQ(group.pending()[0].id, ids[1]);
    EXPECT_EQ(heir.settle(received[0], *received[0].defect()), Settled::yes);
    EXPECT_EQ(group.dead(), letters) << "written once";
}

TEST_F(RedisStreamOwner, r7_4_what_was_trimmed_while_we_were_down_is_dead_lettered_by_id) {
    Group group;
    const auto id = group.add_numbered(1)[0];
    {
        RedisStreamSource before(group.address, group.options("c1"));
        ASSERT_EQ(before.receive(0ms).size(), 1U);
    }
    group.redis.run({"XTRIM", group.stream, "MAXLEN", "0"});
    RedisStreamSource after(group.address, group.options("c1"));
    auto received = after.receive(0ms);
    ASSERT_EQ(received.size(), 1U);
    ASSERT_TRUE(received[0].defect());
    EXPECT_EQ(after.settle(received[0], *received[0].defect()), Settled::yes);
    const auto letters = group.dead();
    ASSERT_EQ(letters.size(), 1U);
    EXPECT_EQ(letters[0].at("idem-reason"), reason::trimmed);
    EXPECT_EQ(letters[0].at("idem-origin"), id);
    EXPECT_TRUE(group.pending().empty());
}

TEST_F(RedisStreamOwner, r7_4_extending_what_was_trimmed_does_not_make_it_vanish) {
    Group group;
    const auto id = group.add_numbered(1)[0];
    RedisStreamSource source(group.address, group.options("c1"));
    auto received = source.receive(0ms);
    group.redis.run({"XDEL", group.stream, id});
    EXPECT_TRUE(source.extend(received[0], 1s));
    EXPECT_EQ(group.pending().size(), 1U);
    EXPECT_EQ(source.settle(received[0], settlement(Action::dead_letter, reason::dead)),
              Settled::yes);
    EXPECT_EQ(group.dead()[0].at("payload"), "body 0") << "we still had its fields";
    // The mutant, which the script does not do:
    group.add_numbered(1);
    auto other = source.receive(0ms);
    group.redis.run({"XDEL", group.stream, other[0].entry_id()});
    group.redis.run(
        {"XCLAIM", group.stream, group.group, "c1", "0", other[0].entry_id(), "JUSTID"});
    EXPECT_TRUE(group.pending().empty()) << "a bare XCLAIM drops it";
}

} // namespace
} // namespace idem::broker_tests
