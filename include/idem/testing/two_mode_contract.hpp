// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_TWO_MODE_CONTRACT_HPP
#define IDEM_TESTING_TWO_MODE_CONTRACT_HPP

// Leases and transactions over one table honour each other (semantics.md 4.6).

#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace idem::inline v0::testing {

/// For a store that models DedupStore and TransactionalStore over one table; instantiate it with a
/// harness of its leases.
template <class Harness>
class TwoModeContract : public ContractTest<Harness> {};
TYPED_TEST_SUITE_P(TwoModeContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TwoModeContract);

TYPED_TEST_P(TwoModeContract, r4_6_a_lease_is_in_progress_for_a_transaction) {
    const auto mine = must_claim(this->store().claim(this->request()));
    {
        auto transaction = this->store().begin();
        EXPECT_EQ(answer_of(transaction.claim(this->request())), Answer::in_progress);
    }
    EXPECT_EQ(this->store().complete(mine.ticket, "by lease"), TicketState::valid);
    auto transaction = this->store().begin();
    EXPECT_EQ(must_be<Completed>(transaction.claim(this->request())).result, "by lease");
}

TYPED_TEST_P(TwoModeContract, r4_6_an_open_transaction_is_in_progress_for_a_lease) {
    auto transaction = this->store().begin();
    static_cast<void>(must_claim(transaction.claim(this->request())));
    EXPECT_EQ(answer_of(this->store().claim(this->request())), Answer::in_progress);
    transaction.complete(this->request(), "joined");
    transaction.commit();
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "joined");
}

TYPED_TEST_P(TwoModeContract, r4_6_a_lease_that_ran_out_is_taken_over_by_a_transaction) {
    const auto old = must_claim(this->store().claim(this->short_request()));
    this->let_short_lease_pass();
    auto transaction = this->store().begin();
    const auto mine = must_claim(transaction.claim(this->request()));
    EXPECT_TRUE(mine.takeover);
    EXPECT_EQ(mine.attempt, 2U);
    transaction.complete(this->request(), "joined");
    transaction.commit();
    EXPECT_EQ(this->store().complete(old.ticket, "by lease"), TicketState::outdated);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "joined");
}

TYPED_TEST_P(TwoModeContract, r4_6_attempts_of_both_modes_are_counted_together) {
    auto asked = this->request();
    asked.max_attempts = 2;
    const auto mine = must_claim(this->store().claim(asked));
    this->store().abandon(mine.ticket, "failed");
    this->store().record_failure(asked, "failed");
    EXPECT_EQ(must_be<Dead>(this->store().claim(asked)).attempts, 2U);
    auto transaction = this->store().begin();
    EXPECT_EQ(must_be<Dead>(transaction.claim(asked)).attempts, 2U);
}

TYPED_TEST_P(TwoModeContract, r4_6_a_lease_takes_over_what_a_transaction_left_undone) {
    {
        auto transaction = this->store().begin();
        static_cast<void>(must_claim(transaction.claim(this->request())));
        transaction.rollback();
    }
    const auto mine = must_claim(this->store().claim(this->request()));
    EXPECT_FALSE(mine.takeover) << "nothing of the transaction happened";
    EXPECT_EQ(mine.attempt, 1U);
    EXPECT_EQ(this->store().complete(mine.ticket, "by lease"), TicketState::valid);
}

TYPED_TEST_P(TwoModeContract, r4_6_a_batch_of_either_mode_meets_the_records_of_the_other) {
    const std::vector<ClaimRequest> asked{this->request("leased"), this->request("joined")};
    const auto mine = must_claim(this->store().claim(asked[0]));
    auto transaction = this->store().begin();
    static_cast<void>(must_claim(transaction.claim(asked[1])));
    const auto claims = this->store().claim(std::span(asked));
    EXPECT_EQ(answer_of(claims[0]), Answer::in_progress);
    EXPECT_EQ(answer_of(claims[1]), Answer::in_progress);
    transaction.complete(asked[1], "joined");
    transaction.commit();
    EXPECT_EQ(this->store().complete(mine.ticket, "by lease"), TicketState::valid);
    auto later = this->store().begin();
    const auto known = later.claim(std::span(asked));
    EXPECT_EQ(must_be<Completed>(known[0]).result, "by lease");
    EXPECT_EQ(must_be<Completed>(known[1]).result, "joined");
}

TYPED_TEST_P(TwoModeContract, r4_6_one_fingerprint_binds_both_modes) {
    const Fingerprint one{1, 2, 1}, other{3, 4, 1};
    const auto mine = must_claim(this->store().claim(this->request("m-1", one)));
    EXPECT_EQ(this->store().complete(mine.ticket, ""), TicketState::valid);
    auto transaction = this->store().begin();
    EXPECT_EQ(answer_of(transaction.claim(this->request("m-1", other))), Answer::conflict);
    EXPECT_EQ(answer_of(transaction.claim(this->request("m-1", one))), Answer::completed);
}

TYPED_TEST_P(TwoModeContract, r4_6_of_concurrent_claims_in_both_modes_one_is_claimed) {
    for (int round = 0; round < 20; ++round) {
        const auto id = "m-" + std::to_string(round);
        const auto asked = this->request(id);
        std::atomic<unsigned> won{0}, wrong{0};
        in_parallel(4, [&](unsigned number) {
            if (number % 2 == 0) {
                auto transaction = this->store().begin();
                if (answer_of(transaction.claim(asked)) == Answer::claimed) {
                    ++won;
                    transaction.complete(asked, "");
                    transaction.commit();
                }
            } else {
                const auto claim = this->store().claim(asked);
                if (const auto* mine = std::get_if<0>(&claim)) {
                    ++won;
                    wrong += this->store().complete(mine->ticket, "") != TicketState::valid;
                }
            }
        });
        EXPECT_EQ(won, 1U) << round;
        EXPECT_EQ(wrong, 0U) << round;
    }
}

REGISTER_TYPED_TEST_SUITE_P(TwoModeContract,
                            r4_6_a_lease_is_in_progress_for_a_transaction,
                            r4_6_an_open_transaction_is_in_progress_for_a_lease,
                            r4_6_a_lease_that_ran_out_is_taken_over_by_a_transaction,
                            r4_6_attempts_of_both_modes_are_counted_together,
                            r4_6_a_lease_takes_over_what_a_transaction_left_undone,
                            r4_6_a_batch_of_either_mode_meets_the_records_of_the_other,
                            r4_6_one_fingerprint_binds_both_modes,
                            r4_6_of_concurrent_claims_in_both_modes_one_is_claimed);

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_TWO_MODE_CONTRACT_HPP
