// SPDX-License-Identifier: MIT
// OffsetFence: what each failing call and each exception comes to (semantics.md 3, 6.3), effects
// counted.

#include <idem/broker/offset_keeper.hpp>
#include <idem/consumer.hpp>
#include <idem/strategy/offset_fence.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "strategy/came_out.hpp"
#include "strategy/scripted_fence.hpp"

namespace {

using idem::Fault;
using idem::Status;
using Tx = ScriptedFence::Transaction;

struct Order {
    std::uint64_t offset = 0;
    bool redelivered = false;
    std::string partition = "cluster/orders/0";
};
idem::Identity identity_of(const Order& order) {
    return {.id = order.offset,
            .position = idem::Position{order.partition, order.offset},
            .redelivered = order.redelivered};
}

class FenceCalls : public ::testing::Test {
protected:
    auto wrapped() {
        return idem::IdempotentConsumer{fence, idem::OffsetFence{}, options}.wrap(
            "billing", identity_of, [this](const Order& order, Tx& tx) {
                ++runs;
                tx.write(std::to_string(order.offset));
                handle(order);
            });
    }
    auto call(const Order& order) { return wrapped().handle(order); }
    std::string status_of(const Order& order) {
        return std::string(to_string(call(order).status()));
    }
    ScriptedFence::Row& row() { return fence.rows[{"billing", "cluster/orders/0"}]; }

    ScriptedFence fence;
    idem::ConsumerOptions options{};
    std::function<void(const Order&)> handle = [](const Order&) {};
    unsigned runs = 0;
};

TEST_F(FenceCalls, r6_3_accepts_only_what_is_past_the_row_and_allows_gaps) {
    EXPECT_EQ(status_of({5}), "executed");
    EXPECT_EQ(status_of({5}), "skipped");
    EXPECT_EQ(status_of({3}), "skipped");
    EXPECT_EQ(status_of({9}), "executed");
    EXPECT_EQ(status_of({.offset = 0, .partition = "cluster/orders/1"}), "executed");
    EXPECT_EQ(fence.effects, (std::vector<std::string>{"5", "9", "0"}));
    EXPECT_EQ(row().handled, 9U);
}

TEST_F(FenceCalls, guarantee_and_cover) {
    using Handler = decltype(wrapped());
    static_assert(Handler::guarantee == idem::Guarantee::effectively_once);
    static_assert(Handler::covers == idem::Covers::redelivered);
    EXPECT_EQ(call({1}).settlement().action, idem::Action::ack);
}

TEST_F(FenceCalls, a_failed_handler_leaves_the_row_and_is_counted) {
    handle = [](const Order&) { throw std::runtime_error("no stock"); };
    EXPECT_EQ(status_of({5}), "failed");
    EXPECT_FALSE(row().handled);
    EXPECT_EQ(row().attempts, 1U);
    EXPECT_EQ(fence.script.calls(), "begin advance write rollback record_failure");
    EXPECT_TRUE(fence.effects.empty());
}

TEST_F(FenceCalls, r3_4_the_claim_after_the_last_attempt_is_dead) {
    options.max_attempts = 2;
    handle = [](const Order&) { throw std::runtime_error("no stock"); };
    EXPECT_EQ(status_of({5}), "failed");
    EXPECT_EQ(status_of({5}), "failed");
    EXPECT_EQ(status_of({5}), "dead");
    EXPECT_EQ(runs, 2U);
    idem::FenceKeeper keeper(fence, "billing");
    keeper.passed({.partition = "cluster/orders/0", .offset = 5}); // what the source does then
    EXPECT_EQ(keeper.next("cluster/orders/0"), 6U);
    EXPECT_EQ(status_of({5}), "skipped");
    EXPECT_EQ(status_of({6}), "failed") << "the failures of 5 are not those of 6";
}

TEST_F(FenceCalls, r3_5_retry_later_and_unprocessable_are_not_counted) {
    handle = [](const Order&) { throw idem::RetryLater(idem::milliseconds{700}); };
    EXPECT_EQ(call({5}).settlement().delay, idem::milliseconds{700});
    handle = [](const Order&) { throw idem::Unprocessable("no such customer"); };
    EXPECT_EQ(call({5}).settlement().action, idem::Action::dead_letter);
    EXPECT_EQ(fence.script.count("record_failure"), 0U);
    EXPECT_FALSE(row().handled) << "the source moves the row once the dead letter is confirmed";
}

TEST_F(FenceCalls, another_transaction_at_the_row_is_in_progress) {
    fence.held = true;
    EXPECT_EQ(status_of({5}), "in progress");
    EXPECT_EQ(runs, 0U);
}

TEST_F(FenceCalls, r3_3_a_suspect_is_charged_before_its_transaction_and_once) {
    options.max_attempts = 3;
    EXPECT_EQ(status_of({5, true}), "executed");
    EXPECT_EQ(fence.script.calls(), "peek record_failure begin advance write commit");
    fence.script.forget_calls();
    EXPECT_EQ(status_of({5, true}), "skipped");
    EXPECT_EQ(fence.script.calls(), "peek");
    handle = [](const Order&) { throw std::runtime_error("no stock"); };
    EXPECT_EQ(status_of({6, true}), "failed");
    EXPECT_EQ(row().attempts, 1U);
}

TEST_F(FenceCalls, r3_3_crash_loops_end) {
    options.max_attempts = 2;
    for (int crash = 0; crash < 2; ++crash) { // what a process does that dies in the handler
        fence.record_failure("billing", {.partition = "cluster/orders/0", .offset = 5}, "suspect");
    }
    EXPECT_EQ(status_of({5, true}), "dead");
    EXPECT_EQ(call({5, true}).attempts(), 2U);
    EXPECT_EQ(runs, 0U);
    EXPECT_EQ(row().attempts, 2U) << "a dead one is not charged further";
}

TEST_F(FenceCalls, a_suspect_that_ran_for_nothing_is_refunded) {
    options.max_attempts = 3;
    handle = [](const Order&) { throw idem::RetryLater(idem::milliseconds{700}); };
    EXPECT_EQ(status_of({5, true}), "failed");
    EXPECT_EQ(row().attempts, 0U);
    fence.script.fail({"begin", 2, fault(Fault::unavailable)});
    EXPECT_EQ(call({5, true}).settlement().reason, idem::reason::store_unavailable);
    EXPECT_EQ(row().attempts, 0U);
}

TEST_F(FenceCalls, store_failures) {
    struct Step {
        std::string call, out;
        Fault which;
        unsigned runs;
    };
    for (const auto& [name, out, which, expected] :
         {Step{"begin", "store unavailable", Fault::unavailable, 0},
          Step{"advance", "store rejected", Fault::rejected, 0},
          Step{"commit", "store in doubt", Fault::in_doubt, 1},
          Step{"commit", "store unavailable", Fault::unavailable, 1}}) {
        runs = 0;
        fence.script.forget_calls();
        fence.script.fail({name, 1, fault(which)});
        EXPECT_EQ(came_out([&] { return wrapped()({5}); }), out) << name;
        EXPECT_EQ(runs, expected);
        EXPECT_EQ(fence.script.count("record_failure"), 0U);
    }
}

TEST_F(FenceCalls, r1_5_conflicts_are_run_again_and_at_last_unavailable) {
    fence.script.fail({.call = "commit", .error = fault(Fault::unavailable), .conflict = true});
    EXPECT_EQ(status_of({5}), "executed");
    EXPECT_EQ(runs, 2U);
    fence.script.forget_calls();
    fence.script.fail(
        {.call = "commit", .number = 0, .error = fault(Fault::unavailable), .conflict = true});
    EXPECT_EQ(came_out([&] { return wrapped()({6}); }), "store unavailable");
    EXPECT_EQ(runs, 2U + 4U);
    EXPECT_EQ(fence.script.count("record_failure"), 0U);
}

TEST_F(FenceCalls, r1_3_a_commit_refused_by_the_handlers_doing_is_its_failure) {
    fence.script.fail({"commit", 1, std::make_exception_ptr(std::runtime_error("duplicate key"))});
    EXPECT_EQ(came_out([&] { return wrapped()({5}); }), "duplicate key");
    EXPECT_EQ(row().attempts, 1U);
    EXPECT_FALSE(row().handled);
}

TEST_F(FenceCalls, time_overrun_is_charged) {
    fence.script.fail({"commit", 1, fault(Fault::lease_lost)});
    EXPECT_EQ(came_out([&] { return wrapped()({5}); }), "lease lost");
    EXPECT_EQ(row().attempts, 1U);
}

TEST_F(FenceCalls, inside_a_users_transaction_nothing_is_rerun_or_counted) {
    handle = [](const Order&) { throw std::runtime_error("no stock"); };
    EXPECT_EQ(came_out([&] { return wrapped().within(1, {5}); }), "no stock");
    EXPECT_EQ(fence.script.count("record_failure"), 0U);
    handle = [](const Order&) {};
    EXPECT_EQ(wrapped().within(1, {5}).status(), Status::executed);
    EXPECT_EQ(row().handled, 5U);
}

TEST_F(FenceCalls, a_message_without_a_position_says_what_to_do) {
    auto plain = idem::IdempotentConsumer{fence, idem::OffsetFence{}}.wrap(
        "billing", &Order::offset, [](const Order&, Tx&) {});
    const auto settlement = plain.handle(Order{}).settlement();
    EXPECT_EQ(settlement.action, idem::Action::dead_letter);
    EXPECT_NE(settlement.detail.find("OffsetFence needs Identity::position"), std::string::npos);
    EXPECT_EQ(fence.script.calls(), "");
}

TEST(FenceRow, limits_are_named) {
    EXPECT_THROW(idem::require_valid("", idem::Position{"p", 1}), std::invalid_argument);
    EXPECT_THROW(idem::require_valid("s", idem::Position{"", 1}), std::invalid_argument);
    EXPECT_THROW(idem::require_valid("s", idem::Position{std::string(1'025, 'p'), 1}),
                 std::invalid_argument);
    EXPECT_THROW(idem::require_valid("s", idem::Position{"p", ~0ULL}), std::invalid_argument);
    EXPECT_NO_THROW(idem::require_valid("s", idem::Position{"p", 0}));
}

} // namespace
