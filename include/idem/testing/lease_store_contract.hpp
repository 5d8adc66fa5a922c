// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_LEASE_STORE_CONTRACT_HPP
#define IDEM_TESTING_LEASE_STORE_CONTRACT_HPP

// The laws of DedupStore: who owns a key, and until when.

#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::testing {

template <class Harness>
class LeaseStoreContract : public ContractTest<Harness> {
protected:
    using Ticket = typename Harness::Store::Ticket;

    /// Claims on 64 threads at once. Returns: how many of the claims gave each answer.
    std::vector<unsigned> claim_on_64_threads(const ClaimRequest& asked) {
        std::vector<std::atomic<unsigned>> counts(7);
        in_parallel(64, [&](unsigned) { ++counts[this->store().claim(asked).index()]; });
        return {counts.begin(), counts.end()};
    }
};

TYPED_TEST_SUITE_P(LeaseStoreContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LeaseStoreContract);

TYPED_TEST_P(LeaseStoreContract, a_claimed_key_is_in_progress_for_others) {
    const auto mine = must_claim(this->store().claim(this->request()));
    EXPECT_EQ(mine.attempt, 1U);
    EXPECT_FALSE(mine.takeover);
    const auto busy = must_be<InProgress>(this->store().claim(this->request()));
    EXPECT_GE(busy.retry_after, milliseconds{0});
    EXPECT_LE(busy.retry_after, this->long_lease);
}

TYPED_TEST_P(LeaseStoreContract, of_64_concurrent_claims_one_is_claimed) {
    for (int round = 0; round < 5; ++round) {
        const auto counts = this->claim_on_64_threads(this->request("m-" + std::to_string(round)));
        EXPECT_EQ(counts[0], 1U) << "claimed";
        EXPECT_EQ(counts[2], 63U) << "in progress";
    }
}

TYPED_TEST_P(LeaseStoreContract, of_64_concurrent_consumers_one_takes_effect) {
    std::atomic<unsigned> effects{0};
    std::atomic<unsigned> wrong{0};
    in_parallel(64, [&](unsigned) {
        for (bool done = false; !done;) {
            const auto claim = this->store().claim(this->request());
            if (const auto* mine = std::get_if<0>(&claim)) {
                ++effects;
                wrong += this->store().complete(mine->ticket, "effect") == TicketState::outdated;
                done = true;
            } else if (const auto* completed = std::get_if<Completed>(&claim)) {
                wrong += completed->result != "effect";
                done = true;
            } else {
                wrong += !std::holds_alternative<InProgress>(claim);
                std::this_thread::yield();
            }
        }
    });
    EXPECT_EQ(effects, 1U);
    EXPECT_EQ(wrong, 0U);
}

TYPED_TEST_P(LeaseStoreContract, keys_claimed_at_once_are_independent) {
    std::atomic<unsigned> claimed{0};
    in_parallel(32, [&](unsigned number) {
        const auto id = "m-" + std::to_string(number);
        const auto mine = must_claim(this->store().claim(this->request(id)));
        claimed += this->store().complete(mine.ticket, id) == TicketState::valid;
    });
    EXPECT_EQ(claimed, 32U);
    for (unsigned number = 0; number < 32; ++number) {
        const auto id = "m-" + std::to_string(number);
        EXPECT_EQ(must_be<Completed>(this->store().claim(this->request(id))).result, id);
    }
}

TYPED_TEST_P(LeaseStoreContract,
             a_lease_that_ran_out_is_taken_over_with_greater_attempt_and_fence) {
    const auto first = must_claim(this->store().claim(this->short_request()));
    this->let_short_lease_pass();
    const auto second = must_claim(this->store().claim(this->short_request()));
    EXPECT_TRUE(second.takeover);
    EXPECT_EQ(second.attempt, 2U);
    EXPECT_GT(second.fence, first.fence);
    this->let_short_lease_pass();
    const auto third = must_claim(this->store().claim(this->request()));
    EXPECT_TRUE(third.takeover);
    EXPECT_EQ(third.attempt, 3U) << "r4_4: the record outlives its leases";
    EXPECT_GT(third.fence, second.fence);
}

TYPED_TEST_P(LeaseStoreContract, of_64_claims_of_a_lease_that_ran_out_one_takes_over) {
    static_cast<void>(must_claim(this->store().claim(this->short_request())));
    this->let_short_lease_pass();
    const auto counts = this->claim_on_64_threads(this->request());
    EXPECT_EQ(counts[0], 1U) << "claimed";
    EXPECT_EQ(counts[2], 63U) << "in progress";
}

TYPED_TEST_P(LeaseStoreContract, a_lease_ends_when_it_says_by_the_stores_clock) {
    if constexpr (TypeParam::exact_expiry) {
        auto asked = this->request();
        asked.lease = milliseconds{1'000};
        static_cast<void>(must_claim(this->store().claim(asked)));
        this->harness().let_lease_pass(milliseconds{600});
        EXPECT_EQ(must_be<InProgress>(this->store().claim(asked)).retry_after, milliseconds{400});
        this->harness().let_lease_pass(milliseconds{399});
        EXPECT_EQ(must_be<InProgress>(this->store().claim(asked)).retry_after, milliseconds{1});
        this->harness().let_lease_pass(milliseconds{1});
        EXPECT_TRUE(must_claim(this->store().claim(asked)).takeover);
    } else {
        GTEST_SKIP() << "needs a virtual clock";
    }
}

TYPED_TEST_P(LeaseStoreContract, in_progress_wins_over_conflict_and_over_dead) {
    const Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    const Fingerprint other{.high = 3, .low = 4, .algorithm = 1};
    auto asked = this->request("m-1", print);
    asked.max_attempts = 1;
    const auto mine = must_claim(this->store().claim(asked));
    EXPECT_EQ(answer_of(this->store().claim(asked)), Answer::in_progress)
        << "dead would dead-letter a message whose handler is at work";
    EXPECT_EQ(answer_of(this->store().claim(this->request("m-1", other))), Answer::in_progress);
    EXPECT_EQ(this->store().complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_EQ(answer_of(this->store().claim(this->request("m-1", other))), Answer::conflict);
}

TYPED_TEST_P(LeaseStoreContract,
             r3_1_a_lease_that_ran_out_is_charged_and_its_key_dies_at_max_attempts) {
    auto asked = this->short_request();
    asked.max_attempts = 2;
    for (int crash = 0; crash < 2; ++crash) {
        static_cast<void>(must_claim(this->store().claim(asked)));
        this->let_short_lease_pass();
    }
    EXPECT_EQ(must_be<Dead>(this->store().claim(asked)).attempts, 2U);
}

TYPED_TEST_P(LeaseStoreContract, a_ticket_outlives_its_request_and_moves) {
    std::optional<typename TypeParam::Store::Ticket> kept;
    {
        std::string scope = this->scope();
        std::string id = "m-1";
        auto mine = must_claim(this->store().claim({.key = {scope, id}}));
        kept.emplace(std::move(mine.ticket));
        std::fill(scope.begin(), scope.end(), '#');
        std::fill(id.begin(), id.end(), '#');
    }
    auto moved = std::move(*kept);
    kept.reset();
    EXPECT_EQ(this->store().complete(moved, "done"), TicketState::valid);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "done");
}

TYPED_TEST_P(LeaseStoreContract, complete_by_a_ticket_that_expired_but_was_not_overtaken_is_valid) {
    const auto mine = must_claim(this->store().claim(this->short_request()));
    this->let_short_lease_pass();
    EXPECT_EQ(this->store().complete(mine.ticket, "late"), TicketState::valid);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "late");
}

TYPED_TEST_P(LeaseStoreContract, complete_by_an_outdated_ticket_changes_nothing) {
    const auto old = must_claim(this->store().claim(this->short_request()));
    this->let_short_lease_pass();
    const auto mine = must_claim(this->store().claim(this->request()));
    EXPECT_EQ(this->store().complete(old.ticket, "old"), TicketState::outdated);
    EXPECT_EQ(answer_of(this->store().claim(this->request())), Answer::in_progress);
    EXPECT_EQ(this->store().complete(mine.ticket, "new"), TicketState::valid);
    EXPECT_EQ(this->store().complete(old.ticket, "old"), TicketState::outdated);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "new");
}

TYPED_TEST_P(LeaseStoreContract,
             complete_by_an_outdated_ticket_changes_nothing_once_the_key_is_free_again) {
    const auto old = must_claim(this->store().claim(this->short_request()));
    this->let_short_lease_pass();
    const auto mine = must_claim(this->store().claim(this->request()));
    this->store().abandon(mine.ticket, "failed");
    EXPECT_EQ(this->store().complete(old.ticket, "old"), TicketState::outdated);
    EXPECT_EQ(must_claim(this->store().claim(this->request())).attempt, 3U);
}

TYPED_TEST_P(LeaseStoreContract, complete_repeated_is_valid_and_what_is_completed_is_final) {
    const auto mine = must_claim(this->store().claim(this->request()));
    EXPECT_EQ(this->store().complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_EQ(this->store().complete(mine.ticket, "done"), TicketState::valid);
    static_cast<void>(this->store().complete(mine.ticket, "something else"));
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "done");
}

TYPED_TEST_P(LeaseStoreContract, abandon_frees_the_key_and_only_once) {
    const auto first = must_claim(this->store().claim(this->request()));
    this->store().abandon(first.ticket, "failed");
    const auto second = must_claim(this->store().claim(this->request()));
    EXPECT_EQ(second.attempt, 2U);
    EXPECT_FALSE(second.takeover);
    EXPECT_GT(second.fence, first.fence) << "r4_3: the fence grows across abandon";
    this->store().abandon(first.ticket, "failed, and said so twice");
    EXPECT_EQ(answer_of(this->store().claim(this->request())), Answer::in_progress);
    EXPECT_EQ(this->store().complete(first.ticket, "first"), TicketState::outdated);
    EXPECT_EQ(this->store().complete(second.ticket, "second"), TicketState::valid);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "second");
}

TYPED_TEST_P(LeaseStoreContract, abandon_by_an_outdated_ticket_changes_nothing) {
    const auto old = must_claim(this->store().claim(this->short_request()));
    this->let_short_lease_pass();
    const auto mine = must_claim(this->store().claim(this->request()));
    this->store().abandon(old.ticket, "late");
    EXPECT_EQ(answer_of(this->store().claim(this->request())), Answer::in_progress);
    EXPECT_EQ(this->store().complete(mine.ticket, "new"), TicketState::valid);
}

TYPED_TEST_P(LeaseStoreContract, abandon_after_complete_changes_nothing) {
    const auto mine = must_claim(this->store().claim(this->request()));
    EXPECT_EQ(this->store().complete(mine.ticket, "done"), TicketState::valid);
    this->store().abandon(mine.ticket, std::string("any\0text\xff", 9));
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "done");
}

TYPED_TEST_P(LeaseStoreContract, an_open_record_lives_as_long_as_the_retention_and_not_for_ever) {
    if constexpr (TypeParam::exact_expiry) {
        auto asked = this->request();
        asked.lease = milliseconds{1'000};
        asked.retention = seconds{60};
        const auto first = must_claim(this->store().claim(asked));
        this->harness().let_lease_pass(milliseconds{59'000});
        const auto second = must_claim(this->store().claim(asked));
        EXPECT_TRUE(second.takeover);
        EXPECT_EQ(second.attempt, 2U) << "r4_4: TTL = lease would have lost the attempt";
        EXPECT_GT(second.fence, first.fence);
        this->store().abandon(second.ticket, "failed");
        this->harness().let_lease_pass(milliseconds{120'001});
        const auto third = must_claim(this->store().claim(asked));
        EXPECT_EQ(third.attempt, 1U);
        EXPECT_GT(third.fence, second.fence) << "r4_3: the fence grows across pruning";
    } else {
        GTEST_SKIP() << "needs a virtual clock";
    }
}

TYPED_TEST_P(LeaseStoreContract, r5_6_retention_counts_from_completion) {
    if constexpr (TypeParam::exact_expiry) {
        auto asked = this->request();
        asked.retention = seconds{60};
        const auto mine = must_claim(this->store().claim(asked));
        this->harness().let_lease_pass(milliseconds{50'000});
        EXPECT_EQ(this->store().complete(mine.ticket, "done"), TicketState::valid);
        this->harness().let_lease_pass(milliseconds{59'999});
        const auto done = must_be<Completed>(this->store().claim(asked));
        EXPECT_EQ(done.age.value_or(milliseconds{59'999}), milliseconds{59'999});
        this->harness().let_lease_pass(milliseconds{2});
        const auto again = must_claim(this->store().claim(asked));
        EXPECT_EQ(again.attempt, 1U);
        EXPECT_FALSE(again.takeover);
        EXPECT_GT(again.fence, mine.fence) << "r4_3: the fence grows across pruning";
        EXPECT_EQ(this->store().complete(mine.ticket, "done"), TicketState::outdated);
    } else {
        GTEST_SKIP() << "needs a virtual clock";
    }
}

TYPED_TEST_P(LeaseStoreContract, r4_3_leases_and_fences_outlive_a_restart) {
    if constexpr (TypeParam::survives_restart) {
        const auto first = must_claim(this->store().claim(this->request("held")));
        const auto failed = must_claim(this->store().claim(this->request("failed")));
        this->store().abandon(failed.ticket, "failed");
        this->harness().restart();
        EXPECT_EQ(answer_of(this->store().claim(this->request("held"))), Answer::in_progress);
        EXPECT_GT(must_claim(this->store().claim(this->request("failed"))).fence, failed.fence);
        EXPECT_EQ(this->store().complete(first.ticket, "done"), TicketState::valid);
        EXPECT_EQ(must_be<Completed>(this->store().claim(this->request("held"))).result, "done");
    } else {
        GTEST_SKIP() << "this store is lost with its process";
    }
}

REGISTER_TYPED_TEST_SUITE_P(
    LeaseStoreContract,
    a_claimed_key_is_in_progress_for_others,
    of_64_concurrent_claims_one_is_claimed,
    of_64_concurrent_consumers_one_takes_effect,
    keys_claimed_at_once_are_independent,
    a_lease_that_ran_out_is_taken_over_with_greater_attempt_and_fence,
    of_64_claims_of_a_lease_that_ran_out_one_takes_over,
    a_lease_ends_when_it_says_by_the_stores_clock,
    in_progress_wins_over_conflict_and_over_dead,
    r3_1_a_lease_that_ran_out_is_charged_and_its_key_dies_at_max_attempts,
    a_ticket_outlives_its_request_and_moves,
    complete_by_a_ticket_that_expired_but_was_not_overtaken_is_valid,
    complete_by_an_outdated_ticket_changes_nothing,
    complete_by_an_outdated_ticket_changes_nothing_once_the_key_is_free_again,
    complete_repeated_is_valid_and_what_is_completed_is_final,
    abandon_frees_the_key_and_only_once,
    abandon_by_an_outdated_ticket_changes_nothing,
    abandon_after_complete_changes_nothing,
    an_open_record_lives_as_long_as_the_retention_and_not_for_ever,
    r5_6_retention_counts_from_completion,
    r4_3_leases_and_fences_outlive_a_restart);

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_LEASE_STORE_CONTRACT_HPP
