// SPDX-License-Identifier: MIT
// DedupTable: what each failing call and each exception comes to (semantics.md §1–3), effects
// counted.

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "strategy/came_out.hpp"
#include "strategy/scripted_table.hpp"

namespace {

using idem::Fault;
using idem::Status;
using Tx = ScriptedTable::Transaction;
using idem::milliseconds;

struct Order {
    std::string id = "m-1";
};

std::exception_ptr own_error() {
    return std::make_exception_ptr(std::runtime_error("duplicate key"));
}

struct Row {
    std::string name;
    std::vector<Failure> failures;
    std::function<void(Tx&)> handler; // after its write
    std::string out;                  // of the plain call
    std::string settlement;           // of handle()
    unsigned runs;
    unsigned effects;
    unsigned charged;
};

const auto nothing = [](Tx&) {};

const std::vector<Row>& rows() {
    static const std::vector<Row> all{
        {"success", {}, nothing, "executed", "ack", 1, 1, 0},

        {"begin_unavailable",
         {{"begin", 1, fault(Fault::unavailable)}},
         nothing,
         "store unavailable",
         "retry",
         0,
         0,
         0},
        {"begin_rejected",
         {{"begin", 1, fault(Fault::rejected)}},
         nothing,
         "store rejected",
         "stop",
         0,
         0,
         0},
        {"claim_unavailable",
         {{"claim", 1, fault(Fault::unavailable)}},
         nothing,
         "store unavailable",
         "retry",
         0,
         0,
         0},
        {"claim_rejected",
         {{"claim", 1, fault(Fault::rejected)}},
         nothing,
         "store rejected",
         "stop",
         0,
         0,
         0},
        {"r1_5_claim_conflicted_once_is_run_again",
         {{.call = "claim", .error = fault(Fault::unavailable), .conflict = true}},
         nothing,
         "executed",
         "ack",
         1,
         1,
         0},
        {"r3_2_claim_conflicted_always_is_unavailable_and_not_charged",
         {{.call = "claim", .number = 0, .error = fault(Fault::unavailable), .conflict = true}},
         nothing,
         "store unavailable",
         "retry",
         0,
         0,
         0},

        {"r3_5_handler_throws",
         {},
         [](Tx&) { throw std::out_of_range("no stock"); },
         "no stock",
         "retry",
         1,
         0,
         1},
        {"r3_5_handler_throws_what_is_no_std_exception",
         {},
         [](Tx&) { throw 7; },
         "int 7",
         "retry",
         1,
         0,
         1},
        {"r3_5_retry_later_is_not_charged",
         {},
         [](Tx&) { throw idem::RetryLater(milliseconds{700}); },
         "idem: retry later",
         "retry",
         1,
         0,
         0},
        {"r3_9_a_nested_store_error_is_the_handlers",
         {},
         [](Tx&) { throw idem::StoreError(Fault::rejected, "the other store"); },
         "store rejected",
         "retry",
         1,
         0,
         1},
        {"r1_5_conflict_inside_the_handler_is_run_again",
         {{.call = "write", .error = own_error(), .conflict = true}},
         nothing,
         "executed",
         "ack",
         2,
         1,
         0},
        {"r1_5_conflict_inside_the_handler_always",
         {{.call = "write", .number = 0, .error = own_error(), .conflict = true}},
         nothing,
         "store unavailable",
         "retry",
         4,
         0,
         0},

        {"complete_unavailable",
         {{"complete", 1, fault(Fault::unavailable)}},
         nothing,
         "store unavailable",
         "retry",
         1,
         0,
         0},
        {"complete_conflicted_once_is_run_again",
         {{.call = "complete", .error = fault(Fault::unavailable), .conflict = true}},
         nothing,
         "executed",
         "ack",
         2,
         1,
         0},
        {"r1_3_commit_fails_by_the_handlers_doing",
         {{"commit", 1, own_error()}},
         nothing,
         "duplicate key",
         "retry",
         1,
         0,
         1},
        {"r1_5_commit_conflicted_once_is_run_again",
         {{.call = "commit", .error = fault(Fault::unavailable), .conflict = true}},
         nothing,
         "executed",
         "ack",
         2,
         1,
         0},
        {"r3_2_commit_conflicted_always_is_unavailable_and_not_charged",
         {{.call = "commit", .number = 0, .error = fault(Fault::unavailable), .conflict = true}},
         nothing,
         "store unavailable",
         "retry",
         4,
         0,
         0},
        {"r2_1_commit_in_doubt_that_happened_is_never_rerun",
         {{.call = "commit", .error = fault(Fault::in_doubt), .happened = true}},
         nothing,
         "store in doubt",
         "retry",
         1,
         1,
         0},
        {"r2_1_commit_in_doubt_that_did_not_happen_is_never_rerun",
         {{"commit", 1, fault(Fault::in_doubt)}},
         nothing,
         "store in doubt",
         "retry",
         1,
         0,
         0},
        {"r8_a_handler_that_outstayed_its_transaction_is_charged",
         {{"commit", 1, fault(Fault::lease_lost)}},
         nothing,
         "lease lost",
         "retry",
         1,
         0,
         1},
        {"link_lost_and_the_store_stays_away",
         {{.call = "write", .error = own_error(), .conflict = true},
          {"begin", 2, fault(Fault::unavailable)}},
         nothing,
         "store unavailable",
         "retry",
         1,
         0,
         0},
    };
    return all;
}

std::ostream& operator<<(std::ostream& out, const Row& row) {
    return out << row.name;
}

class DedupTable : public ::testing::TestWithParam<Row> {
protected:
    void SetUp() override {
        for (const auto& failure : GetParam().failures) {
            store_.script.fail(failure);
        }
    }
    auto wrapped() {
        return idem::IdempotentConsumer{store_, idem::DedupTable{}}.wrap(
            "billing", &Order::id, [this](const Order&, Tx& tx) {
                ++runs_;
                tx.write("charge");
                GetParam().handler(tx);
            });
    }
    void expect_effects() {
        EXPECT_EQ(runs_, GetParam().runs);
        EXPECT_EQ(store_.effects("charge"), GetParam().effects);
        EXPECT_EQ(store_.script.count("record_failure"), GetParam().charged);
        EXPECT_EQ(store_.attempts("billing", "m-1"), GetParam().charged + GetParam().effects);
        EXPECT_EQ(store_.open(), 0U) << "r10: every transaction is ended";
    }

    ScriptedTable store_;
    unsigned runs_ = 0;
};

TEST_P(DedupTable, plain_call) {
    const auto bill = wrapped();
    EXPECT_EQ(came_out([&] { return bill(Order{}); }), GetParam().out);
    expect_effects();
}

TEST_P(DedupTable, handle_never_throws) {
    const auto bill = wrapped();
    const Order order;
    static_assert(noexcept(bill.handle(order)));
    const auto outcome = bill.handle(order);
    EXPECT_EQ(name_of(outcome.settlement().action), GetParam().settlement);
    EXPECT_EQ(outcome.has_value(), outcome.status() == Status::executed)
        << "the value of a run that was rolled back is no value";
    expect_effects();
}

TEST_P(DedupTable, the_redelivery_after_the_faults_completes_it_once) {
    const auto bill = wrapped();
    static_cast<void>(bill.handle(Order{}));
    store_.script.forget_calls();
    const auto good = idem::IdempotentConsumer{store_, idem::DedupTable{}}.wrap(
        "billing", &Order::id, [](const Order&, Tx& tx) { tx.write("charge"); });
    EXPECT_EQ(good(Order{}).settlement().action, idem::Action::ack);
    EXPECT_EQ(store_.effects("charge"), 1U);
}

INSTANTIATE_TEST_SUITE_P(Faults, DedupTable, ::testing::ValuesIn(rows()), [](const auto& row) {
    return row.param.name;
});

/// Over one table, with a handler that a test may change.
class DedupTableCalls : public ::testing::Test {
protected:
    using Handler = std::function<std::string(const Order&, Tx&)>;
    auto wrapped(Handler handler, idem::ConsumerOptions options = {}) {
        return idem::IdempotentConsumer{store_, idem::DedupTable{}, options}.wrap(
            "billing", &Order::id, std::move(handler));
    }
    std::string charge(const Order& order, Tx& tx) {
        ++runs_;
        tx.write("charge");
        return "receipt for " + order.id;
    }
    Handler charging() {
        return [this](const Order& order, Tx& tx) { return charge(order, tx); };
    }

    ScriptedTable store_;
    unsigned runs_ = 0;
};

TEST_F(DedupTableCalls, one_message_is_claim_handler_complete_commit_in_that_order) {
    EXPECT_EQ(wrapped(charging())(Order{}).value(), "receipt for m-1");
    EXPECT_EQ(store_.script.calls(), "begin claim write complete commit");
}

TEST_F(DedupTableCalls, a_duplicate_replays_and_does_not_run) {
    const auto bill = wrapped(charging());
    static_cast<void>(bill(Order{}));
    store_.script.forget_calls();
    const auto again = bill(Order{});
    EXPECT_EQ(again.status(), Status::replayed);
    EXPECT_EQ(again.value(), "receipt for m-1");
    EXPECT_EQ(store_.script.count("complete") + store_.script.count("record_failure"), 0U);
    EXPECT_EQ(runs_, 1U);
}

TEST_F(DedupTableCalls, r3_2_rollback_comes_before_record_failure) {
    const auto bill =
        wrapped([](const Order&, Tx&) -> std::string { throw std::runtime_error("no"); });
    static_cast<void>(bill.handle(Order{}));
    EXPECT_EQ(store_.script.calls(), "begin claim rollback record_failure");
}

TEST_F(DedupTableCalls, r3_4_the_last_failing_attempt_still_throws_and_the_next_claim_is_dead) {
    const auto bill = wrapped(
        [this](const Order& order, Tx& tx) -> std::string {
            static_cast<void>(charge(order, tx));
            throw std::runtime_error("no stock");
        },
        {.max_attempts = 2});
    for (unsigned attempt = 1; attempt <= 2; ++attempt) {
        const auto failed = bill.handle(Order{});
        EXPECT_EQ(failed.status(), Status::failed);
        EXPECT_EQ(failed.attempts(), attempt);
        EXPECT_EQ(failed.settlement().action, idem::Action::retry);
    }
    for (int redelivery = 0; redelivery < 2; ++redelivery) {
        const auto dead = bill(Order{});
        EXPECT_EQ(dead.status(), Status::dead);
        EXPECT_EQ(dead.attempts(), 2U);
        EXPECT_EQ(dead.settlement().action, idem::Action::dead_letter);
    }
    EXPECT_EQ(runs_, 2U);
}

TEST_F(DedupTableCalls, r3_5_unprocessable_is_dead_lettered_at_once_and_rolled_back) {
    const auto bill = wrapped([this](const Order& order, Tx& tx) -> std::string {
        static_cast<void>(charge(order, tx));
        throw idem::Unprocessable("no such customer");
    });
    const auto outcome = bill.handle(Order{});
    EXPECT_EQ(outcome.settlement().action, idem::Action::dead_letter);
    EXPECT_EQ(outcome.settlement().detail, "no such customer");
    EXPECT_EQ(store_.effects(), 0U);
    EXPECT_THROW(static_cast<void>(bill(Order{})), idem::Unprocessable);
}

TEST_F(DedupTableCalls, r3_5_retry_later_settles_with_its_delay) {
    const auto bill = wrapped(
        [](const Order&, Tx&) -> std::string { throw idem::RetryLater(milliseconds{777}); });
    EXPECT_EQ(bill.handle(Order{}).settlement().delay, milliseconds{777});
}

TEST_F(DedupTableCalls, a_rerun_that_meets_another_owner_holds_no_value) {
    ScriptedTable* table = &store_;
    std::optional<Tx> other;
    store_.script.fail({.call = "commit", .error = fault(Fault::unavailable), .conflict = true});
    store_.script.after("rollback", [&] {
        if (!other) { // between our two runs somebody else takes the key
            other.emplace(*table);
            static_cast<void>(other->claim({.key = {"billing", "m-1"}}));
        }
    });
    const auto outcome = wrapped(charging())(Order{});
    EXPECT_EQ(outcome.status(), Status::in_progress);
    EXPECT_FALSE(outcome.has_value());
    EXPECT_EQ(runs_, 1U);
}

TEST_F(DedupTableCalls, a_rerun_that_finds_the_key_completed_replays_that_result) {
    store_.script.fail({.call = "commit", .error = fault(Fault::unavailable), .conflict = true});
    bool done = false;
    store_.script.after("rollback", [&] {
        if (!std::exchange(done, true)) {
            Tx other(store_);
            static_cast<void>(other.claim({.key = {"billing", "m-1"}}));
            other.complete(idem::ClaimRequest{.key = {"billing", "m-1"}},
                           idem::stored_result("theirs"));
            other.commit();
        }
    });
    const auto outcome = wrapped(charging())(Order{});
    EXPECT_EQ(outcome.status(), Status::replayed);
    EXPECT_EQ(outcome.value(), "theirs");
    EXPECT_EQ(store_.effects(), 0U);
}

TEST_F(DedupTableCalls, reruns_0_runs_once) {
    store_.script.fail({.call = "commit", .error = fault(Fault::unavailable), .conflict = true});
    const auto bill = idem::IdempotentConsumer{store_, idem::DedupTable{.reruns = 0}}.wrap(
        "billing", &Order::id, charging());
    EXPECT_EQ(came_out([&] { return bill(Order{}); }), "store unavailable");
    EXPECT_EQ(runs_, 1U);
}

// A failure value: std::expected and its like.
struct Receipt {
    using value_type = std::string;
    std::string text{}, problem{};
    Receipt() = default;
    explicit Receipt(std::string receipt) : text(std::move(receipt)) {}
    [[nodiscard]] bool has_value() const { return problem.empty(); }
    [[nodiscard]] const std::string& operator*() const { return text; }
    [[nodiscard]] const std::string& error() const { return problem; }
};

TEST_F(DedupTableCalls, r3_6_a_failure_value_is_rolled_back_and_never_recorded) {
    bool in_stock = false;
    const auto bill = idem::IdempotentConsumer{store_, idem::DedupTable{}}.wrap(
        "billing", &Order::id, [&](const Order&, Tx& tx) {
            ++runs_;
            tx.write("charge");
            Receipt receipt("receipt");
            receipt.problem = in_stock ? "" : "out of stock";
            return receipt;
        });
    const auto failed = bill(Order{}); // no exception: it is a value
    EXPECT_EQ(failed.status(), Status::failed);
    EXPECT_EQ(failed.settlement().action, idem::Action::retry);
    EXPECT_EQ(failed.value().error(), "out of stock") << "the caller may look at it";
    EXPECT_EQ(store_.effects(), 0U);
    EXPECT_EQ(store_.script.count("record_failure"), 1U);
    EXPECT_EQ(store_.script.count("complete"), 0U);
    in_stock = true;
    EXPECT_EQ(bill(Order{}).status(), Status::executed);
    EXPECT_EQ(*bill(Order{}).value(), "receipt");
    EXPECT_EQ(runs_, 2U);
    EXPECT_EQ(store_.effects(), 1U);
}

// ---- a delivery that was delivered before (3.3)

class Redelivered : public DedupTableCalls {
protected:
    auto wrapped_suspect(unsigned max_attempts, Handler handler) {
        return idem::IdempotentConsumer{store_, idem::DedupTable{}, {.max_attempts = max_attempts}}
            .wrap(
                "billing",
                [](const Order& order) {
                    return idem::Identity{.id = order.id, .redelivered = true};
                },
                std::move(handler));
    }
};

TEST_F(Redelivered, r3_3_a_completed_record_answers_without_a_transaction) {
    const auto bill = wrapped_suspect(5, charging());
    static_cast<void>(bill(Order{}));
    store_.script.forget_calls();
    EXPECT_EQ(bill(Order{}).value(), "receipt for m-1");
    EXPECT_EQ(store_.script.calls(), "peek");
}

TEST_F(Redelivered, r3_3_is_charged_before_begin_and_not_again) {
    const auto bill = wrapped_suspect(
        5, [](const Order&, Tx&) -> std::string { throw std::runtime_error("no"); });
    static_cast<void>(bill.handle(Order{}));
    EXPECT_EQ(store_.script.calls(), "peek record_failure begin claim rollback");
    EXPECT_EQ(store_.attempts("billing", "m-1"), 1U);
}

TEST_F(Redelivered, r3_3_a_crash_loop_ends) {
    unsigned starts = 0;
    for (int delivery = 0; delivery < 10; ++delivery) {
        const auto bill = wrapped_suspect(3, [&](const Order&, Tx&) -> std::string {
            ++starts;
            throw std::runtime_error("stands for a kill: nothing after this call counts");
        });
        store_.script.forget_calls();
        static_cast<void>(bill.handle(Order{}));
        EXPECT_LE(store_.script.count("record_failure"), 1U);
    }
    EXPECT_EQ(starts, 3U) << "r13: handler starts are at most max_attempts";
}

TEST_F(Redelivered, r3_3_the_last_attempt_allowed_still_runs) {
    store_.record_failure({.key = {"billing", "m-1"}}, "earlier");
    const auto bill = wrapped_suspect(2, charging());
    EXPECT_EQ(bill(Order{}).status(), Status::executed);
    EXPECT_EQ(store_.effects(), 1U);
}

TEST_F(Redelivered, without_a_limit_a_failure_is_charged_once) {
    const auto bill = wrapped_suspect(
        0, [](const Order&, Tx&) -> std::string { throw std::runtime_error("no"); });
    static_cast<void>(bill.handle(Order{}));
    EXPECT_EQ(store_.script.count("record_failure"), 1U);
}

TEST_F(Redelivered, r3_3_a_store_that_fails_at_the_look_runs_nothing) {
    store_.script.fail({"peek", 1, fault(Fault::unavailable)});
    const auto bill = wrapped_suspect(5, charging());
    EXPECT_EQ(came_out([&] { return bill(Order{}); }), "store unavailable");
    EXPECT_EQ(runs_ + store_.script.count("record_failure"), 0U);
}

/// How a redelivery that was charged before BEGIN ended, and whether the charge stays (3.2, 3.5).
struct Ending {
    std::string name;
    std::vector<Failure> failures;
    std::function<void(Tx&)> handler;
    std::string settlement;
    unsigned attempts; ///< on record afterwards
};

const std::vector<Ending>& endings() {
    static const std::vector<Ending> all{
        {"handler_throws", {}, [](Tx&) { throw std::out_of_range("no stock"); }, "retry", 1},
        {"handler_breaks_the_commit", {{"commit", 1, own_error()}}, nothing, "retry", 1},
        {"r3_5_retry_later",
         {},
         [](Tx&) { throw idem::RetryLater(milliseconds{700}); },
         "retry",
         0},
        {"r3_5_unprocessable",
         {},
         [](Tx&) { throw idem::Unprocessable("no such customer"); },
         "dead-letter",
         0},
        {"r3_2_conflict_in_every_rerun",
         {{.call = "write", .number = 0, .error = own_error(), .conflict = true}},
         nothing,
         "retry",
         0},
        {"begin_unavailable", {{"begin", 1, fault(Fault::unavailable)}}, nothing, "retry", 0},
        {"begin_rejected", {{"begin", 1, fault(Fault::rejected)}}, nothing, "stop", 0},
        {"claim_unavailable", {{"claim", 1, fault(Fault::unavailable)}}, nothing, "retry", 0},
        {"complete_unavailable", {{"complete", 1, fault(Fault::unavailable)}}, nothing, "retry", 0},
        {"commit_unavailable", {{"commit", 1, fault(Fault::unavailable)}}, nothing, "retry", 0},
        {"r3_2_link_lost_and_the_store_stays_away",
         {{.call = "write", .error = own_error(), .conflict = true},
          {"begin", 2, fault(Fault::unavailable)}},
         nothing,
         "retry",
         0},
        {"r2_1_commit_in_doubt", {{"commit", 1, fault(Fault::in_doubt)}}, nothing, "retry", 1},
        {"r8_lease_lost", {{"commit", 1, fault(Fault::lease_lost)}}, nothing, "retry", 1},
    };
    return all;
}

std::ostream& operator<<(std::ostream& out, const Ending& ending) {
    return out << ending.name;
}

class ChargedInAdvance : public Redelivered, public ::testing::WithParamInterface<Ending> {
protected:
    idem::Settlement deliver() {
        const auto bill = wrapped_suspect(9, [this](const Order& order, Tx& tx) {
            auto receipt = charge(order, tx);
            GetParam().handler(tx);
            return receipt;
        });
        const auto outcome = bill.handle(Order{});
        attempts_ = outcome.attempts();
        return outcome.settlement();
    }
    unsigned attempts_ = 0;
};

TEST_P(ChargedInAdvance, keeps_the_charge_only_of_what_is_charged) {
    for (const auto& failure : GetParam().failures) {
        store_.script.fail(failure);
    }
    EXPECT_EQ(name_of(deliver().action), GetParam().settlement);
    EXPECT_EQ(store_.script.count("record_failure"), 1U);
    EXPECT_EQ(store_.script.count("refund_failure"), 1U - GetParam().attempts);
    EXPECT_EQ(store_.attempts("billing", "m-1"), GetParam().attempts);
    EXPECT_EQ(store_.effects(), 0U);
    EXPECT_EQ(store_.open(), 0U);
}

TEST_P(ChargedInAdvance, takes_back_its_own_charge_and_no_earlier_one) {
    store_.record_failure({.key = {"billing", "m-1"}}, "earlier");
    store_.record_failure({.key = {"billing", "m-1"}}, "earlier");
    for (const auto& failure : GetParam().failures) {
        store_.script.fail(failure);
    }
    const auto settled = deliver();
    EXPECT_EQ(store_.attempts("billing", "m-1"), 2U + GetParam().attempts);
    if (settled.action != idem::Action::stop && attempts_ > 0) { // a handler's own failure
        EXPECT_EQ(attempts_, 3U) << "the attempt as the handler's caller counts it";
    }
}

INSTANTIATE_TEST_SUITE_P(Endings,
                         ChargedInAdvance,
                         ::testing::ValuesIn(endings()),
                         [](const auto& ending) { return ending.param.name; });

TEST_F(Redelivered, r3_5_retry_later_may_be_said_more_often_than_max_attempts) {
    const auto bill = wrapped_suspect(
        3, [](const Order&, Tx&) -> std::string { throw idem::RetryLater(milliseconds{5}); });
    for (int delivery = 0; delivery < 10; ++delivery) {
        EXPECT_EQ(bill.handle(Order{}).settlement().action, idem::Action::retry);
    }
    EXPECT_EQ(wrapped_suspect(3, charging())(Order{}).status(), Status::executed);
    EXPECT_EQ(store_.effects(), 1U);
}

TEST_F(Redelivered, r3_2_a_flapping_store_does_not_dead_letter_a_good_message) {
    store_.script.fail_always("commit", fault(Fault::unavailable));
    const auto bill = wrapped_suspect(3, charging());
    for (int delivery = 0; delivery < 10; ++delivery) {
        EXPECT_EQ(bill.handle(Order{}).settlement().action, idem::Action::retry);
    }
    store_.script.forget_calls();
    EXPECT_EQ(bill(Order{}).status(), Status::executed);
    EXPECT_EQ(store_.effects(), 1U);
}

TEST_F(Redelivered, a_duplicate_of_what_is_still_at_work_costs_no_attempt) {
    std::optional<Tx> other;
    store_.script.after("record_failure", [&] { // after our look somebody else takes the key
        other.emplace(store_);
        static_cast<void>(other->claim({.key = {"billing", "m-1"}}));
    });
    EXPECT_EQ(wrapped_suspect(3, charging())(Order{}).status(), Status::in_progress);
    EXPECT_EQ(store_.attempts("billing", "m-1"), 0U);
    EXPECT_EQ(runs_, 0U);
}

TEST_F(Redelivered, success_takes_nothing_back_and_counts_as_one_attempt) {
    const auto outcome = wrapped_suspect(3, charging())(Order{});
    EXPECT_EQ(outcome.status(), Status::executed);
    EXPECT_EQ(outcome.attempts(), 1U);
    EXPECT_EQ(store_.script.count("refund_failure"), 0U);
}

// ---- in the user's own transaction

TEST_F(DedupTableCalls, r1_6_within_is_uncommitted_and_counts_no_attempt) {
    const auto bill = wrapped(charging());
    auto open = bill.within(0, Order{});
    EXPECT_EQ(open.status(), Status::executed);
    EXPECT_EQ(open.value(), "receipt for m-1");
    EXPECT_EQ(std::move(open).committed().settlement().action, idem::Action::ack);
    EXPECT_EQ(bill.within(0, Order{}).status(), Status::replayed);
    EXPECT_EQ(runs_, 1U);

    const auto failing =
        wrapped([](const Order&, Tx&) -> std::string { throw std::runtime_error("no stock"); });
    EXPECT_EQ(came_out([&] { return failing.within(0, Order{"m-2"}); }), "no stock");
    EXPECT_EQ(store_.script.count("record_failure"), 0U) << "r3_4: the broker's count decides";
    EXPECT_EQ(store_.open(), 0U);
}

TEST_F(DedupTableCalls, r1_5_within_a_conflict_is_never_run_again) {
    store_.script.fail({.call = "write", .number = 0, .error = own_error(), .conflict = true});
    const auto bill = wrapped(charging());
    const auto out = came_out([&] { return bill.within(0, Order{}); });
    EXPECT_NE(out, "executed");
    EXPECT_EQ(runs_, 1U);
    EXPECT_EQ(store_.script.count("record_failure"), 0U);
}

} // namespace
