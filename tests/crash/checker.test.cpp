// SPDX-License-Identifier: MIT
// That the checker of the crash tests finds each kind of wrong.

#include "crash/checker.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace {

using namespace idem::crash_test;

const std::string undecodable(idem::reason::undecodable), conflict(idem::reason::conflict);
const std::vector<Entry> sent{{"pay-1", "101"},
                              {"pay-1", "101"},
                              {"pay-1", "999"},
                              {"pay-2", "202 flaky"},
                              {"x", "many", undecodable}};

Evidence all_well() {
    return {.effects = {{"pay-1", 101}, {"pay-2", 202}},
            .sum = 303,
            .recorded = {"pay-1", "pay-2"},
            .dead = {{"pay-1", "999", conflict}, {"x", "many", undecodable}},
            .acked = {"pay-1", "pay-1", "pay-2"}};
}

TEST(CrashChecker, finds_nothing_where_all_is_well) {
    EXPECT_TRUE(judge(sent, all_well()).clean()) << judge(sent, all_well()).text();
}
TEST(CrashChecker, lets_either_payload_of_a_conflict_win) {
    auto seen = all_well();
    seen.effects[0].cents = 999;
    seen.sum = 999 + 202;
    seen.dead[0].payload = "101"; // of both entries
    seen.dead.push_back(seen.dead[0]);
    EXPECT_TRUE(judge(sent, seen).clean()) << judge(sent, seen).text();
    seen.dead.pop_back();
    EXPECT_EQ(judge(sent, seen).dead_lost, 1U);
}
TEST(CrashChecker, i1_finds_an_effect_too_many) {
    auto seen = all_well();
    seen.effects.push_back({"pay-2", 202});
    EXPECT_EQ(judge(sent, seen).doubled, 1U);
    EXPECT_EQ(judge(sent, seen).most, 2U);
    EXPECT_FALSE(judge(sent, seen).sound());
}
TEST(CrashChecker, i1_finds_an_effect_of_another_payload_and_one_of_nobody) {
    for (const Effect& effect : {Effect{"pay-2", 203}, Effect{"pay-9", 1}, Effect{"x", 1}}) {
        auto seen = all_well();
        seen.effects.push_back(effect);
        EXPECT_EQ(judge(sent, seen).foreign, 1U) << effect.id;
        EXPECT_FALSE(judge(sent, seen).sound());
    }
}
TEST(CrashChecker, i2_finds_a_message_without_effect) {
    auto seen = all_well();
    seen.effects.pop_back();
    EXPECT_EQ(judge(sent, seen).lost, 1U);
    EXPECT_FALSE(judge(sent, seen).clean());
}
TEST(CrashChecker, i2_finds_a_dead_letter_that_is_missing_twice_there_or_has_another_reason) {
    auto missing = all_well();
    missing.dead.erase(missing.dead.begin());
    EXPECT_EQ(judge(sent, missing).dead_lost, 1U);
    EXPECT_FALSE(judge(sent, missing).clean());
    auto twice = all_well();
    twice.dead.push_back(twice.dead[1]);
    EXPECT_EQ(judge(sent, twice).dead_doubled, 1U);
    EXPECT_FALSE(judge(sent, twice).sound());
    auto other = all_well();
    other.dead[1].reason = "for fun";
    EXPECT_EQ(judge(sent, other).dead_foreign, 1U);
    EXPECT_EQ(judge(sent, other).dead_lost, 1U);
    EXPECT_FALSE(judge(sent, other).sound());
}
TEST(CrashChecker, i1_i3_finds_effect_and_record_apart_and_an_ack_without_a_record) {
    auto seen = all_well();
    seen.recorded.erase("pay-2");
    EXPECT_EQ(judge(sent, seen).torn, 1U);
    EXPECT_EQ(judge(sent, seen).early_acks, 1U);
    EXPECT_FALSE(judge(sent, seen).sound());
    seen.effects.pop_back();
    EXPECT_EQ(judge(sent, seen).torn, 0U);
    seen.recorded.insert("pay-2");
    EXPECT_EQ(judge(sent, seen).torn, 1U);
}
TEST(CrashChecker, finds_what_is_not_settled_and_a_sum_that_is_off) {
    auto pending = all_well();
    pending.unsettled = 1;
    EXPECT_FALSE(judge(sent, pending).clean());
    auto off = all_well();
    off.sum += 5;
    EXPECT_EQ(judge(sent, off).sum_off, 5);
    EXPECT_FALSE(judge(sent, off).clean());
}

} // namespace
