// SPDX-License-Identifier: MIT
// AtMostOnce: record, effect, ack, in that order (semantics.md 6.6).

#include <idem/consumer.hpp>
#include <idem/strategy/at_most_once.hpp>

#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include "strategy/came_out.hpp"
#include "strategy/scripted_leases.hpp"

namespace {

using idem::Action;
using idem::Fault;
using idem::Status;

struct Reminder {
    std::string id = "m-1";
};

class AtMostOnce : public ::testing::Test {
protected:
    auto wrapped(std::function<void()> effect = [] {}) {
        return idem::IdempotentConsumer{store_, idem::AtMostOnce{}}.wrap(
            "reminder", &Reminder::id, [this, effect = std::move(effect)](const Reminder&) {
                ++runs_;
                calls_at_run_ = store_.script.calls();
                effect();
            });
    }

    PlainLeases store_;
    unsigned runs_ = 0;
    std::string calls_at_run_;
};

TEST_F(AtMostOnce, r6_6_the_record_is_completed_before_the_handler_starts) {
    EXPECT_EQ(wrapped()(Reminder{}).status(), Status::executed);
    EXPECT_EQ(calls_at_run_, "claim complete");
    EXPECT_EQ(store_.script.calls(), "claim complete");
}

TEST_F(AtMostOnce, r6_6_an_exception_does_not_give_the_key_back) {
    const auto remind = wrapped([] { throw std::runtime_error("no network"); });
    EXPECT_EQ(came_out([&] { return remind(Reminder{}); }), "no network");
    const auto again = remind(Reminder{});
    EXPECT_EQ(again.status(), Status::skipped);
    EXPECT_EQ(again.settlement().action, Action::ack);
    EXPECT_EQ(runs_, 1U);
    EXPECT_EQ(store_.script.count("abandon"), 0U);
}

TEST_F(AtMostOnce, r6_6_a_duplicate_of_one_at_work_is_skipped) {
    const auto remind =
        wrapped([this] { EXPECT_EQ(wrapped()(Reminder{}).settlement().action, Action::ack); });
    EXPECT_EQ(remind(Reminder{}).status(), Status::executed);
    EXPECT_EQ(runs_, 1U);
}

TEST_F(AtMostOnce, r6_6_a_duplicate_of_one_just_claimed_is_skipped) {
    static_cast<void>(store_.memory.claim({.key = {"reminder", "m-1"}}));
    const auto outcome = wrapped()(Reminder{});
    EXPECT_EQ(outcome.status(), Status::skipped);
    EXPECT_EQ(runs_, 0U);
}

TEST_F(AtMostOnce, no_handler_runs_whose_record_is_not_certain) {
    const struct {
        const char* call;
        Fault fault;
        bool happened;
    } rows[] = {{"claim", Fault::unavailable, false},
                {"claim", Fault::in_doubt, true},
                {"complete", Fault::unavailable, false},
                {"complete", Fault::in_doubt, true},
                {"complete", Fault::in_doubt, false}};
    for (const auto& row : rows) {
        store_.script.forget_calls();
        store_.script.fail({.call = row.call, .error = fault(row.fault), .happened = row.happened});
        const Reminder reminder{std::string("m-") + row.call + name_of(row.fault) +
                                (row.happened ? "1" : "0")};
        EXPECT_EQ(came_out([&] { return wrapped()(reminder); }), name_of(row.fault));
    }
    EXPECT_EQ(runs_, 0U);
}

TEST_F(AtMostOnce, an_overtaken_claim_does_not_run) {
    store_.script.after("claim", [this] {
        VirtualClock::advance(std::chrono::hours(1));
        static_cast<void>(store_.memory.claim({.key = {"reminder", "m-1"}}));
    });
    EXPECT_EQ(wrapped()(Reminder{}).status(), Status::skipped);
    EXPECT_EQ(runs_, 0U);
}

} // namespace
