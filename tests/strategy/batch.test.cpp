// SPDX-License-Identifier: MIT
// batch(): one verdict per message, whatever the others come to (semantics.md 6.7). The same tests
// over leases and over transactions; what differs follows below.

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>
#include <idem/strategy/distributed_lock.hpp>

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "strategy/came_out.hpp"
#include "strategy/scripted_leases.hpp"
#include "strategy/scripted_table.hpp"

namespace {

using idem::Action;
using idem::Fault;
using idem::Status;

struct Order {
    std::string id;
    std::string payload = "as ordered";
};

idem::Identity identity_of(const Order& order) {
    return {.id = order.id, .fingerprint = idem::fingerprint_of(order.payload)};
}

using Orders = std::vector<Order>;

template <class StoreType, class StrategyType>
struct Mode {
    using Store = StoreType;
    using Strategy = StrategyType;
};
using Leased = Mode<PowerfulLeases, idem::DistributedLock>;
using Joined = Mode<ScriptedTable, idem::DedupTable>;

template <class Kind>
class Batch : public ::testing::Test {
protected:
    using Store = typename Kind::Store;
    using Strategy = typename Kind::Strategy;
    using Context = idem::ContextOf<Strategy, Store>;
    using Handler = std::function<std::string(const Order&, Context&)>;

    /// A handler that fails for the ids in failing_, and counts its runs.
    auto wrapped(idem::ConsumerOptions options = {}, Strategy strategy = {}) {
        return idem::IdempotentConsumer{store_, strategy, options}.wrap(
            "billing", &identity_of, Handler([this](const Order& order, Context& context) {
                ran_.push_back(order.id);
                if constexpr (requires { context.write(order.id); }) {
                    context.write(order.id);
                }
                if (failing_.count(order.id) != 0) {
                    std::rethrow_exception(failing_[order.id]);
                }
                return "receipt for " + order.id;
            }));
    }
    void let_fail(const std::string& id) {
        failing_[id] = std::make_exception_ptr(std::runtime_error("no stock"));
    }
    static std::string statuses(const auto& outcomes) {
        std::string all;
        for (const auto& outcome : outcomes) {
            all += (all.empty() ? "" : ", ") + std::string(to_string(outcome.status()));
        }
        return all;
    }

    Store store_;
    std::vector<std::string> ran_;
    std::map<std::string, std::exception_ptr> failing_;
};

using Modes = ::testing::Types<Leased, Joined>;
TYPED_TEST_SUITE(Batch, Modes, );

TYPED_TEST(Batch, runs_in_order_of_arrival_and_answers_in_that_order) {
    const Orders orders{{"m-3"}, {"m-1"}, {"m-2"}};
    const auto outcomes = this->wrapped().batch(orders);
    ASSERT_EQ(this->statuses(outcomes), "executed, executed, executed");
    EXPECT_EQ(this->ran_, (std::vector<std::string>{"m-3", "m-1", "m-2"}));
    EXPECT_EQ(outcomes[1].value(), "receipt for m-1");
}

TYPED_TEST(Batch, of_nothing_asks_nothing) {
    EXPECT_TRUE(this->wrapped().batch(Orders{}).empty());
    EXPECT_EQ(this->store_.script.calls(), "");
}

TYPED_TEST(Batch, again_replays_every_result) {
    const Orders orders{{"m-1"}, {"m-2"}};
    const auto bill = this->wrapped();
    static_cast<void>(bill.batch(orders));
    const auto again = bill.batch(orders);
    ASSERT_EQ(this->statuses(again), "replayed, replayed");
    EXPECT_EQ(again[1].value(), "receipt for m-2");
    EXPECT_EQ(this->ran_.size(), 2U);
    EXPECT_EQ(bill(orders[0]).value(), "receipt for m-1") << "and so does a single call";
}

TYPED_TEST(Batch, a_failed_message_fails_alone_and_is_charged) {
    this->let_fail("m-2");
    const Orders orders{{"m-1"}, {"m-2"}, {"m-3"}};
    const auto bill = this->wrapped({.max_attempts = 2});
    const auto outcomes = bill.batch(orders);
    ASSERT_EQ(this->statuses(outcomes), "executed, failed, executed");
    EXPECT_THROW(static_cast<void>(outcomes[1].value()), std::runtime_error);
    EXPECT_EQ(outcomes[1].settlement().action, Action::retry);
    EXPECT_EQ(outcomes[1].attempts(), 1U);
    EXPECT_EQ(this->statuses(bill.batch(orders)), "replayed, failed, replayed");
    EXPECT_EQ(this->statuses(bill.batch(orders)), "replayed, dead, replayed");
    EXPECT_EQ(this->ran_.size(), 4U);
}

TYPED_TEST(Batch, r3_5_exceptions_steer_each_message_by_itself) {
    this->failing_["later"] = std::make_exception_ptr(idem::RetryLater(idem::milliseconds{700}));
    this->failing_["never"] = std::make_exception_ptr(idem::Unprocessable("no customer"));
    const auto outcomes = this->wrapped().batch(Orders{{"later"}, {"never"}, {"m-1"}});
    EXPECT_EQ(outcomes[0].settlement().delay, idem::milliseconds{700});
    EXPECT_EQ(outcomes[1].settlement().action, Action::dead_letter);
    EXPECT_EQ(outcomes[2].settlement().action, Action::ack);
    EXPECT_EQ(this->store_.attempts("billing", "later"), 0U) << "r3_5: uncharged";
}

TYPED_TEST(Batch, r6_7_an_equal_duplicate_follows_the_first) {
    const Orders orders{{"m-1"}, {"m-2"}, {"m-1"}, {"m-1"}};
    const auto outcomes = this->wrapped().batch(orders);
    ASSERT_EQ(this->statuses(outcomes), "executed, executed, replayed, replayed");
    EXPECT_EQ(outcomes[3].value(), "receipt for m-1");
    EXPECT_EQ(this->ran_.size(), 2U);
}

TYPED_TEST(Batch, r6_7_of_a_failed_first_the_duplicate_is_retried_and_does_not_run) {
    this->let_fail("m-1");
    const auto outcomes = this->wrapped().batch(Orders{{"m-1"}, {"m-1"}});
    EXPECT_EQ(outcomes[0].status(), Status::failed);
    EXPECT_EQ(outcomes[1].settlement().action, Action::retry);
    EXPECT_EQ(this->ran_.size(), 1U);
    EXPECT_EQ(this->store_.attempts("billing", "m-1"), 1U);
}

TYPED_TEST(Batch, r6_7_a_duplicate_with_another_payload_is_conflict_and_the_first_wins) {
    const auto bill = this->wrapped();
    const auto outcomes = bill.batch(Orders{{"m-1", "first"}, {"m-1", "second"}});
    EXPECT_EQ(this->statuses(outcomes), "executed, conflict");
    EXPECT_EQ(this->statuses(bill.batch(Orders{{"m-1", "first"}, {"m-1", "second"}})),
              "replayed, conflict");
    EXPECT_EQ(this->ran_.size(), 1U);
}

TYPED_TEST(Batch, r5_3_a_duplicate_identical_to_the_record_never_conflicts_whatever_came_first) {
    const auto bill = this->wrapped();
    static_cast<void>(bill(Order{"m-1", "first"}));
    const auto outcomes = bill.batch(Orders{{"m-1", "second"}, {"m-1", "first"}});
    EXPECT_EQ(outcomes[0].status(), Status::conflict);
    EXPECT_NE(outcomes[1].settlement().action, Action::dead_letter);
    EXPECT_EQ(bill(Order{"m-1", "first"}).status(), Status::replayed);
    EXPECT_EQ(this->ran_.size(), 1U);
}

TYPED_TEST(Batch, a_message_that_cannot_be_handled_is_invalid_alone) {
    const auto outcomes =
        this->wrapped().batch(Orders{{""}, {"m-1"}, {std::string(idem::max_id + 1, 'x')}});
    EXPECT_EQ(this->statuses(outcomes), "invalid, executed, invalid");
    EXPECT_NE(outcomes[2].settlement().detail.find("1024"), std::string::npos);
}

TYPED_TEST(Batch, what_a_key_function_throws_fails_its_message_alone) {
    using Given = typename TestFixture::Context;
    const auto bill = idem::IdempotentConsumer{this->store_, typename TestFixture::Strategy{}}.wrap(
        "billing",
        [](const Order& order) {
            if (order.id == "bad") {
                throw idem::Unprocessable("no id in it");
            }
            return order.id;
        },
        [](const Order&, Given&) {});
    const auto outcomes = bill.batch(Orders{{"m-1"}, {"bad"}, {"m-2"}});
    EXPECT_EQ(this->statuses(outcomes), "executed, failed, executed");
    EXPECT_EQ(outcomes[1].settlement().action, Action::dead_letter);
}

TYPED_TEST(Batch, facts_fill_what_the_key_function_left_open) {
    using Given = typename TestFixture::Context;
    const auto bill = idem::IdempotentConsumer{this->store_, typename TestFixture::Strategy{}}.wrap(
        "billing", &Order::id, [](const Order&, Given&) {});
    const Orders orders{{"m-1"}, {"m-2"}};
    const std::vector<idem::Identity> facts{
        {.id = "ignored", .fingerprint = idem::fingerprint_of("one")},
        {.id = "ignored", .fingerprint = idem::fingerprint_of("two")}};
    static_cast<void>(bill.batch(orders, {}, facts));
    const std::vector<idem::Identity> changed{facts[0], facts[0]};
    EXPECT_EQ(this->statuses(bill.batch(orders, {}, changed)), "replayed, conflict");
}

class Log final : public idem::Observer {
public:
    std::map<std::string, Status> statuses;
    unsigned events = 0, faults = 0;
    void on(const idem::Event& event) noexcept override {
        ++events;
        faults += event.fault.has_value();
        statuses[std::string(event.key.id)] = event.status;
    }
};

TYPED_TEST(Batch, the_observer_is_told_of_every_message) {
    Log log;
    this->let_fail("m-2");
    static_cast<void>(
        this->wrapped({.observer = &log}).batch(Orders{{"m-1"}, {"m-2"}, {"m-1"}, {""}}));
    EXPECT_EQ(log.events, 4U);
    EXPECT_EQ(log.statuses["m-2"], Status::failed);
    EXPECT_EQ(log.statuses[""], Status::invalid);
}

TYPED_TEST(Batch, a_store_that_is_down_runs_nothing_and_the_observer_is_told) {
    Log log;
    const std::string first = std::is_same_v<TypeParam, Leased> ? "claim_all" : "begin";
    this->store_.script.fail({first, 1, fault(Fault::unavailable)});
    EXPECT_EQ(came_out([&] {
                  return this->wrapped({.observer = &log}).batch(Orders{{"m-1"}, {"m-2"}}).front();
              }),
              "store unavailable");
    EXPECT_TRUE(this->ran_.empty());
    EXPECT_GE(log.faults, 1U);
}

/// One of a partition's messages.
idem::Identity placed(const Order& order) {
    auto identity = identity_of(order);
    identity.position = idem::Position{order.payload, 1, 1}; // the payload names the partition
    return identity;
}

TYPED_TEST(Batch, r6_9_behind_one_that_comes_again_nothing_of_its_partition_starts) {
    using Given = typename TestFixture::Context;
    const auto bill = idem::IdempotentConsumer{this->store_, typename TestFixture::Strategy{}}.wrap(
        "billing", &placed, [this](const Order& order, Given&) {
            this->ran_.push_back(order.id);
            if (this->failing_.count(order.id) != 0) {
                std::rethrow_exception(this->failing_[order.id]);
            }
        });
    this->let_fail("a-2");
    const Orders orders{{"a-1", "a"}, {"a-2", "a"}, {"b-1", "b"}, {"a-3", "a"}, {"b-2", "b"}};
    EXPECT_EQ(this->statuses(bill.batch(orders)),
              "executed, failed, executed, in progress, executed");
    EXPECT_EQ(this->ran_, (std::vector<std::string>{"a-1", "a-2", "b-1", "b-2"}));
    EXPECT_EQ(this->store_.attempts("billing", "a-3"), 0U) << "r3_1: it did not start";
    this->failing_.clear();
    EXPECT_EQ(this->statuses(bill.batch(orders)),
              "replayed, executed, replayed, executed, replayed");
}

TYPED_TEST(Batch, r6_9_a_message_that_is_given_up_lets_its_partition_go_on) {
    using Given = typename TestFixture::Context;
    const auto bill = idem::IdempotentConsumer{this->store_, typename TestFixture::Strategy{}}.wrap(
        "billing", &placed, [](const Order& order, Given&) {
            if (order.id == "a-1") {
                throw idem::Unprocessable("no customer");
            }
        });
    EXPECT_EQ(this->statuses(bill.batch(Orders{{"a-1", "a"}, {"a-2", "a"}})), "failed, executed");
}

TYPED_TEST(Batch, r6_9_a_duplicate_of_a_failed_first_holds_back_its_own_partition) {
    using Given = typename TestFixture::Context;
    const auto bill = idem::IdempotentConsumer{this->store_, typename TestFixture::Strategy{}}.wrap(
        "billing",
        [](const Order& order) {
            return idem::Identity{.id = order.id, .position = idem::Position{order.payload, 1, 1}};
        },
        [this](const Order& order, Given&) {
            this->ran_.push_back(order.id);
            if (order.id == "m-1") {
                throw std::runtime_error("no stock");
            }
        });
    const auto outcomes =
        bill.batch(Orders{{"m-1", "a"}, {"m-1", "b"}, {"b-2", "b"}, {"c-1", "c"}});
    ASSERT_EQ(outcomes.size(), 4U);
    EXPECT_EQ(outcomes[0].status(), Status::failed);
    EXPECT_EQ(outcomes[1].settlement().action, Action::retry);
    EXPECT_EQ(outcomes[2].settlement().action, Action::retry);
    EXPECT_EQ(outcomes[3].status(), Status::executed);
    EXPECT_EQ(this->ran_, (std::vector<std::string>{"m-1", "c-1"}));
}

// ---- leases

class LeasedBatch : public Batch<Leased> {};

TEST_F(LeasedBatch, costs_one_trip_to_claim_and_one_to_complete) {
    static_cast<void>(wrapped().batch(Orders{{"m-1"}, {"m-2"}, {"m-1"}, {"m-3"}}));
    EXPECT_EQ(store_.script.calls(), "claim_all complete_all");
}

TEST_F(LeasedBatch, r3_7_a_completion_that_fails_is_repeated_one_by_one_and_reruns_nothing) {
    for (const bool happened : {false, true}) {
        store_.script.forget_calls();
        ran_.clear();
        store_.script.fail(
            {.call = "complete_all", .error = fault(Fault::in_doubt), .happened = happened});
        const std::string id = happened ? "x" : "y";
        const auto outcomes = wrapped().batch(Orders{{id + "1"}, {id + "2"}});
        EXPECT_EQ(statuses(outcomes), "executed, executed");
        EXPECT_EQ(store_.script.calls(), "claim_all complete_all complete complete");
        EXPECT_EQ(ran_.size(), 2U);
    }
}

TEST_F(LeasedBatch, a_completion_that_stays_away_is_in_doubt_for_each_and_gives_nothing_back) {
    store_.script.fail_always("complete_all", fault(Fault::unavailable));
    store_.script.fail_always("complete", fault(Fault::unavailable));
    store_.script.after("complete", [] { VirtualClock::advance(idem::milliseconds{20'000}); });
    for (const auto& outcome : wrapped().batch(Orders{{"m-1"}, {"m-2"}})) {
        EXPECT_EQ(outcome.settlement().reason, idem::reason::store_in_doubt);
    }
    EXPECT_EQ(store_.script.count("abandon") + store_.script.count("refund"), 0U);
    EXPECT_EQ(ran_.size(), 2U);
}

TEST_F(LeasedBatch, r6_7_what_was_not_started_in_time_is_given_back_uncharged) {
    auto bill = idem::IdempotentConsumer{store_, idem::DistributedLock{}}.wrap(
        "billing", &Order::id, [this](const Order& order, idem::Lease&) {
            ran_.push_back(order.id);
            VirtualClock::advance(idem::milliseconds{14'000});
        });
    const auto outcomes = bill.batch(Orders{{"m-1"}, {"m-2"}, {"m-3"}, {"m-4"}});
    EXPECT_EQ(ran_, (std::vector<std::string>{"m-1", "m-2"}));
    EXPECT_EQ(outcomes[0].status(), Status::executed);
    EXPECT_EQ(outcomes[1].status(), Status::executed);
    EXPECT_EQ(outcomes[2].settlement().action, Action::retry);
    EXPECT_EQ(outcomes[3].settlement().action, Action::retry);
    EXPECT_EQ(store_.script.count("refund"), 2U);
    EXPECT_EQ(store_.attempts("billing", "m-3"), 0U);
    EXPECT_EQ(store_.attempts("billing", "m-4"), 0U);
}

TEST_F(LeasedBatch, r3_1_a_stop_gives_the_unstarted_back_uncharged) {
    std::stop_source stop;
    auto bill = idem::IdempotentConsumer{store_, idem::DistributedLock{}}.wrap(
        "billing", &Order::id, [&](const Order& order, idem::Lease&) {
            ran_.push_back(order.id);
            stop.request_stop();
        });
    const Orders orders{{"m-1"}, {"m-2"}};
    const auto outcomes = bill.batch(orders, stop.get_token());
    EXPECT_EQ(outcomes[0].status(), Status::executed);
    EXPECT_EQ(outcomes[1].settlement().action, Action::retry);
    EXPECT_EQ(store_.attempts("billing", "m-2"), 0U);
}

TEST_F(LeasedBatch, r4_2_a_taken_over_message_is_parked_alone) {
    static_cast<void>(store_.memory.claim({.key = {"billing", "m-2"}}));
    VirtualClock::advance(idem::milliseconds{30'000});
    const auto outcomes =
        wrapped({}, {.takeover = idem::Takeover::park}).batch(Orders{{"m-1"}, {"m-2"}, {"m-3"}});
    EXPECT_EQ(statuses(outcomes), "executed, parked, executed");
}

TEST_F(LeasedBatch, a_message_that_was_overtaken_is_lease_lost_alone) {
    bool first = true;
    auto bill = idem::IdempotentConsumer{store_, idem::DistributedLock{}}.wrap(
        "billing", &Order::id, [&](const Order&, idem::Lease&) {
            if (std::exchange(first, false)) {
                return;
            }
            VirtualClock::advance(idem::milliseconds{30'000});
            static_cast<void>(store_.memory.claim({.key = {"billing", "m-1"}}));
        });
    const auto outcomes = bill.batch(Orders{{"m-1"}, {"m-2"}});
    EXPECT_EQ(outcomes[0].settlement().reason, idem::reason::lease_lost);
    EXPECT_EQ(outcomes[1].status(), Status::executed);
}

// ---- transactions

class JoinedBatch : public Batch<Joined> {};

TEST_F(JoinedBatch, r1_2_records_come_last_and_for_the_succeeded_alone) {
    let_fail("m-2");
    static_cast<void>(wrapped().batch(Orders{{"m-1"}, {"m-2"}, {"m-3"}}));
    EXPECT_EQ(store_.script.calls(),
              "begin claim savepoint write savepoint write back savepoint write complete commit "
              "record_failure");
    EXPECT_EQ(store_.effects(), 2U);
    EXPECT_EQ(store_.effects("m-2"), 0U);
}

TEST_F(JoinedBatch, r6_7_at_most_64_messages_to_a_transaction) {
    Orders orders;
    for (int number = 0; number < 130; ++number) {
        orders.push_back({"m-" + std::to_string(number)});
    }
    const auto outcomes = wrapped().batch(orders);
    EXPECT_EQ(outcomes.size(), 130U);
    EXPECT_EQ(store_.effects(), 130U);
    EXPECT_EQ(store_.script.count("begin"), 3U);
    EXPECT_EQ(store_.script.count("commit"), 3U);
}

TEST_F(JoinedBatch, r6_9_a_held_partition_stays_held_in_the_next_transaction) {
    for (const std::size_t chunk : {1U, 2U, 64U}) {
        ran_.clear();
        const auto bill = idem::IdempotentConsumer{store_, idem::DedupTable{.chunk = chunk}}.wrap(
            "billing/" + std::to_string(chunk), &placed, [this](const Order& order, Context&) {
                ran_.push_back(order.id);
                if (order.id == "a-1") {
                    throw std::runtime_error("no stock");
                }
            });
        const auto outcomes = bill.batch(Orders{{"a-1", "a"}, {"b-1", "b"}, {"a-2", "a"}});
        EXPECT_EQ(statuses(outcomes), "failed, executed, in progress") << chunk;
        EXPECT_EQ(ran_, (std::vector<std::string>{"a-1", "b-1"})) << chunk;
    }
}

TEST_F(JoinedBatch, r6_7_duplicates_in_different_transactions_replay) {
    const auto outcomes =
        wrapped({}, {.chunk = 2}).batch(Orders{{"m-1"}, {"m-2"}, {"m-1"}, {"m-3"}, {"m-1"}});
    EXPECT_EQ(statuses(outcomes), "executed, executed, replayed, executed, replayed");
    EXPECT_EQ(store_.effects("m-1"), 1U);
}

TEST_F(JoinedBatch, r6_7_a_commit_that_conflicted_is_tried_once_more_as_a_whole) {
    store_.script.fail({.call = "commit", .error = fault(Fault::unavailable), .conflict = true});
    const auto outcomes = wrapped().batch(Orders{{"m-1"}, {"m-2"}});
    EXPECT_EQ(statuses(outcomes), "executed, executed");
    EXPECT_EQ(store_.effects(), 2U);
    EXPECT_EQ(store_.script.count("begin"), 2U);
    EXPECT_EQ(store_.script.count("record_failure"), 0U);
}

TEST_F(JoinedBatch, r6_7_and_then_singly_so_that_one_bad_message_fails_alone) {
    // A deferred constraint: the commit of any transaction that holds m-2 fails.
    bool bad = false;
    store_.script.after("write", [&] { bad = bad || ran_.back() == "m-2"; });
    store_.script.after("rollback", [&] { bad = false; });
    store_.script.after("complete", [&] {
        if (bad) {
            throw std::runtime_error("duplicate key");
        }
    });
    const auto outcomes = wrapped().batch(Orders{{"m-1"}, {"m-2"}, {"m-3"}});
    EXPECT_EQ(statuses(outcomes), "executed, failed, executed");
    EXPECT_FALSE(outcomes[1].has_value());
    EXPECT_EQ(store_.effects("m-1") + store_.effects("m-3"), 2U);
    EXPECT_EQ(store_.effects("m-2"), 0U);
    EXPECT_EQ(store_.attempts("billing", "m-2"), 1U);
    EXPECT_EQ(store_.open(), 0U);
}

TEST_F(JoinedBatch, r2_1_a_commit_in_doubt_is_never_rerun) {
    for (const bool happened : {false, true}) {
        store_.script.forget_calls();
        ran_.clear();
        store_.script.fail(
            {.call = "commit", .error = fault(Fault::in_doubt), .happened = happened});
        const std::string id = happened ? "x" : "y";
        const auto out = came_out([&] {
            return wrapped().batch(Orders{{id + "1"}, {id + "2"}}).front();
        });
        EXPECT_TRUE(out == "store in doubt" || out == "failed") << out;
        EXPECT_EQ(ran_.size(), 2U);
        EXPECT_EQ(store_.effects(id + "1"), happened ? 1U : 0U);
        EXPECT_EQ(store_.script.count("record_failure"), 0U);
    }
}

TEST_F(JoinedBatch, r3_3_a_suspect_delivery_goes_alone_and_is_charged_first) {
    auto bill = idem::IdempotentConsumer{store_, idem::DedupTable{}, {.max_attempts = 3}}.wrap(
        "billing",
        [](const Order& order) {
            return idem::Identity{.id = order.id, .redelivered = order.id == "m-2"};
        },
        [](const Order& order, ScriptedTable::Transaction& tx) { tx.write(order.id); });
    const auto outcomes = bill.batch(Orders{{"m-1"}, {"m-2"}, {"m-3"}});
    EXPECT_EQ(statuses(outcomes), "executed, executed, executed");
    EXPECT_EQ(store_.script.count("record_failure"), 1U);
    EXPECT_EQ(store_.script.count("begin"), 3U);
    EXPECT_EQ(store_.effects(), 3U);
}

} // namespace
