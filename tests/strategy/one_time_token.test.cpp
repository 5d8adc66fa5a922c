// SPDX-License-Identifier: MIT
// OneTimeToken: issued, redeemed by one message, completed (semantics.md 6.1).

#include <idem/consumer.hpp>
#include <idem/strategy/one_time_token.hpp>

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "strategy/came_out.hpp"
#include "strategy/scripted_leases.hpp"

namespace {

using idem::Action;
using idem::Identity;
using idem::OneTimeToken;
using idem::Status;

struct Payment {
    std::string id, token;
    std::string payload = "42.00";
};

Identity by_token(const Payment& payment) {
    return {.id = payment.id,
            .fingerprint = idem::fingerprint_of(payment.payload),
            .token = idem::Id(payment.token)};
}

class Tokens : public ::testing::Test {
protected:
    auto wrapped(OneTimeToken strategy = {}) {
        return idem::IdempotentConsumer{store_, strategy}.wrap(
            "payment", &by_token, [this](const Payment& payment) {
                ++runs_;
                if (fails_) {
                    throw std::runtime_error("declined");
                }
                return "paid " + payment.id;
            });
    }
    std::string issue(idem::seconds ttl = idem::seconds{3'600}, idem::Fingerprint intent = {}) {
        return store_.memory.issue("payment", ttl, intent);
    }
    static void expect_refused(const auto& outcome, std::string_view reason) {
        EXPECT_EQ(outcome.status(), Status::refused);
        EXPECT_EQ(outcome.settlement().action, Action::dead_letter);
        EXPECT_EQ(outcome.settlement().reason, reason);
    }

    PowerfulLeases store_;
    unsigned runs_ = 0;
    bool fails_ = false;
};

TEST_F(Tokens, r6_1_an_issued_token_pays_once_and_replays_to_its_message) {
    const auto pay = wrapped();
    const Payment payment{"m-1", issue()};
    EXPECT_EQ(pay(payment).value(), "paid m-1");
    EXPECT_EQ(pay(payment).status(), Status::replayed) << "the ack may have been lost";
    EXPECT_EQ(pay(payment).value(), "paid m-1");
    EXPECT_EQ(runs_, 1U);
}

TEST_F(Tokens, r6_1_unknown_spent_and_expired_are_told_apart) {
    const auto pay = wrapped();
    expect_refused(pay(Payment{"m-1", "made up"}), idem::reason::token_unknown);
    const auto token = issue();
    static_cast<void>(pay(Payment{"m-1", token}));
    expect_refused(pay(Payment{"m-2", token}), idem::reason::token_spent);
    const auto late = issue(idem::seconds{60});
    VirtualClock::advance(std::chrono::seconds{61});
    expect_refused(pay(Payment{"m-3", late}), idem::reason::token_expired);
    EXPECT_EQ(runs_, 1U);
}

TEST_F(Tokens, r6_1_a_failed_payment_gives_the_token_back_to_its_message_past_the_ttl) {
    const auto pay = wrapped();
    const Payment payment{"m-1", issue(idem::seconds{60})};
    fails_ = true;
    EXPECT_EQ(came_out([&] { return pay(payment); }), "declined");
    VirtualClock::advance(std::chrono::seconds{61});
    fails_ = false;
    EXPECT_EQ(pay(payment).status(), Status::executed);
    EXPECT_EQ(pay(payment).attempts(), 0U);
    EXPECT_EQ(runs_, 2U);
}

TEST_F(Tokens, r6_1_another_intent_is_conflict_and_does_not_run) {
    const auto token = issue(idem::seconds{3'600}, idem::fingerprint_of("42.00"));
    const auto pay = wrapped();
    EXPECT_EQ(pay(Payment{"m-1", token, "9999.00"}).status(), Status::conflict);
    EXPECT_EQ(runs_, 0U);
    EXPECT_EQ(pay(Payment{"m-1", token, "42.00"}).status(), Status::executed);
}

TEST_F(Tokens, r6_1_of_the_client_the_first_redeem_makes_the_record) {
    const auto pay = wrapped({.client_generated = true});
    EXPECT_EQ(pay(Payment{"m-1", "client-1"}).value(), "paid m-1");
    EXPECT_EQ(pay(Payment{"m-1", "client-1"}).value(), "paid m-1");
    expect_refused(pay(Payment{"m-2", "client-1"}), idem::reason::token_spent);
    EXPECT_EQ(pay(Payment{"m-1", "client-1", "9999.00"}).status(), Status::conflict);
    EXPECT_EQ(runs_, 1U);
}

TEST_F(Tokens, without_a_token_the_id_is_the_token_and_none_is_ever_spent) {
    const auto pay = idem::IdempotentConsumer{store_, OneTimeToken{}}.wrap(
        "payment", &Payment::token, [this](const Payment&, idem::Lease& held) {
            ++runs_;
            return held.attempt();
        });
    const auto token = issue();
    EXPECT_EQ(pay(Payment{"m-1", token}).value(), 1U);
    EXPECT_EQ(pay(Payment{"m-2", token}).status(), Status::replayed);
    expect_refused(pay(Payment{"m-1", "made up"}), idem::reason::token_unknown);
    EXPECT_EQ(runs_, 1U);
}

TEST_F(Tokens, a_token_past_the_limit_is_invalid) {
    const auto outcome = wrapped()(Payment{"m-1", std::string(1'025, 'x')});
    EXPECT_EQ(outcome.status(), Status::invalid);
    EXPECT_NE(outcome.settlement().detail.find("token"), std::string::npos);
    EXPECT_EQ(store_.script.calls(), "");
}

TEST_F(Tokens, r3_7_a_completion_in_doubt_is_repeated_and_never_paid_again) {
    store_.script.fail(
        {.call = "complete", .error = fault(idem::Fault::in_doubt), .happened = true});
    EXPECT_EQ(wrapped()(Payment{"m-1", issue()}).status(), Status::executed);
    EXPECT_EQ(runs_, 1U);
    EXPECT_EQ(store_.script.count("complete"), 2U);
}

TEST_F(Tokens, a_redeem_at_work_is_in_progress_for_its_message_and_spent_for_others) {
    const auto token = issue();
    const auto pay = idem::IdempotentConsumer{store_, OneTimeToken{}}.wrap(
        "payment", &by_token, [&](const Payment&, idem::Lease&) {
            EXPECT_EQ(wrapped()(Payment{"m-1", token}).status(), Status::in_progress);
            expect_refused(wrapped()(Payment{"m-2", token}), idem::reason::token_spent);
        });
    EXPECT_EQ(pay(Payment{"m-1", token}).status(), Status::executed);
    EXPECT_EQ(runs_, 0U);
}

} // namespace
