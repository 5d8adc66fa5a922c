// SPDX-License-Identifier: MIT
// What idem::run tells the source of each outcome.
#include "scripted_source.hpp"

namespace idem::broker_tests {
namespace {

/// Runs one delivery whose handler answers `answer` until it was settled, or idle twice.
struct OneDelivery {
    ScriptedSource source;
    CountingObserver observer;
    std::atomic<int> handled{0};

    void run(const Verdict& answer, RunOptions options = {}) {
        std::stop_source stop;
        source.put(Ids{"a"});
        source.on_idle = [&] { stop.request_stop(); };
        options.observer = &observer;
        run_virtually(source,
                      Handler{[&](const Delivery&, const std::stop_token&) {
                          ++handled;
                          return answer;
                      }},
                      stop.get_token(),
                      options);
    }
};

TEST(Run, r7_what_is_done_is_acked_once) {
    for (const auto status : {Status::executed, Status::replayed, Status::skipped}) {
        OneDelivery one;
        one.run(verdict(status));
        EXPECT_EQ(one.source.ids("ack"), Ids{"a"}) << to_string(status);
        EXPECT_EQ(one.source.settlements("a"), 1U);
        EXPECT_EQ(one.handled, 1);
        ASSERT_EQ(one.observer.settlements.size(), 1U);
        EXPECT_EQ(one.observer.settlements[0].second, Settled::yes);
    }
}

TEST(Run, r7_what_no_rerun_helps_is_dead_lettered_with_the_reason) {
    const std::pair<Status, std::string_view> rows[] = {{Status::conflict, reason::conflict},
                                                        {Status::dead, reason::dead},
                                                        {Status::parked, reason::parked},
                                                        {Status::refused, reason::token_unknown},
                                                        {Status::invalid, reason::invalid_key}};
    for (const auto& [status, why] : rows) {
        OneDelivery one;
        one.run(verdict(status));
        ASSERT_EQ(one.source.ids("dead_letter"), Ids{"a"}) << to_string(status);
        EXPECT_EQ(one.source.calls("dead_letter")[0].settlement.reason, why);
        EXPECT_EQ(one.source.settlements("a"), 1U);
    }
}

TEST(Run, r7_unprocessable_is_dead_lettered_with_what_the_handler_said) {
    OneDelivery one;
    one.run(failed(std::make_exception_ptr(Unprocessable("no such account"))));
    ASSERT_EQ(one.source.ids("dead_letter"), Ids{"a"});
    EXPECT_EQ(one.source.calls("dead_letter")[0].settlement.reason, reason::unprocessable);
    EXPECT_EQ(one.source.calls("dead_letter")[0].settlement.detail, "no such account");
}

TEST(Run, r7_without_room_to_hold_a_retry_goes_to_the_source_with_its_delay) {
    OneDelivery one;
    one.run(failed(std::make_exception_ptr(std::runtime_error("boom"))), {.hold = 0});
    ASSERT_EQ(one.source.ids("retry"), Ids{"a"});
    const auto told = one.source.calls("retry")[0].settlement;
    EXPECT_EQ(told.reason, reason::handler_failed);
    EXPECT_EQ(told.detail, "boom");
    EXPECT_GE(told.delay, 200ms);
    EXPECT_LE(told.delay, 240ms);
}

TEST(Run, r7_rejected_settles_nothing_and_is_thrown) {
    OneDelivery one;
    try {
        one.run(store_failed(Fault::rejected, "no such table"));
        FAIL() << "run() returned";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::rejected);
        EXPECT_STREQ(error.what(), "no such table");
    }
    EXPECT_EQ(one.source.settlements("a") - one.source.calls("extend").size(), 0U);
}

TEST(Run, r7_a_stop_without_an_error_is_thrown_as_rejected) {
    struct Answer {
        [[nodiscard]] static Settlement settlement() {
            return {Action::stop, 0ms, reason::store_rejected, "the table is gone"};
        }
    };
    struct Stopping {
        [[nodiscard]] Answer handle(const Delivery&, const std::stop_token&) const noexcept {
            return {};
        }
    };
    ScriptedSource source;
    source.put(Ids{"a"});
    try {
        run_virtually(source, Stopping{}, {});
        FAIL() << "run() returned";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::rejected);
        EXPECT_STREQ(error.what(), "idem: the table is gone");
    }
}

TEST(Run, r9_14_a_settlement_in_doubt_is_not_repeated) {
    OneDelivery one;
    one.source.on_settle = [](Delivery&, const Settlement&) { return Settled::in_doubt; };
    one.run(verdict(Status::executed));
    EXPECT_EQ(one.source.settlements("a"), 1U);
    ASSERT_EQ(one.observer.settlements.size(), 1U);
    EXPECT_EQ(one.observer.settlements[0].second, Settled::in_doubt);
}

struct Inspected : Delivery {
    [[nodiscard]] std::optional<Settlement> defect() const { return broken; }
};
struct InspectingSource {
    using Delivery = Inspected;
    std::vector<Inspected> inbox;
    std::vector<Settlement> settled;
    std::stop_source stop;
    std::vector<Inspected> receive(milliseconds time) {
        if (inbox.empty() && time > 0ms) {
            stop.request_stop();
        }
        return std::exchange(inbox, {});
    }
    Settled settle(Inspected&, const Settlement& settlement) {
        settled.push_back(settlement);
        return Settled::yes;
    }
    static bool extend(Inspected&, milliseconds) { return true; }
};

TEST(Run, a_delivery_with_a_defect_reaches_no_handler) {
    InspectingSource source;
    source.inbox.push_back({Delivery{
        .id = "a", .broken = Settlement{Action::dead_letter, 0ms, reason::trimmed, "gone"}}});
    std::atomic<int> handled{0};
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      ++handled;
                      return verdict(Status::executed);
                  }},
                  source.stop.get_token());
    EXPECT_EQ(handled, 0);
    ASSERT_EQ(source.settled.size(), 1U);
    EXPECT_EQ(source.settled[0].reason, reason::trimmed);
}

TEST(Run, a_source_that_can_is_told_many_acks_at_once) {
    struct Bulk : ScriptedSource {
        std::vector<Settled> acknowledge(std::span<Delivery* const> deliveries) {
            for (Delivery* delivery : deliveries) {
                note({.what = "ack", .id = delivery->id});
            }
            widest = std::max(widest, deliveries.size());
            std::vector<Settled> answers(deliveries.size(), Settled::yes);
            return answers;
        }
        std::size_t widest = 0;
    } source;
    static_assert(BulkAckSource<Bulk>);
    std::stop_source stop;
    CountingObserver observer;
    Ids ids;
    for (int i = 0; i < 100; ++i) {
        ids.push_back(std::to_string(i));
    }
    source.put(ids);
    source.on_idle = [&] { stop.request_stop(); };
    run_virtually(
        source,
        Handler{[](const Delivery&, const std::stop_token&) { return verdict(Status::executed); }},
        stop.get_token(),
        {.observer = &observer});
    auto acked = source.ids("ack");
    std::sort(acked.begin(), acked.end());
    std::sort(ids.begin(), ids.end());
    EXPECT_EQ(acked, ids);
    EXPECT_EQ(observer.settlements.size(), 100U);
}

TEST(Run, what_is_finished_is_settled_while_the_next_of_its_chain_is_still_at_work) {
    ScriptedSource source;
    std::stop_source stop;
    Events events;
    Ids ids;
    for (int i = 0; i < 40; ++i) { // so many that the first two are handed over together
        ids.push_back(std::to_string(i));
    }
    source.put(ids);
    source.on_settle = [&, settled = 0](Delivery& delivery, const Settlement&) mutable {
        events.add("settled " + delivery.id);
        if (++settled == 40) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token&) {
                      if (delivery.id == "1") {
                          EXPECT_TRUE(events.wait("settled 0"));
                      }
                      return verdict(Status::executed);
                  }},
                  stop.get_token());
    EXPECT_EQ(source.ids("ack").size(), 40U);
}

TEST(Run, impossible_options_are_refused_with_the_field) {
    ScriptedSource source;
    const Handler handler{};
    auto refusal = [&](const RunOptions& options) -> std::string {
        try {
            run(source, handler, {}, options);
        } catch (const std::invalid_argument& error) {
            return error.what();
        }
        return "nothing";
    };
    EXPECT_NE(refusal({.concurrency = 0}).find("concurrency"), std::string::npos);
    EXPECT_NE(refusal({.batch = 0}).find("batch"), std::string::npos);
    EXPECT_NE(refusal({.batch = 8}).find("the handler has no batch"), std::string::npos);
    EXPECT_NE(refusal({.poll = 0ms}).find("poll"), std::string::npos);
    EXPECT_TRUE(source.log.empty());
}

} // namespace
} // namespace idem::broker_tests
