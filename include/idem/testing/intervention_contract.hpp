// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_INTERVENTION_CONTRACT_HPP
#define IDEM_TESTING_INTERVENTION_CONTRACT_HPP

// Of InspectionContract the laws about those who change a record by hand: revive, force_complete,
// erase.

#include <idem/testing/inspection_test.hpp>

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace idem::inline v0::testing {

// ---- revive

TYPED_TEST_P(InspectionContract, r3_8_a_revived_key_is_claimable_with_attempts_0) {
    this->kill(this->limited());
    ASSERT_TRUE(this->store().revive(this->key(), this->by));
    const auto found = this->record();
    EXPECT_EQ(found.state, State::in_progress);
    EXPECT_EQ(found.attempts, 0U);
    this->expect_note_says_who_and_why(found);
    for (unsigned attempt = 1; attempt <= this->max_attempts; ++attempt) {
        ASSERT_EQ(look(this->harness(), this->limited()).answer, Answer::claimed);
        if constexpr (TransactionalHarness<TypeParam>) { // by lease a look is an attempt
            fail(this->harness(), this->limited());
        }
    }
    EXPECT_EQ(look(this->harness(), this->limited()).answer, Answer::dead) << "used up again";
}

TYPED_TEST_P(InspectionContract, r5_3_a_revived_key_keeps_its_fingerprint) {
    this->kill(this->limited("m-1", this->print));
    ASSERT_TRUE(this->store().revive(this->key(), this->by));
    EXPECT_TRUE(this->record().fingerprint == this->print);
    EXPECT_EQ(look(this->harness(), this->limited("m-1", this->other_print)).answer,
              Answer::conflict);
    const auto same = look(this->harness(), this->limited("m-1", this->print));
    EXPECT_EQ(same.answer, Answer::claimed);
    EXPECT_EQ(same.attempt, 1U);
}

TYPED_TEST_P(InspectionContract, revive_of_what_is_neither_dead_nor_parked_is_false) {
    finish(this->harness(), this->request("done"), "receipt");
    fail(this->harness(), this->request("waits"));
    for (const char* id : {"done", "waits"}) {
        const auto before = this->record(id);
        EXPECT_FALSE(this->store().revive(this->key(id), this->by)) << id;
        this->expect_same(this->record(id), before);
    }
    EXPECT_FALSE(this->store().revive(this->key("absent"), this->by));
    EXPECT_FALSE(this->store().find(this->key("absent")));
}

// ---- force_complete

TYPED_TEST_P(InspectionContract, force_complete_of_a_dead_or_waiting_key_answers_its_duplicates) {
    this->kill(this->limited("dead", this->print));
    fail(this->harness(), this->request("waits", this->print));
    const std::string result("\1by\0hand\xff", 9);
    for (const char* id : {"dead", "waits"}) {
        ASSERT_TRUE(this->store().force_complete(this->key(id), result, this->by)) << id;
        const auto found = this->record(id);
        EXPECT_EQ(found.state, State::completed);
        EXPECT_TRUE(found.result == result);
        this->expect_note_says_who_and_why(found);
        const auto duplicate = look(this->harness(), this->limited(id, this->print));
        EXPECT_EQ(duplicate.answer, Answer::completed);
        EXPECT_TRUE(duplicate.result == result);
        EXPECT_EQ(look(this->harness(), this->limited(id, this->other_print)).answer,
                  Answer::conflict);
    }
}

TYPED_TEST_P(InspectionContract, force_complete_of_a_completed_or_absent_key_is_false) {
    finish(this->harness(), this->request("done"), "receipt");
    const auto before = this->record("done");
    EXPECT_FALSE(this->store().force_complete(this->key("done"), "forced", this->by));
    this->expect_same(this->record("done"), before);
    EXPECT_FALSE(this->store().force_complete(this->key("absent"), "forced", this->by));
    EXPECT_EQ(look(this->harness(), this->request("absent")).attempt, 1U);
}

TYPED_TEST_P(InspectionContract, force_complete_keeps_the_retention_that_the_record_had) {
    if constexpr (RetentionHarness<TypeParam>) {
        std::string id;
        for (unsigned number = 0; number < 100; ++number) { // on a slow machine it may pass before
            id = "m-" + std::to_string(number);
            auto asked = this->request(id);
            asked.retention = this->short_retention;
            fail(this->harness(), asked);
            if (this->store().force_complete(this->key(id), "forced", this->by)) {
                break;
            }
        }
        this->harness().let_retention_pass(this->short_retention);
        EXPECT_FALSE(this->store().find(this->key(id)));
        EXPECT_EQ(look(this->harness(), this->request(id)).attempt, 1U);

        fail(this->harness(), this->request("kept"));
        ASSERT_TRUE(this->store().force_complete(this->key("kept"), "forced", this->by));
        this->harness().let_retention_pass(this->short_retention);
        EXPECT_EQ(look(this->harness(), this->request("kept")).result, "forced");
    } else {
        GTEST_SKIP() << "this harness cannot let a retention pass";
    }
}

// ---- erase

TYPED_TEST_P(InspectionContract, an_erased_key_is_claimed_as_if_never_before) {
    finish(this->harness(), this->request("done", this->print), "receipt");
    this->kill(this->limited("dead", this->print));
    for (const char* id : {"done", "dead"}) {
        ASSERT_TRUE(this->store().erase(this->key(id), this->by)) << id;
        const auto found = this->record(id);
        EXPECT_EQ(found.result, "");
        EXPECT_TRUE(found.fingerprint == Fingerprint{});
        EXPECT_EQ(found.attempts, 0U);
        this->expect_note_says_who_and_why(found);
        const auto first = look(this->harness(), this->limited(id, this->other_print));
        EXPECT_EQ(first.answer, Answer::claimed) << id;
        EXPECT_EQ(first.attempt, 1U) << id;
        EXPECT_FALSE(first.takeover) << id;
    }
    finish(this->harness(), this->request("done", this->other_print), "the second receipt");
    EXPECT_EQ(look(this->harness(), this->request("done")).result, "the second receipt");
}

TYPED_TEST_P(InspectionContract, erase_of_an_absent_key_is_false) {
    EXPECT_FALSE(this->store().erase(this->key(), this->by));
    EXPECT_FALSE(this->store().find(this->key()));
}

// ---- all three

TYPED_TEST_P(InspectionContract, a_key_in_progress_is_not_touched) {
    if constexpr (TypeParam::in_progress_occurs) {
        fail(this->harness(), this->request("m-1", this->print));
        unsigned touched = 0;
        while_in_progress(this->harness(), this->request("m-1", this->print), "receipt", [&] {
            touched = this->intervene(this->key(), this->by);
        });
        EXPECT_EQ(touched, 0U);
        const auto found = this->record();
        EXPECT_EQ(found.state, State::completed);
        EXPECT_EQ(found.result, "receipt");
        EXPECT_EQ(found.attempts, 2U);
        EXPECT_TRUE(found.fingerprint == this->print);
    } else {
        GTEST_SKIP() << "\"in progress\" does not occur in this store";
    }
}

TYPED_TEST_P(InspectionContract, who_and_why_must_be_said_within_the_limit) {
    this->kill(this->limited());
    const auto before = this->record();
    const std::string half(450, 'x');
    const std::string more(451, 'x');
    for (const Intervention who : {Intervention{"", "why"},
                                   Intervention{"ada", ""},
                                   Intervention{"", ""},
                                   Intervention{half, more}}) {
        EXPECT_THROW(static_cast<void>(this->store().revive(this->key(), who)),
                     std::invalid_argument);
        EXPECT_THROW(static_cast<void>(this->store().force_complete(this->key(), "forced", who)),
                     std::invalid_argument);
        EXPECT_THROW(static_cast<void>(this->store().erase(this->key(), who)),
                     std::invalid_argument);
        this->expect_same(this->record(), before);
    }
    ASSERT_TRUE(this->store().revive(this->key(), Intervention{half, half}));
    EXPECT_NE(this->record().note.find(half + ": " + half), std::string::npos);
}

TYPED_TEST_P(InspectionContract, a_parked_key_is_listed_and_decided) {
    if constexpr (ParkingStore<typename TypeParam::Store>) {
        for (const char* id : {"again", "done", "gone"}) {
            const auto mine = must_claim(this->store().claim(this->request(id, this->print)));
            ASSERT_EQ(this->store().park(mine.ticket, "the answer was lost"), TicketState::valid);
            EXPECT_NE(this->record(id).note.find("the answer was lost"), std::string::npos);
        }
        EXPECT_EQ(this->sorted_ids(State::parked),
                  (std::vector<std::string>{"again", "done", "gone"}));
        EXPECT_TRUE(this->store().revive(this->key("again"), this->by));
        EXPECT_TRUE(this->store().force_complete(this->key("done"), "forced", this->by));
        EXPECT_TRUE(this->store().erase(this->key("gone"), this->by));
        EXPECT_EQ(look(this->harness(), this->request("again", this->other_print)).answer,
                  Answer::conflict);
        EXPECT_EQ(look(this->harness(), this->request("again", this->print)).attempt, 1U);
        EXPECT_EQ(look(this->harness(), this->request("done", this->print)).result, "forced");
        EXPECT_EQ(look(this->harness(), this->request("gone", this->other_print)).attempt, 1U);
    } else {
        GTEST_SKIP() << "this store parks nothing by itself";
    }
}

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_INTERVENTION_CONTRACT_HPP
