// SPDX-License-Identifier: MIT
// BrokerTransaction: what each failing call and each exception comes to, outputs, offsets and starts
// counted (semantics.md 6.4).

#include <idem/consumer.hpp>
#include <idem/strategy/broker_transaction.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "strategy/came_out.hpp"
#include "strategy/scripted_sink.hpp"

namespace {

using idem::Fault;
using idem::Status;
using Tx = ScriptedSink::Transaction;

struct Order {
    std::string partition = "p0";
    std::uint64_t offset = 0;
    std::string id = partition + ":" + std::to_string(offset);
};
idem::Identity identity_of(const Order& order) {
    return {.id = order.id, .position = idem::Position{order.partition, order.offset}};
}

class BrokerCalls : public ::testing::Test {
protected:
    using Handle = std::function<void(const Order&, Tx&)>;

    auto wrapped() {
        return idem::IdempotentConsumer{sink, idem::BrokerTransaction{}, options}.wrap(
            "billing", identity_of, [this](const Order& order, Tx& tx) {
                ++starts[order.id];
                tx.send("out of " + order.id);
                handle(order, tx);
            });
    }
    std::string batch(const std::vector<Order>& orders) {
        std::string all;
        for (const auto& outcome : wrapped().batch(orders)) {
            const auto settlement = outcome.settlement();
            all += (all.empty() ? "" : ", ") + std::string(to_string(outcome.status())) + " " +
                   name_of(settlement.action);
        }
        EXPECT_EQ(sink.open(), 0U);
        return all;
    }
    /// The handler throws for the message of that id.
    void fails(const std::string& id) {
        handle = [id](const Order& order, Tx&) {
            if (order.id == id) {
                throw std::runtime_error("no stock");
            }
        };
    }
    static std::vector<Order> three() { return {{"p0", 0}, {"p0", 1}, {"p0", 2}}; }

    ScriptedSink sink;
    idem::ConsumerOptions options{};
    Handle handle = [](const Order&, Tx&) {};
    std::map<std::string, unsigned> starts;
};

TEST_F(BrokerCalls, one_message_is_one_transaction) {
    EXPECT_EQ(came_out([&] { return wrapped()({"p0", 7}); }), "executed");
    EXPECT_EQ(sink.script.calls(), "begin claim send commit");
    EXPECT_EQ(sink.outputs, std::vector<std::string>{"out of p0:7"});
    EXPECT_EQ(sink.committed["p0"], 8U);
}

TEST_F(BrokerCalls, guarantee_and_cover_are_what_the_sink_says) {
    using Handler = decltype(wrapped());
    static_assert(Handler::guarantee == idem::Guarantee::effectively_once);
    static_assert(Handler::covers == idem::Covers::redelivered);
    auto plain = idem::IdempotentConsumer{sink, idem::BrokerTransaction{}}.wrap(
        "billing", identity_of, [](const Order&) {});
    static_assert(decltype(plain)::guarantee == idem::Guarantee::at_least_once);
    EXPECT_EQ(plain(Order{}).status(), Status::executed);
}

TEST_F(BrokerCalls, a_batch_is_one_transaction) {
    EXPECT_EQ(batch(three()), "executed ack, executed ack, executed ack");
    EXPECT_EQ(sink.script.calls(), "begin claim send send send commit");
    EXPECT_EQ(sink.outputs.size(), 3U);
    EXPECT_EQ(sink.committed["p0"], 3U);
}

TEST_F(BrokerCalls, no_verdict_before_the_commit) {
    sink.script.after("commit", [&] { EXPECT_EQ(starts.size(), 3U); });
    sink.script.fail({"commit", 1, fault(Fault::in_doubt), true});
    EXPECT_EQ(came_out([&] { return wrapped().batch(three())[0]; }), "store in doubt");
    EXPECT_EQ(sink.script.count("begin"), 1U) << "what may have happened is not run again";
}

TEST_F(BrokerCalls, a_failed_handler_aborts_all_and_the_rest_runs_once_more_without_it) {
    fails("p0:1");
    const std::vector<Order> orders{{"p0", 0}, {"p0", 1}, {"p0", 2}, {"p1", 0}};
    EXPECT_EQ(batch(orders), "executed ack, failed retry, in progress retry, executed ack");
    EXPECT_EQ(sink.outputs, (std::vector<std::string>{"out of p0:0", "out of p1:0"}));
    EXPECT_EQ(sink.committed["p0"], 1U);
    EXPECT_EQ(sink.committed["p1"], 1U);
    EXPECT_EQ(starts["p0:1"], 1U);
    EXPECT_EQ(starts["p0:2"], 0U) << "order: nothing behind a failed one starts";
    EXPECT_EQ((sink.failures[{"p0", 1}]), 1U);
    EXPECT_EQ(sink.failures.size(), 1U + 3U) << "looked at by claim, counted for nobody else";
}

TEST_F(BrokerCalls, two_failed_handlers_leave_the_rest_one_by_one) {
    handle = [](const Order& order, Tx&) {
        if (order.offset == 1) {
            throw std::runtime_error("no stock");
        }
    };
    const std::vector<Order> orders{
        {"p0", 0}, {"p0", 1}, {"p0", 2}, {"p1", 0}, {"p1", 1}, {"p1", 2}, {"p2", 0}};
    EXPECT_EQ(batch(orders),
              "executed ack, failed retry, in progress retry, executed ack, failed retry, "
              "in progress retry, executed ack");
    EXPECT_EQ(sink.script.count("commit"), 3U);
    EXPECT_EQ(starts["p0:1"] + starts["p1:1"], 2U);
    EXPECT_EQ(sink.committed["p2"], 1U);
}

TEST_F(BrokerCalls, r3_5_retry_later_is_not_counted) {
    handle = [](const Order&, Tx&) { throw idem::RetryLater(idem::milliseconds{700}); };
    const auto outcomes = wrapped().batch(std::vector<Order>{Order{}});
    EXPECT_EQ(outcomes[0].settlement().delay, idem::milliseconds{700});
    EXPECT_EQ(sink.script.count("record_failure"), 0U);
    EXPECT_EQ(sink.script.count("commit"), 0U);
}

TEST_F(BrokerCalls, what_stands_behind_an_unprocessable_one_waits_for_its_dead_letter) {
    handle = [](const Order& order, Tx&) {
        if (order.offset == 1) {
            throw idem::Unprocessable("no such customer");
        }
    };
    EXPECT_EQ(batch(three()), "executed ack, failed dead-letter, in progress retry");
    EXPECT_EQ(sink.committed["p0"], 1U);
    EXPECT_EQ(sink.script.count("record_failure"), 0U);
}

TEST_F(BrokerCalls, r3_4_attempts_used_up_is_dead_at_the_next_claim) {
    options.max_attempts = 2;
    fails("p0:1");
    EXPECT_EQ(batch({{"p0", 1}}), "failed retry");
    EXPECT_EQ(batch({{"p0", 1}}), "failed retry");
    EXPECT_EQ(batch({{"p0", 1}, {"p0", 2}}), "dead dead-letter, in progress retry");
    EXPECT_EQ(starts["p0:1"], 2U);
    EXPECT_EQ(sink.committed.count("p0"), 0U);
}

TEST_F(BrokerCalls, one_that_the_log_of_ids_has_does_not_run_and_its_offset_is_committed) {
    sink.logged.insert({"p0", 1});
    EXPECT_EQ(batch(three()), "executed ack, skipped ack, executed ack");
    EXPECT_EQ(sink.committed["p0"], 3U);
    EXPECT_EQ(starts["p0:1"], 0U);
}

TEST_F(BrokerCalls, one_that_was_taken_away_does_not_start_nor_what_is_behind_it) {
    sink.taken_away.insert({"p0", 0});
    EXPECT_EQ(batch({{"p0", 0}, {"p0", 1}, {"p1", 0}}),
              "in progress retry, in progress retry, executed ack");
    EXPECT_EQ(starts["p0:0"] + starts["p0:1"], 0U);
}

TEST_F(BrokerCalls, begin_that_fails_runs_no_handler) {
    for (const auto which : {Fault::unavailable, Fault::rejected}) {
        sink.script.forget_calls();
        sink.script.fail({"begin", 1, fault(which)});
        EXPECT_EQ(came_out([&] { return wrapped().batch(three())[0]; }), name_of(which));
    }
    EXPECT_TRUE(starts.empty());
}

TEST_F(BrokerCalls, a_commit_that_fails_is_tried_once_more_as_a_whole) {
    for (const auto which : {Fault::unavailable, Fault::lease_lost}) {
        sink.committed.clear();
        sink.outputs.clear();
        sink.script.forget_calls();
        sink.script.fail({"commit", 1, fault(which)});
        EXPECT_EQ(batch(three()), "executed ack, executed ack, executed ack");
        EXPECT_EQ(sink.script.count("commit"), 2U);
        EXPECT_EQ(sink.outputs.size(), 3U);
    }
}

TEST_F(BrokerCalls, a_commit_that_fails_twice_leaves_them_one_by_one) {
    sink.script.fail({"commit", 1, fault(Fault::unavailable)});
    sink.script.fail({"commit", 2, fault(Fault::unavailable)});
    EXPECT_EQ(batch(three()), "executed ack, executed ack, executed ack");
    EXPECT_EQ(sink.script.count("commit"), 5U);
    EXPECT_EQ(sink.outputs.size(), 3U);
}

TEST_F(BrokerCalls, once_the_broker_is_down_nothing_more_starts) {
    sink.script.fail_always("commit", fault(Fault::unavailable));
    const std::vector<Order> orders{{"p0", 0}, {"p1", 0}, {"p2", 0}};
    EXPECT_EQ(batch(orders), "failed retry, failed retry, failed retry");
    EXPECT_EQ(sink.script.count("commit"), 3U);
    EXPECT_EQ(starts["p0:0"], 3U);
    EXPECT_EQ(starts["p1:0"], 2U);
    EXPECT_EQ(sink.script.count("record_failure"), 0U) << "the surroundings are never charged";
    EXPECT_EQ(came_out([&] { return wrapped()({"p0", 0}); }), "store unavailable");
}

TEST_F(BrokerCalls, one_by_one_an_in_doubt_commit_concerns_that_message_and_stops_the_rest) {
    sink.script.fail({"commit", 1, fault(Fault::unavailable)});
    sink.script.fail({"commit", 2, fault(Fault::unavailable)});
    sink.script.fail({"commit", 4, fault(Fault::in_doubt)});
    const auto outcomes = wrapped().batch(three());
    EXPECT_EQ(outcomes[0].status(), Status::executed);
    EXPECT_EQ(outcomes[1].settlement().reason, idem::reason::store_in_doubt);
    EXPECT_EQ(outcomes[2].status(), Status::in_progress);
    EXPECT_EQ(sink.committed["p0"], 1U);
}

TEST_F(BrokerCalls, rejected_by_the_broker_is_not_tried_again) {
    sink.script.fail({"commit", 1, fault(Fault::rejected)});
    EXPECT_EQ(came_out([&] { return wrapped().batch(three())[0]; }), "store rejected");
    EXPECT_EQ(sink.script.count("begin"), 1U);
}

TEST_F(BrokerCalls, a_transaction_that_failed_under_the_handler_is_run_again_uncharged) {
    sink.script.fail({.call = "send",
                      .number = 2,
                      .error = std::make_exception_ptr(std::runtime_error("fenced")),
                      .conflict = true});
    EXPECT_EQ(batch(three()), "executed ack, executed ack, executed ack");
    EXPECT_EQ(sink.script.count("begin"), 2U);
    EXPECT_EQ(sink.script.count("record_failure"), 0U);
    EXPECT_EQ(sink.outputs.size(), 3U);
}

TEST_F(BrokerCalls, an_output_that_is_refused_is_the_failure_of_its_own_message) {
    const auto too_large = std::make_exception_ptr(std::runtime_error("too large"));
    for (const unsigned number : {1U, 2U, 4U}) { // as a whole, again, then that of the second
        sink.script.fail({"commit", number, too_large});
    }
    EXPECT_EQ(batch(three()), "executed ack, failed retry, in progress retry");
    EXPECT_EQ((sink.failures[{"p0", 1}]), 1U);
    EXPECT_EQ(sink.outputs, std::vector<std::string>{"out of p0:0"});
}

TEST_F(BrokerCalls, a_message_without_a_position_says_what_to_do) {
    auto plain = idem::IdempotentConsumer{sink, idem::BrokerTransaction{}}.wrap(
        "billing", &Order::id, [](const Order&, Tx&) {});
    const auto outcome = plain.handle(Order{});
    EXPECT_EQ(outcome.settlement().action, idem::Action::dead_letter);
    EXPECT_NE(outcome.settlement().detail.find("needs Identity::position"), std::string::npos);
    EXPECT_EQ(sink.script.calls(), "");
}

TEST_F(BrokerCalls, the_result_is_the_one_that_was_committed) {
    int run = 0;
    auto counting = idem::IdempotentConsumer{sink, idem::BrokerTransaction{}}.wrap(
        "billing", identity_of, [&](const Order&, Tx&) { return ++run; });
    sink.script.fail({"commit", 1, fault(Fault::unavailable)});
    EXPECT_EQ(counting(Order{}).value(), 2);
}

} // namespace
