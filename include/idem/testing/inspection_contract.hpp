// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_INSPECTION_CONTRACT_HPP
#define IDEM_TESTING_INSPECTION_CONTRACT_HPP

// The laws of inspectable_store.hpp: what an operator sees, may change, and prunes.

#include <idem/testing/inspection_test.hpp>
#include <idem/testing/intervention_contract.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace idem::inline v0::testing {

// ---- find and list

TYPED_TEST_P(InspectionContract, find_of_an_unknown_key_is_nothing) {
    finish(this->harness(), this->request("other"), "done");
    EXPECT_FALSE(this->store().find(this->key()));
    const auto other_scope = this->scope() + "-shipping";
    EXPECT_FALSE(this->store().find({other_scope, "other"})) << "scopes never interact";
}

TYPED_TEST_P(InspectionContract, find_of_a_completed_key_holds_what_was_stored) {
    unsigned number = 0;
    for (const auto& bytes : byte_samples()) {
        const auto id = "m-" + std::to_string(++number);
        finish(this->harness(), this->request(id, this->print), bytes);
        const auto found = this->record(id);
        ASSERT_EQ(found.state, State::completed);
        EXPECT_EQ(found.scope, this->scope());
        EXPECT_EQ(found.id, id);
        EXPECT_TRUE(found.fingerprint == this->print);
        EXPECT_EQ(found.attempts, 1U);
        EXPECT_FALSE(found.lease_until);
        ASSERT_TRUE(found.result == bytes)
            << "sample " << number << " came back changed, of " << found.result.size() << " bytes";
    }
}

TYPED_TEST_P(InspectionContract, find_of_a_failed_key_waits_for_its_next_attempt_and_says_why) {
    fail(this->harness(), this->request("m-1", this->print));
    fail(this->harness(), this->request("m-1", this->print));
    const auto found = this->record();
    EXPECT_EQ(found.state, State::in_progress);
    EXPECT_TRUE(found.fingerprint == this->print);
    EXPECT_EQ(found.attempts, 2U);
    EXPECT_FALSE(found.lease_until);
    EXPECT_EQ(found.result, "");
    EXPECT_NE(found.note.find("the test failed it"), std::string::npos) << found.note;
}

TYPED_TEST_P(InspectionContract, find_of_a_dead_key_holds_its_attempts) {
    this->kill(this->limited("m-1", this->print));
    const auto found = this->record();
    EXPECT_EQ(found.state, State::dead);
    EXPECT_TRUE(found.fingerprint == this->print);
    EXPECT_EQ(found.attempts, this->max_attempts);
    EXPECT_NE(found.note.find("the test failed it"), std::string::npos) << found.note;
}

TYPED_TEST_P(InspectionContract, the_attempts_of_a_completed_key_are_all_of_them) {
    fail(this->harness(), this->request());
    finish(this->harness(), this->request(), "on the second attempt");
    EXPECT_EQ(this->record().attempts, 2U);
}

TYPED_TEST_P(InspectionContract, list_holds_the_records_of_one_state) {
    finish(this->harness(), this->request("done-1"), "1");
    finish(this->harness(), this->request("done-2"), "2");
    fail(this->harness(), this->request("waits"));
    this->kill(this->limited("dead"));
    using Ids = std::vector<std::string>;
    EXPECT_EQ(this->sorted_ids(State::completed), (Ids{"done-1", "done-2"}));
    EXPECT_EQ(this->sorted_ids(State::in_progress), Ids{"waits"});
    EXPECT_EQ(this->sorted_ids(State::dead), Ids{"dead"});
    EXPECT_EQ(this->sorted_ids(State::parked), Ids{});
    for (const auto& one : this->store().list(State::completed, this->all)) {
        ASSERT_EQ(one.state, State::completed);
        if (one.scope == this->scope()) {
            EXPECT_EQ("done-" + one.result, one.id) << "each with what find() holds";
        }
    }
}

TYPED_TEST_P(InspectionContract, list_begins_with_the_oldest_change) {
    fail(this->harness(), this->request("a"));
    fail(this->harness(), this->request("b"));
    this->change_later("c", "b");
    this->change_later("a", "c");
    this->change_later("b", "a");
    const auto listed = this->store().list(State::in_progress, this->all);
    EXPECT_EQ(this->ids(listed), (std::vector<std::string>{"c", "a", "b"}));
    EXPECT_TRUE(std::is_sorted(listed.begin(), listed.end(), [](const auto& x, const auto& y) {
        return x.changed < y.changed;
    }));
}

TYPED_TEST_P(InspectionContract, list_holds_at_most_limit_records) {
    for (const char* id : {"a", "b", "c"}) {
        finish(this->harness(), this->request(id), "done");
    }
    EXPECT_EQ(this->store().list(State::completed, 0).size(), 0U);
    EXPECT_EQ(this->store().list(State::completed, 2).size(), 2U);
    EXPECT_GE(this->store().list(State::completed, this->all).size(), 3U);
}

// ---- prune

TYPED_TEST_P(InspectionContract, prune_removes_at_most_limit_then_the_rest_then_none) {
    if constexpr (RetentionHarness<TypeParam>) {
        while (this->store().prune(this->all) > 0) { // what other tests left
        }
        for (unsigned number = 1; number <= 5; ++number) {
            const auto id = "m-" + std::to_string(number);
            auto asked = this->limited(id, this->print);
            asked.retention = this->short_retention;
            number % 2 == 0 ? fail(this->harness(), asked) : finish(this->harness(), asked, "done");
        }
        this->harness().let_retention_pass(this->short_retention);
        EXPECT_EQ(this->store().prune(0), 0U);
        EXPECT_EQ(this->store().prune(2), 2U);
        EXPECT_EQ(this->store().prune(100), 3U);
        EXPECT_EQ(this->store().prune(100), 0U);
        for (unsigned number = 1; number <= 5; ++number) {
            const auto id = "m-" + std::to_string(number);
            EXPECT_FALSE(this->store().find(this->key(id)));
            const auto first = look(this->harness(), this->limited(id, this->other_print));
            EXPECT_EQ(first.answer, Answer::claimed);
            EXPECT_EQ(first.attempt, 1U);
        }
    } else {
        GTEST_SKIP() << "this harness cannot let a retention pass";
    }
}

TYPED_TEST_P(InspectionContract, prune_touches_no_record_within_its_retention) {
    if constexpr (RetentionHarness<TypeParam>) {
        finish(this->harness(), this->request("done"), "receipt");
        fail(this->harness(), this->request("waits"));
        this->kill(this->limited("dead"));
        auto brief = this->request("past");
        brief.retention = this->short_retention;
        finish(this->harness(), brief, "receipt");
        this->harness().let_retention_pass(this->short_retention);
        EXPECT_GE(this->store().prune(this->all), 1U);
        EXPECT_EQ(look(this->harness(), this->request("done")).result, "receipt");
        EXPECT_EQ(look(this->harness(), this->request("waits")).attempt, 2U);
        EXPECT_EQ(look(this->harness(), this->limited("dead")).answer, Answer::dead);
        EXPECT_FALSE(this->store().find(this->key("past")));
    } else {
        GTEST_SKIP() << "this harness cannot let a retention pass";
    }
}

TYPED_TEST_P(InspectionContract, what_is_past_its_retention_is_neither_found_nor_listed) {
    if constexpr (RetentionHarness<TypeParam>) {
        auto brief = this->request();
        brief.retention = this->short_retention;
        finish(this->harness(), brief, "receipt");
        this->harness().let_retention_pass(this->short_retention);
        EXPECT_FALSE(this->store().find(this->key()));
        EXPECT_EQ(this->sorted_ids(State::completed), std::vector<std::string>{});
        EXPECT_EQ(this->intervene(this->key(), this->by), 0U);
        EXPECT_EQ(look(this->harness(), this->request()).attempt, 1U);
    } else {
        GTEST_SKIP() << "this harness cannot let a retention pass";
    }
}

REGISTER_TYPED_TEST_SUITE_P(InspectionContract,
                            find_of_an_unknown_key_is_nothing,
                            find_of_a_completed_key_holds_what_was_stored,
                            find_of_a_failed_key_waits_for_its_next_attempt_and_says_why,
                            find_of_a_dead_key_holds_its_attempts,
                            the_attempts_of_a_completed_key_are_all_of_them,
                            list_holds_the_records_of_one_state,
                            list_begins_with_the_oldest_change,
                            list_holds_at_most_limit_records,
                            r3_8_a_revived_key_is_claimable_with_attempts_0,
                            r5_3_a_revived_key_keeps_its_fingerprint,
                            revive_of_what_is_neither_dead_nor_parked_is_false,
                            force_complete_of_a_dead_or_waiting_key_answers_its_duplicates,
                            force_complete_of_a_completed_or_absent_key_is_false,
                            force_complete_keeps_the_retention_that_the_record_had,
                            an_erased_key_is_claimed_as_if_never_before,
                            erase_of_an_absent_key_is_false,
                            a_key_in_progress_is_not_touched,
                            who_and_why_must_be_said_within_the_limit,
                            a_parked_key_is_listed_and_decided,
                            prune_removes_at_most_limit_then_the_rest_then_none,
                            prune_touches_no_record_within_its_retention,
                            what_is_past_its_retention_is_neither_found_nor_listed);

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_INSPECTION_CONTRACT_HPP
