// SPDX-License-Identifier: MIT
// DistributedLock: what each failing call and each exception comes to (semantics.md §2–4).

#include <idem/consumer.hpp>
#include <idem/strategy/distributed_lock.hpp>

#include <gtest/gtest.h>

#include <functional>
#include <ostream>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "strategy/came_out.hpp"
#include "strategy/scripted_leases.hpp"

namespace {

using idem::Action;
using idem::DistributedLock;
using idem::Fault;
using idem::Lease;
using idem::milliseconds;
using idem::Status;
using idem::Takeover;

constexpr milliseconds lease{30'000};

struct Order {
    std::string id = "m-1";
};

struct Row {
    std::string name;
    std::vector<Failure> failures;
    std::function<void(Lease&)> handler;
    std::string out, settlement;
    unsigned runs;
    std::string ended;     ///< how the claim ended: complete, abandon, refund, or nothing
    unsigned charged;      ///< attempts that the next claim finds; 0 where it finds a record
    std::string next = ""; ///< what the redelivery comes to; its handler succeeds
};

std::ostream& operator<<(std::ostream& out, const Row& row) {
    return out << row.name;
}

const auto nothing = [](Lease&) {};

std::function<void(Lease&)> throws(auto error) {
    return [error](Lease&) { throw error; };
}

const std::vector<Row>& rows() {
    static const std::vector<Row> all{
        {"success", {}, nothing, "executed", "ack", 1, "complete", 0, "replayed"},
        {"claim_unavailable",
         {{"claim", 1, fault(Fault::unavailable)}},
         nothing,
         "store unavailable",
         "retry",
         0,
         "",
         0,
         "executed"},
        {"claim_rejected",
         {{"claim", 1, fault(Fault::rejected)}},
         nothing,
         "store rejected",
         "stop",
         0,
         "",
         0,
         "executed"},
        {"claim_in_doubt_that_happened_holds_the_key_until_the_lease_ends",
         {{.call = "claim", .error = fault(Fault::in_doubt), .happened = true}},
         nothing,
         "store in doubt",
         "retry",
         0,
         "",
         0,
         "in progress"},
        {"r3_5_handler_throws",
         {},
         throws(std::out_of_range("no stock")),
         "no stock",
         "retry",
         1,
         "abandon",
         1,
         "executed"},
        {"r3_5_handler_throws_what_is_no_std_exception",
         {},
         throws(7),
         "int 7",
         "retry",
         1,
         "abandon",
         1,
         "executed"},
        {"r3_1_retry_later_is_refunded",
         {},
         throws(idem::RetryLater(milliseconds{700})),
         "idem: retry later",
         "retry",
         1,
         "refund",
         0,
         "executed"},
        {"r3_5_not_done_gives_the_key_back",
         {},
         throws(idem::NotDone("connection refused")),
         "connection refused",
         "retry",
         1,
         "abandon",
         1,
         "executed"},
        {"r3_5_unprocessable_is_dead_lettered",
         {},
         throws(idem::Unprocessable("no such customer")),
         "no such customer",
         "dead-letter",
         1,
         "abandon",
         1,
         "executed"},
        {"r3_9_a_nested_store_error_is_the_handlers",
         {},
         throws(idem::StoreError(Fault::rejected, "the other store")),
         "store rejected",
         "retry",
         1,
         "abandon",
         1,
         "executed"},
        {"r3_7_complete_unavailable_once_is_repeated",
         {{"complete", 1, fault(Fault::unavailable)}},
         nothing,
         "executed",
         "ack",
         1,
         "complete complete",
         0,
         "replayed"},
        {"r2_3_complete_in_doubt_that_happened_is_repeated",
         {{.call = "complete", .error = fault(Fault::in_doubt), .happened = true}},
         nothing,
         "executed",
         "ack",
         1,
         "complete complete",
         0,
         "replayed"},
        {"r2_3_complete_in_doubt_that_did_not_happen_is_repeated",
         {{"complete", 1, fault(Fault::in_doubt)}},
         nothing,
         "executed",
         "ack",
         1,
         "complete complete",
         0,
         "replayed"},
        {"r3_7_complete_rejected_gives_nothing_back",
         {{"complete", 1, fault(Fault::rejected)}},
         nothing,
         "store rejected",
         "stop",
         1,
         "complete",
         0,
         "in progress"},
        {"r3_7_complete_lease_lost_gives_nothing_back",
         {{"complete", 1, fault(Fault::lease_lost)}},
         nothing,
         "lease lost",
         "retry",
         1,
         "complete",
         0,
         "in progress"},
    };
    return all;
}

class Faults : public ::testing::TestWithParam<Row> {
protected:
    void SetUp() override {
        for (const auto& failure : GetParam().failures) {
            store_.script.fail(failure);
        }
    }
    auto wrapped() {
        return idem::IdempotentConsumer{store_, DistributedLock{}}.wrap(
            "billing", &Order::id, [this](const Order&, Lease& held) {
                ++runs_;
                GetParam().handler(held);
            });
    }
    void expect_row() {
        const auto calls = store_.script.calls();
        const auto ended = calls.size() > 6 ? calls.substr(6) : ""; // after "claim "
        EXPECT_EQ(runs_, GetParam().runs);
        EXPECT_EQ(ended, GetParam().ended);
        EXPECT_EQ(store_.attempts("billing", "m-1"), GetParam().charged);
        store_.script.forget_calls();
        const auto good = idem::IdempotentConsumer{store_, DistributedLock{}}.wrap(
            "billing", &Order::id, [](const Order&) {});
        EXPECT_EQ(came_out([&] { return good(Order{}); }), GetParam().next);
    }

    PowerfulLeases store_;
    unsigned runs_ = 0;
};

TEST_P(Faults, plain_call) {
    const auto bill = wrapped();
    EXPECT_EQ(came_out([&] { return bill(Order{}); }), GetParam().out);
    expect_row();
}

TEST_P(Faults, handle_never_throws) {
    const auto bill = wrapped();
    const auto outcome = bill.handle(Order{});
    EXPECT_EQ(name_of(outcome.settlement().action), GetParam().settlement);
    EXPECT_EQ(outcome.has_value(), outcome.status() == Status::executed);
    expect_row();
}

INSTANTIATE_TEST_SUITE_P(DistributedLock, Faults, ::testing::ValuesIn(rows()), [](const auto& row) {
    return row.param.name;
});

template <class Store>
class Calls : public ::testing::Test {
protected:
    template <class Handler>
    auto wrapped(Handler handler, DistributedLock strategy = {}) {
        return idem::IdempotentConsumer{store_, strategy}.wrap(
            "billing", &Order::id, std::move(handler));
    }
    /// Another owner holds the key, and its lease has run out.
    void crashed_owner(std::string_view id = "m-1") {
        static_cast<void>(store_.memory.claim({.key = {"billing", id}, .lease = lease}));
        VirtualClock::advance(lease);
    }
    auto counting() {
        return [this](const Order&) {
            ++runs_;
            return std::string("receipt");
        };
    }

    Store store_;
    unsigned runs_ = 0;
};

using LockCalls = Calls<PowerfulLeases>;
using PlainLockCalls = Calls<PlainLeases>;

TEST_F(LockCalls, a_duplicate_replays_and_does_not_run) {
    const auto bill = wrapped(counting());
    EXPECT_EQ(bill(Order{}).value(), "receipt");
    EXPECT_EQ(bill(Order{}).status(), Status::replayed);
    EXPECT_EQ(bill(Order{}).value(), "receipt");
    EXPECT_EQ(runs_, 1U);
    EXPECT_EQ(store_.script.calls(), "claim complete claim claim");
}

TEST_F(LockCalls, a_key_at_work_is_in_progress_and_retried_after_the_lease_at_most) {
    const auto bill = wrapped([this](const Order& order, Lease&) {
        ++runs_;
        const auto duplicate = wrapped(counting())(order);
        EXPECT_EQ(duplicate.status(), Status::in_progress);
        EXPECT_EQ(duplicate.settlement().action, Action::retry);
        EXPECT_GT(duplicate.retry_after(), milliseconds{0});
        EXPECT_LE(duplicate.retry_after(), lease * 6 / 5);
    });
    EXPECT_EQ(bill(Order{}).status(), Status::executed);
    EXPECT_EQ(runs_, 1U);
}

TEST_F(PlainLockCalls, r3_1_a_store_without_refund_is_abandoned) {
    const auto bill =
        wrapped([](const Order&, Lease&) { throw idem::RetryLater(milliseconds{1}); });
    static_cast<void>(bill.handle(Order{}));
    EXPECT_EQ(store_.script.calls(), "claim abandon");
}

TEST_F(LockCalls,
       r2_3_complete_that_fails_until_the_lease_ends_is_in_doubt_and_gives_nothing_back) {
    store_.script.fail_always("complete", fault(Fault::unavailable));
    store_.script.after("complete", [] { VirtualClock::advance(lease / 3); });
    const auto bill = wrapped(counting());
    const auto outcome = bill.handle(Order{});
    EXPECT_EQ(outcome.settlement().reason, idem::reason::store_in_doubt)
        << "unavailable would say that the handler did not run";
    EXPECT_EQ(runs_, 1U);
    EXPECT_EQ(store_.script.count("abandon") + store_.script.count("refund"), 0U);
    EXPECT_GE(store_.script.count("complete"), 3U);
}

TEST_F(LockCalls, complete_of_an_overtaken_claim_is_lease_lost) {
    const auto bill = wrapped([this](const Order&, Lease&) {
        VirtualClock::advance(lease);
        EXPECT_EQ(wrapped(counting())(Order{}).status(), Status::executed);
    });
    const auto outcome = bill.handle(Order{});
    EXPECT_EQ(outcome.settlement().reason, idem::reason::lease_lost);
    EXPECT_EQ(outcome.settlement().action, Action::retry);
    EXPECT_EQ(store_.script.count("abandon"), 0U);
    EXPECT_EQ(wrapped(counting())(Order{}).value(), "receipt") << "the new owner's stands";
}

TEST_F(LockCalls, r3_4_attempts_used_up_are_dead) {
    idem::IdempotentConsumer consumer{store_, DistributedLock{}, {.max_attempts = 2}};
    const auto bill = consumer.wrap("billing", &Order::id, [this](const Order&) {
        ++runs_;
        throw std::runtime_error("no stock");
    });
    for (unsigned attempt = 1; attempt <= 2; ++attempt) {
        const auto failed = bill.handle(Order{});
        EXPECT_EQ(failed.settlement().action, Action::retry);
        EXPECT_EQ(failed.attempts(), attempt);
    }
    const auto dead = bill(Order{});
    EXPECT_EQ(dead.status(), Status::dead);
    EXPECT_EQ(dead.settlement().action, Action::dead_letter);
    EXPECT_EQ(dead.settlement().attempts, 2U);
    EXPECT_EQ(runs_, 2U);
}

// ---- no handler starts too late

TEST_F(LockCalls, r4_1_no_handler_starts_below_min_remaining) {
    store_.script.after("claim", [] { VirtualClock::advance(milliseconds{26'000}); });
    const auto outcome = wrapped(counting())(Order{});
    EXPECT_EQ(outcome.settlement().action, Action::retry);
    EXPECT_EQ(runs_, 0U);
    EXPECT_EQ(store_.script.calls(), "claim refund");
    EXPECT_EQ(store_.attempts("billing", "m-1"), 0U);
}

TEST_F(LockCalls, r4_1_remaining_counts_from_before_the_claim_was_sent) {
    store_.script.after("claim", [] { VirtualClock::advance(milliseconds{10'000}); });
    const auto bill = wrapped([](const Order&, Lease& held) {
        EXPECT_LE(held.remaining(), milliseconds{20'000});
        EXPECT_GT(held.remaining(), milliseconds{15'000});
        VirtualClock::advance(milliseconds{20'000});
        EXPECT_LE(held.remaining(), milliseconds{0});
        held.ensure_held();
    });
    const auto outcome = bill.handle(Order{});
    EXPECT_EQ(outcome.settlement().action, Action::retry);
    EXPECT_THROW(std::rethrow_exception(outcome.error()), idem::StoreError);
}

TEST_F(LockCalls, a_short_lease_below_min_remaining_still_runs) {
    EXPECT_EQ(wrapped(counting(), {.lease = milliseconds{1'000}})(Order{}).status(),
              Status::executed);
}

TEST_F(LockCalls, r3_1_a_stop_before_the_handler_refunds) {
    std::stop_source stop;
    stop.request_stop();
    const auto outcome = wrapped(counting())(Order{}, stop.get_token());
    EXPECT_EQ(outcome.settlement().action, Action::retry);
    EXPECT_EQ(runs_, 0U);
    EXPECT_EQ(store_.attempts("billing", "m-1"), 0U);
    EXPECT_EQ(store_.script.count("abandon"), 0U);
}

TEST_F(LockCalls, a_stop_reaches_the_handler_and_what_it_finished_is_completed) {
    std::stop_source stop;
    const auto bill = wrapped([&](const Order&, Lease& held) {
        EXPECT_FALSE(held.stop_token().stop_requested());
        stop.request_stop();
        EXPECT_TRUE(held.stop_token().stop_requested());
    });
    EXPECT_EQ(bill(Order{}, stop.get_token()).status(), Status::executed);
    EXPECT_EQ(store_.script.calls(), "claim complete");
}

TEST_F(LockCalls, the_lease_tells_attempt_and_fence) {
    std::vector<std::uint64_t> fences;
    std::vector<unsigned> attempts;
    const auto bill = wrapped([&](const Order&, Lease& held) {
        fences.push_back(held.fence());
        attempts.push_back(held.attempt());
        throw std::runtime_error("no stock");
    });
    static_cast<void>(bill.handle(Order{}));
    static_cast<void>(bill.handle(Order{}));
    ASSERT_EQ(attempts, (std::vector<unsigned>{1, 2}));
    EXPECT_GT(fences[1], fences[0]);
}

TEST_F(LockCalls, r8_a_derived_key_depends_on_scope_id_and_step_alone) {
    std::set<std::string> keys;
    auto key_of = [&](const std::string& scope, const std::string& id, const std::string& step) {
        std::string key;
        for (int attempt = 0; attempt < 2; ++attempt) {
            try {
                auto outcome = idem::IdempotentConsumer{store_, DistributedLock{}}(
                    scope, id, [&](Lease& held) {
                        EXPECT_TRUE(key.empty() || key == held.derived_key(step)) << "per attempt";
                        key = held.derived_key(step);
                        throw std::runtime_error("again");
                    });
                ADD_FAILURE() << to_string(outcome.status());
            } catch (const std::runtime_error&) { // NOLINT(bugprone-empty-catch)
            }
        }
        return key;
    };
    keys.insert(key_of("billing", "m-1", "charge"));
    keys.insert(key_of("billing", "m-1", "refund"));
    keys.insert(key_of("billing", "m-2", "charge"));
    keys.insert(key_of("shipping", "m-1", "charge"));
    keys.insert(key_of("billing", "m-1c", "harge"));
    keys.insert(key_of("billingm", "-1", "charge"));
    EXPECT_EQ(keys.size(), 6U);
    EXPECT_EQ(keys.count(""), 0U);
}

// ---- takeover: an unknown outcome

class Provider : public idem::Verifier {
public:
    std::function<idem::Effect(std::string&)> answer;
    unsigned asked = 0;
    idem::Effect verify(idem::Key key, std::string& result) override {
        ++asked;
        EXPECT_EQ(key, (idem::Key{"billing", "m-1"}));
        return answer(result);
    }
};

class TakeoverCalls : public LockCalls {
protected:
    Provider provider_;
    const DistributedLock park_{.takeover = Takeover::park};
    const DistributedLock ask_{.takeover = Takeover::ask, .verifier = &provider_};
};

TEST_F(TakeoverCalls, r4_2_rerun_runs_again_and_says_so) {
    crashed_owner();
    const auto outcome = wrapped(counting())(Order{});
    EXPECT_EQ(outcome.status(), Status::executed);
    EXPECT_TRUE(outcome.verdict().takeover);
    EXPECT_EQ(outcome.attempts(), 2U);
    EXPECT_EQ(runs_, 1U);
}

TEST_F(TakeoverCalls, r4_2_park_parks_until_a_human_decides) {
    crashed_owner();
    const auto bill = wrapped(counting(), park_);
    for (int redelivery = 0; redelivery < 3; ++redelivery) {
        const auto outcome = bill(Order{});
        EXPECT_EQ(outcome.status(), Status::parked);
        EXPECT_EQ(outcome.settlement().action, Action::dead_letter);
        EXPECT_EQ(outcome.settlement().reason, idem::reason::parked);
        VirtualClock::advance(lease);
    }
    EXPECT_EQ(runs_, 0U);
    EXPECT_EQ(store_.script.count("park"), 1U);
}

TEST_F(TakeoverCalls, r4_2_a_first_claim_is_never_parked_or_asked_about) {
    EXPECT_EQ(wrapped(counting(), park_)(Order{}).status(), Status::executed);
    EXPECT_EQ(wrapped(counting(), ask_)(Order{"m-2"}).status(), Status::executed);
    EXPECT_EQ(provider_.asked, 0U);
}

TEST_F(TakeoverCalls, r4_2_ask_done_completes_with_the_result_and_replays_it) {
    crashed_owner();
    provider_.answer = [](std::string& result) {
        result = "receipt of the provider";
        return idem::Effect::done;
    };
    const auto bill = wrapped(counting(), ask_);
    for (int redelivery = 0; redelivery < 2; ++redelivery) {
        const auto outcome = bill(Order{});
        EXPECT_EQ(outcome.status(), Status::replayed);
        EXPECT_EQ(outcome.value(), "receipt of the provider");
        EXPECT_EQ(outcome.settlement().action, Action::ack);
    }
    EXPECT_EQ(runs_, 0U);
    EXPECT_EQ(provider_.asked, 1U);
}

TEST_F(TakeoverCalls, r4_2_ask_done_of_a_void_handler_replays) {
    crashed_owner();
    provider_.answer = [](std::string&) { return idem::Effect::done; };
    const auto bill = wrapped([](const Order&) {}, ask_);
    EXPECT_TRUE(bill(Order{}).has_value());
    EXPECT_TRUE(bill(Order{}).has_value());
}

TEST_F(TakeoverCalls, r4_2_ask_not_done_runs) {
    crashed_owner();
    provider_.answer = [](std::string&) { return idem::Effect::not_done; };
    EXPECT_EQ(wrapped(counting(), ask_)(Order{}).status(), Status::executed);
    EXPECT_EQ(runs_, 1U);
}

TEST_F(TakeoverCalls, r4_2_ask_unknown_or_a_throw_parks) {
    crashed_owner();
    provider_.answer = [](std::string&) { return idem::Effect::unknown; };
    EXPECT_EQ(wrapped(counting(), ask_)(Order{}).status(), Status::parked);

    crashed_owner("m-2");
    struct Throwing final : idem::Verifier {
        idem::Effect verify(idem::Key, std::string&) override { throw std::runtime_error("down"); }
    } down;
    const auto bill = wrapped(counting(), {.takeover = Takeover::ask, .verifier = &down});
    EXPECT_EQ(bill(Order{"m-2"}).status(), Status::parked);
    EXPECT_EQ(runs_, 0U);
}

TEST_F(TakeoverCalls, r4_2_the_policy_comes_before_a_stop_or_a_short_lease) {
    crashed_owner();
    std::stop_source stop;
    stop.request_stop();
    EXPECT_EQ(wrapped(counting(), park_)(Order{}, stop.get_token()).status(), Status::parked)
        << "a refund would let the next claim run without asking";
}

TEST_F(TakeoverCalls, r4_2_under_park_and_ask_an_exception_does_not_give_the_key_back) {
    for (const auto& policy : {park_, ask_}) {
        const Order order{policy.takeover == Takeover::park ? "m-1" : "m-2"};
        store_.script.forget_calls();
        const auto failing =
            wrapped([](const Order&) { throw std::runtime_error("timeout"); }, policy);
        EXPECT_EQ(came_out([&] { return failing(order); }), "timeout");
        EXPECT_EQ(store_.script.calls(), "claim");
        EXPECT_EQ(wrapped(counting(), policy)(order).status(), Status::in_progress);
    }
    VirtualClock::advance(lease);
    EXPECT_EQ(wrapped(counting(), park_)(Order{"m-1"}).status(), Status::parked);
    EXPECT_EQ(runs_, 0U);
}

TEST_F(TakeoverCalls, r4_2_under_park_not_done_and_retry_later_give_the_key_back) {
    const auto not_done = wrapped([](const Order&) { throw idem::NotDone("refused"); }, park_);
    EXPECT_EQ(came_out([&] { return not_done(Order{}); }), "refused");
    EXPECT_EQ(store_.script.calls(), "claim abandon");
    store_.script.forget_calls();
    const auto later =
        wrapped([](const Order&) { throw idem::RetryLater(milliseconds{1}); }, park_);
    EXPECT_EQ(came_out([&] { return later(Order{}); }), "idem: retry later");
    EXPECT_EQ(store_.script.calls(), "claim refund");
    EXPECT_EQ(wrapped(counting(), park_)(Order{}).status(), Status::executed);
}

TEST_F(PlainLockCalls,
       takeover_park_or_ask_over_a_store_that_cannot_park_is_refused_at_the_first_call) {
    Provider provider;
    for (const auto& policy : {DistributedLock{.takeover = Takeover::park},
                               DistributedLock{.takeover = Takeover::ask, .verifier = &provider}}) {
        const auto outcome = wrapped(counting(), policy).handle(Order{});
        EXPECT_EQ(outcome.settlement().action, Action::stop);
        EXPECT_NE(outcome.settlement().detail.find("park"), std::string::npos);
    }
    EXPECT_EQ(store_.script.calls(), "");
    EXPECT_EQ(runs_, 0U);
}

TEST_F(TakeoverCalls, ask_without_a_verifier_is_refused_at_the_first_call) {
    const auto bill = wrapped(counting(), {.takeover = Takeover::ask});
    EXPECT_EQ(bill.handle(Order{}).settlement().action, Action::stop);
    EXPECT_EQ(store_.script.calls(), "");
}

} // namespace
