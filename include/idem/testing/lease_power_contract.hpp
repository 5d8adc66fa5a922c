// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_LEASE_POWER_CONTRACT_HPP
#define IDEM_TESTING_LEASE_POWER_CONTRACT_HPP

// The laws of a lease store's powers beyond DedupStore: renew, refund, park, batches.

#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0::testing {

template <class Harness>
class RenewableStoreContract : public ContractTest<Harness> {};
TYPED_TEST_SUITE_P(RenewableStoreContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RenewableStoreContract);

TYPED_TEST_P(RenewableStoreContract, renew_by_the_owner_makes_the_lease_count_anew) {
    const auto mine = must_claim(this->store().claim(this->short_request()));
    EXPECT_EQ(this->store().renew(mine.ticket, this->long_lease), TicketState::valid);
    this->let_short_lease_pass();
    EXPECT_EQ(answer_of(this->store().claim(this->request())), Answer::in_progress);
    EXPECT_EQ(this->store().renew(mine.ticket, this->short_lease), TicketState::valid);
    this->let_short_lease_pass();
    EXPECT_TRUE(must_claim(this->store().claim(this->request())).takeover);
}

TYPED_TEST_P(RenewableStoreContract, renew_keeps_the_ticket_good_for_complete) {
    const auto mine = must_claim(this->store().claim(this->short_request()));
    for (int beat = 0; beat < 3; ++beat) {
        EXPECT_EQ(this->store().renew(mine.ticket, this->long_lease), TicketState::valid);
    }
    EXPECT_EQ(this->store().complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "done");
}

TYPED_TEST_P(RenewableStoreContract, renew_by_an_overtaken_ticket_changes_nothing) {
    const auto old = must_claim(this->store().claim(this->short_request()));
    this->let_short_lease_pass();
    const auto mine = must_claim(this->store().claim(this->request()));
    EXPECT_EQ(this->store().renew(old.ticket, this->short_lease), TicketState::outdated);
    this->let_short_lease_pass();
    EXPECT_EQ(answer_of(this->store().claim(this->request())), Answer::in_progress);
    EXPECT_EQ(this->store().complete(mine.ticket, "new"), TicketState::valid);
}

TYPED_TEST_P(RenewableStoreContract,
             renew_after_complete_or_abandon_is_outdated_and_changes_nothing) {
    const auto done = must_claim(this->store().claim(this->request("done")));
    EXPECT_EQ(this->store().complete(done.ticket, "done"), TicketState::valid);
    EXPECT_EQ(this->store().renew(done.ticket, this->long_lease), TicketState::outdated);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request("done"))).result, "done");

    const auto freed = must_claim(this->store().claim(this->request("freed")));
    this->store().abandon(freed.ticket, "failed");
    EXPECT_EQ(this->store().renew(freed.ticket, this->long_lease), TicketState::outdated);
    EXPECT_EQ(answer_of(this->store().claim(this->request("freed"))), Answer::claimed);
}

REGISTER_TYPED_TEST_SUITE_P(RenewableStoreContract,
                            renew_by_the_owner_makes_the_lease_count_anew,
                            renew_keeps_the_ticket_good_for_complete,
                            renew_by_an_overtaken_ticket_changes_nothing,
                            renew_after_complete_or_abandon_is_outdated_and_changes_nothing);

template <class Harness>
class RefundingStoreContract : public ContractTest<Harness> {};
TYPED_TEST_SUITE_P(RefundingStoreContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RefundingStoreContract);

TYPED_TEST_P(RefundingStoreContract, r3_1_refund_frees_the_key_and_its_attempt_is_not_counted) {
    auto asked = this->request();
    asked.max_attempts = 2;
    std::uint64_t fence = 0;
    fail(this->harness(), asked);
    for (int round = 0; round < 3; ++round) {
        const auto mine = must_claim(this->store().claim(asked));
        EXPECT_EQ(mine.attempt, 2U);
        EXPECT_FALSE(mine.takeover);
        EXPECT_GT(mine.fence, fence) << "r4_3: the fence grows across refund";
        fence = mine.fence;
        this->store().refund(mine.ticket);
        this->store().refund(mine.ticket);
    }
    fail(this->harness(), asked);
    EXPECT_EQ(must_be<Dead>(this->store().claim(asked)).attempts, 2U);
}

TYPED_TEST_P(RefundingStoreContract, refund_of_a_first_attempt_leaves_the_next_one_the_first) {
    const auto mine = must_claim(this->store().claim(this->request()));
    this->store().refund(mine.ticket);
    const auto next = must_claim(this->store().claim(this->request()));
    EXPECT_EQ(next.attempt, 1U);
    EXPECT_EQ(this->store().complete(mine.ticket, "refunded"), TicketState::outdated);
    EXPECT_EQ(this->store().complete(next.ticket, "next"), TicketState::valid);
}

TYPED_TEST_P(RefundingStoreContract, refund_by_an_outdated_ticket_changes_nothing) {
    const auto old = must_claim(this->store().claim(this->short_request()));
    this->let_short_lease_pass();
    const auto mine = must_claim(this->store().claim(this->request()));
    this->store().refund(old.ticket);
    EXPECT_EQ(answer_of(this->store().claim(this->request())), Answer::in_progress);
    this->store().abandon(mine.ticket, "failed");
    EXPECT_EQ(must_claim(this->store().claim(this->request())).attempt, 3U);
}

TYPED_TEST_P(RefundingStoreContract, refund_after_complete_changes_nothing) {
    const auto mine = must_claim(this->store().claim(this->request()));
    EXPECT_EQ(this->store().complete(mine.ticket, "done"), TicketState::valid);
    this->store().refund(mine.ticket);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "done");
}

REGISTER_TYPED_TEST_SUITE_P(RefundingStoreContract,
                            r3_1_refund_frees_the_key_and_its_attempt_is_not_counted,
                            refund_of_a_first_attempt_leaves_the_next_one_the_first,
                            refund_by_an_outdated_ticket_changes_nothing,
                            refund_after_complete_changes_nothing);

template <class Harness>
class ParkingStoreContract : public ContractTest<Harness> {};
TYPED_TEST_SUITE_P(ParkingStoreContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ParkingStoreContract);

TYPED_TEST_P(ParkingStoreContract,
             r4_2_a_parked_key_answers_parked_whatever_is_asked_and_whenever) {
    auto asked = this->short_request();
    asked.max_attempts = 1;
    const auto mine = must_claim(this->store().claim(asked));
    EXPECT_EQ(this->store().park(mine.ticket, "outcome unknown"), TicketState::valid);
    EXPECT_EQ(answer_of(this->store().claim(asked)), Answer::parked);
    this->let_short_lease_pass();
    EXPECT_EQ(answer_of(this->store().claim(asked)), Answer::parked);
    EXPECT_EQ(answer_of(this->store().claim(this->request())), Answer::parked);
    this->store().abandon(mine.ticket, "too late");
    EXPECT_EQ(answer_of(this->store().claim(asked)), Answer::parked) << "only a human decides";
}

TYPED_TEST_P(ParkingStoreContract, park_by_an_outdated_ticket_changes_nothing) {
    const auto old = must_claim(this->store().claim(this->short_request()));
    this->let_short_lease_pass();
    const auto mine = must_claim(this->store().claim(this->request()));
    EXPECT_EQ(this->store().park(old.ticket, "late"), TicketState::outdated);
    EXPECT_EQ(answer_of(this->store().claim(this->request())), Answer::in_progress);
    EXPECT_EQ(this->store().complete(mine.ticket, "new"), TicketState::valid);
    EXPECT_EQ(this->store().park(mine.ticket, "after the end"), TicketState::outdated);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request())).result, "new");
}

REGISTER_TYPED_TEST_SUITE_P(ParkingStoreContract,
                            r4_2_a_parked_key_answers_parked_whatever_is_asked_and_whenever,
                            park_by_an_outdated_ticket_changes_nothing);

template <class Harness>
class BatchStoreContract : public ContractTest<Harness> {};
TYPED_TEST_SUITE_P(BatchStoreContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BatchStoreContract);

TYPED_TEST_P(BatchStoreContract, a_batch_answers_in_order_what_single_claims_would) {
    const Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    const Fingerprint other{.high = 3, .low = 4, .algorithm = 1};
    auto limited = [this](std::string_view id) {
        auto asked = this->request(id);
        asked.max_attempts = 1;
        return asked;
    };
    finish(this->harness(), this->request("done", print), "result");
    fail(this->harness(), limited("dead"));
    static_cast<void>(must_claim(this->store().claim(this->request("busy"))));
    static_cast<void>(must_claim(this->store().claim(this->short_request("expired"))));
    this->let_short_lease_pass();
    const std::vector<ClaimRequest> asked{this->request("z"),
                                          limited("dead"),
                                          this->request("done", print),
                                          this->request("busy"),
                                          this->request("expired"),
                                          this->request("a")};
    const auto claims = this->store().claim(std::span<const ClaimRequest>(asked));
    ASSERT_EQ(claims.size(), asked.size());
    EXPECT_EQ(must_claim(claims[0]).attempt, 1U);
    EXPECT_EQ(must_be<Dead>(claims[1]).attempts, 1U);
    EXPECT_EQ(must_be<Completed>(claims[2]).result, "result");
    EXPECT_EQ(answer_of(claims[3]), Answer::in_progress);
    EXPECT_TRUE(must_claim(claims[4]).takeover);
    EXPECT_EQ(must_claim(claims[4]).attempt, 2U);
    EXPECT_EQ(must_claim(claims[5]).attempt, 1U);
    const std::vector<ClaimRequest> conflicting{this->request("done", other)};
    EXPECT_EQ(answer_of(this->store().claim(std::span<const ClaimRequest>(conflicting)).at(0)),
              Answer::conflict);
}

TYPED_TEST_P(BatchStoreContract, each_ticket_of_a_batch_completes_by_itself) {
    using Ticket = typename TypeParam::Store::Ticket;
    const std::vector<ClaimRequest> asked{
        this->request("m-1"), this->short_request("m-2"), this->request("m-3")};
    auto claims = this->store().claim(std::span<const ClaimRequest>(asked));
    ASSERT_EQ(claims.size(), 3U);
    std::vector<Ticket> tickets;
    for (auto& claim : claims) {
        tickets.push_back(must_claim(std::move(claim)).ticket);
    }
    this->let_short_lease_pass();
    static_cast<void>(must_claim(this->store().claim(this->request("m-2"))));
    const std::vector<std::string> results{"one", "two", std::string("\0three", 6)};
    const auto states = this->store().complete(std::span<const Ticket>(tickets),
                                               std::span<const std::string>(results));
    EXPECT_EQ(states, (std::vector{TicketState::valid, TicketState::outdated, TicketState::valid}));
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request("m-1"))).result, results[0]);
    EXPECT_EQ(answer_of(this->store().claim(this->request("m-2"))), Answer::in_progress);
    EXPECT_EQ(must_be<Completed>(this->store().claim(this->request("m-3"))).result, results[2]);
}

TYPED_TEST_P(BatchStoreContract, an_empty_batch_answers_nothing) {
    using Ticket = typename TypeParam::Store::Ticket;
    EXPECT_TRUE(this->store().claim(std::span<const ClaimRequest>{}).empty());
    EXPECT_TRUE(
        this->store().complete(std::span<const Ticket>{}, std::span<const std::string>{}).empty());
}

TYPED_TEST_P(BatchStoreContract, overlapping_batches_claim_each_key_once) {
    std::vector<std::string> ids;
    for (int number = 0; number < 50; ++number) {
        ids.push_back("m-" + std::to_string(number));
    }
    std::atomic<unsigned> claimed{0};
    in_parallel(8, [&](unsigned thread) {
        std::vector<ClaimRequest> asked;
        for (std::size_t at = 0; at < ids.size(); ++at) {
            const auto place = thread % 2 == 0 ? at : ids.size() - 1 - at;
            asked.push_back(this->request(ids[place]));
        }
        for (const auto& claim : this->store().claim(std::span<const ClaimRequest>(asked))) {
            claimed += answer_of(claim) == Answer::claimed;
        }
    });
    EXPECT_EQ(claimed, ids.size());
}

REGISTER_TYPED_TEST_SUITE_P(BatchStoreContract,
                            a_batch_answers_in_order_what_single_claims_would,
                            each_ticket_of_a_batch_completes_by_itself,
                            an_empty_batch_answers_nothing,
                            overlapping_batches_claim_each_key_once);

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_LEASE_POWER_CONTRACT_HPP
