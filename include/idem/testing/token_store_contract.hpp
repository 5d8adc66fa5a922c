// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_TOKEN_STORE_CONTRACT_HPP
#define IDEM_TESTING_TOKEN_STORE_CONTRACT_HPP

// The laws of TokenStore: a token is issued, redeemed by one message, completed.

#include <idem/outcome.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <set>
#include <stdexcept>
#include <string>

namespace idem::inline v0::testing {

template <class Harness>
class TokenStoreContract : public ContractTest<Harness> {
protected:
    static constexpr Fingerprint intent{.high = 1, .low = 2, .algorithm = 1},
        other{.high = 3, .low = 4, .algorithm = 1};

    [[nodiscard]] std::string issue(seconds ttl = seconds{3'600}, Fingerprint bound = {}) {
        return this->store().issue(this->scope(), ttl, bound);
    }
    [[nodiscard]] ClaimRequest
    redeem(std::string_view token, std::string_view id = "m-1", Fingerprint print = {}) const {
        auto asked = this->request(id, print);
        asked.token = token;
        return asked;
    }
};

TYPED_TEST_SUITE_P(TokenStoreContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TokenStoreContract);

TYPED_TEST_P(TokenStoreContract, tokens_are_fresh_and_hold_128_bits_at_least) {
    std::set<std::string> tokens;
    for (int number = 0; number < 100; ++number) {
        tokens.insert(this->issue());
    }
    EXPECT_EQ(tokens.size(), 100U);
    EXPECT_GE(tokens.begin()->size(), 22U) << "128 bits in base 64";
}

TYPED_TEST_P(TokenStoreContract, a_token_without_time_to_be_redeemed_is_refused) {
    for (const auto ttl : {seconds{0}, seconds{-1}, seconds::min()}) {
        EXPECT_THROW(static_cast<void>(this->issue(ttl)), std::invalid_argument);
    }
}

TYPED_TEST_P(TokenStoreContract, r6_1_an_issued_token_is_redeemed_and_replays_to_the_same_message) {
    const auto token = this->issue();
    const auto mine = must_claim(this->store().claim(this->redeem(token)));
    EXPECT_EQ(mine.attempt, 1U);
    EXPECT_FALSE(mine.takeover);
    EXPECT_EQ(answer_of(this->store().claim(this->redeem(token))), Answer::in_progress);
    EXPECT_EQ(this->store().complete(mine.ticket, "paid"), TicketState::valid);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->redeem(token))).result, "paid");
}

TYPED_TEST_P(TokenStoreContract, r6_1_another_message_finds_the_token_spent) {
    const auto token = this->issue();
    const auto mine = must_claim(this->store().claim(this->redeem(token, "m-1")));
    EXPECT_EQ(must_be<Refused>(this->store().claim(this->redeem(token, "m-2"))).reason,
              reason::token_spent);
    EXPECT_EQ(this->store().complete(mine.ticket, "paid"), TicketState::valid);
    EXPECT_EQ(must_be<Refused>(this->store().claim(this->redeem(token, "m-2"))).reason,
              reason::token_spent);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->redeem(token, "m-1"))).result, "paid");
}

TYPED_TEST_P(TokenStoreContract, of_64_messages_with_one_token_one_redeems_it) {
    const auto token = this->issue();
    std::atomic<unsigned> redeemed{0};
    std::atomic<unsigned> spent{0};
    in_parallel(64, [&](unsigned number) {
        const auto claim = this->store().claim(this->redeem(token, "m-" + std::to_string(number)));
        redeemed += answer_of(claim) == Answer::claimed;
        spent += answer_of(claim) == Answer::refused;
    });
    EXPECT_EQ(redeemed, 1U);
    EXPECT_EQ(spent, 63U);
}

TYPED_TEST_P(TokenStoreContract, r6_1_a_token_that_nobody_issued_is_unknown) {
    const auto token = this->issue();
    const auto elsewhere = this->scope() + "-refunds";
    EXPECT_EQ(must_be<Refused>(this->store().claim(this->redeem("made up"))).reason,
              reason::token_unknown);
    EXPECT_EQ(must_be<Refused>(this->store().claim(this->redeem(token + "x"))).reason,
              reason::token_unknown);
    EXPECT_EQ(
        must_be<Refused>(this->store().claim({.key = {elsewhere, "m-1"}, .token = token})).reason,
        reason::token_unknown)
        << "issued in another scope";
    EXPECT_EQ(answer_of(this->store().claim(this->redeem(token))), Answer::claimed);
}

TYPED_TEST_P(TokenStoreContract, r6_1_ttl_is_tested_at_the_first_redeem_only) {
    constexpr seconds ttl{TypeParam::exact_expiry ? 1 : 3};
    const auto late = this->issue(ttl);
    const auto given_back = this->issue(ttl);
    const auto mine = must_claim(this->store().claim(this->redeem(given_back, "m-1")));
    this->store().abandon(mine.ticket, "failed");
    this->harness().let_lease_pass(ttl + milliseconds{1});
    EXPECT_EQ(must_be<Refused>(this->store().claim(this->redeem(late, "m-2"))).reason,
              reason::token_expired);
    const auto again = must_claim(this->store().claim(this->redeem(given_back, "m-1")));
    EXPECT_EQ(again.attempt, 2U) << "giving back never expires a token";
    EXPECT_GT(again.fence, mine.fence);
}

TYPED_TEST_P(TokenStoreContract, a_redeem_whose_lease_ran_out_is_taken_over_by_the_same_message) {
    const auto token = this->issue();
    auto asked = this->redeem(token);
    asked.lease = this->short_lease;
    const auto old = must_claim(this->store().claim(asked));
    this->let_short_lease_pass();
    EXPECT_EQ(must_be<Refused>(this->store().claim(this->redeem(token, "m-2"))).reason,
              reason::token_spent);
    const auto mine = must_claim(this->store().claim(this->redeem(token)));
    EXPECT_TRUE(mine.takeover);
    EXPECT_EQ(this->store().complete(old.ticket, "old"), TicketState::outdated);
    EXPECT_EQ(this->store().complete(mine.ticket, "new"), TicketState::valid);
}

TYPED_TEST_P(TokenStoreContract, r6_1_a_redeem_with_another_intent_is_conflict_and_spends_nothing) {
    const auto token = this->issue(seconds{3'600}, this->intent);
    EXPECT_EQ(answer_of(this->store().claim(this->redeem(token, "m-1", this->other))),
              Answer::conflict);
    const auto mine = must_claim(this->store().claim(this->redeem(token, "m-1", this->intent)));
    EXPECT_EQ(this->store().complete(mine.ticket, "paid"), TicketState::valid);
    EXPECT_EQ(answer_of(this->store().claim(this->redeem(token, "m-1", this->other))),
              Answer::conflict);
}

TYPED_TEST_P(TokenStoreContract, no_intent_and_no_fingerprint_never_conflict) {
    const auto bound = this->issue(seconds{3'600}, this->intent);
    const auto free = this->issue();
    EXPECT_EQ(answer_of(this->store().claim(this->redeem(bound))), Answer::claimed);
    EXPECT_EQ(answer_of(this->store().claim(this->redeem(free, "m-2", this->other))),
              Answer::claimed);
}

TYPED_TEST_P(TokenStoreContract, r6_1_a_token_of_the_client_is_made_by_its_first_redeem) {
    const std::string token("client:\0\xff{x}", 12);
    auto asked = this->redeem(token, "m-1", this->intent);
    EXPECT_EQ(must_be<Refused>(this->store().claim(asked)).reason, reason::token_unknown);
    asked.token_may_be_new = true;
    const auto mine = must_claim(this->store().claim(asked));
    EXPECT_EQ(answer_of(this->store().claim(asked)), Answer::in_progress);
    EXPECT_EQ(this->store().complete(mine.ticket, "paid"), TicketState::valid);
    EXPECT_EQ(must_be<Completed>(this->store().claim(asked)).result, "paid");

    auto stranger = this->redeem(token, "m-2", this->intent);
    stranger.token_may_be_new = true;
    EXPECT_EQ(must_be<Refused>(this->store().claim(stranger)).reason, reason::token_spent);
    auto changed = this->redeem(token, "m-1", this->other);
    changed.token_may_be_new = true;
    EXPECT_EQ(answer_of(this->store().claim(changed)), Answer::conflict) << "the binding holds";
}

REGISTER_TYPED_TEST_SUITE_P(TokenStoreContract,
                            tokens_are_fresh_and_hold_128_bits_at_least,
                            a_token_without_time_to_be_redeemed_is_refused,
                            r6_1_an_issued_token_is_redeemed_and_replays_to_the_same_message,
                            r6_1_another_message_finds_the_token_spent,
                            of_64_messages_with_one_token_one_redeems_it,
                            r6_1_a_token_that_nobody_issued_is_unknown,
                            r6_1_ttl_is_tested_at_the_first_redeem_only,
                            a_redeem_whose_lease_ran_out_is_taken_over_by_the_same_message,
                            r6_1_a_redeem_with_another_intent_is_conflict_and_spends_nothing,
                            no_intent_and_no_fingerprint_never_conflict,
                            r6_1_a_token_of_the_client_is_made_by_its_first_redeem);

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_TOKEN_STORE_CONTRACT_HPP
