// SPDX-License-Identifier: MIT
// What idem::run does while the source fails.
#include "scripted_source.hpp"

namespace idem::broker_tests {
namespace {

Handler executes() {
    return {[](const Delivery&, const std::stop_token&) { return verdict(Status::executed); }};
}
StoreError away() {
    return {Fault::unavailable, "the broker is away"};
}

TEST(Run, a_source_that_is_away_is_asked_at_growing_intervals_and_work_goes_on) {
    ScriptedSource source;
    std::stop_source stop;
    CountingObserver observer;
    int failures = 8;
    source.on_receive = [&] {
        if (failures-- > 0) {
            throw away();
        }
        if (failures == -1) {
            source.put(Ids{"a"});
        }
    };
    source.on_settle = [&](Delivery&, const Settlement&) {
        stop.request_stop();
        return Settled::yes;
    };
    run_virtually(source, executes(), stop.get_token(), {.observer = &observer});
    const auto asked = source.calls("receive");
    ASSERT_GE(asked.size(), 9U);
    auto expected = 200ms;
    for (std::size_t i = 1; i < 9; ++i) {
        EXPECT_GE(asked[i].at - asked[i - 1].at, expected) << i;
        EXPECT_LE(asked[i].at - asked[i - 1].at, expected * 6 / 5 + 100ms) << i;
        expected = std::min<std::chrono::milliseconds>(expected * 2, 5s);
    }
    EXPECT_EQ(source.ids("ack"), Ids{"a"});
    EXPECT_EQ(observer.failures.size(), 8U);
    EXPECT_EQ(observer.failures[0], "the broker is away");
}

TEST(Run, a_settlement_that_did_not_happen_is_carried_out_when_the_source_is_back) {
    ScriptedSource source;
    std::stop_source stop;
    CountingObserver observer;
    source.put(Ids{"a", "b"});
    int failures = 3, done = 0;
    std::multiset<std::string> settled;
    source.on_settle = [&](Delivery& delivery, const Settlement&) {
        if (failures-- > 0) {
            throw away();
        }
        settled.insert(delivery.id);
        if (++done == 2) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    std::atomic<int> handled{0};
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      ++handled;
                      return verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.observer = &observer});
    EXPECT_EQ(handled, 2) << "handled again, instead of settled later";
    EXPECT_EQ(source.ids("ack").size(), 5U);
    EXPECT_EQ(settled, (std::multiset<std::string>{"a", "b"}));
    ASSERT_EQ(observer.settlements.size(), 2U);
    EXPECT_EQ(observer.settlements[0].second, Settled::yes);
}

TEST(Run, a_settlement_that_throws_in_doubt_is_not_repeated) {
    ScriptedSource source;
    std::stop_source stop;
    CountingObserver observer;
    source.put(Ids{"a"});
    source.on_settle = [&](Delivery&, const Settlement&) -> Settled {
        stop.request_stop();
        throw StoreError(Fault::in_doubt, "no answer");
    };
    run_virtually(source, executes(), stop.get_token(), {.observer = &observer});
    EXPECT_EQ(source.settlements("a"), 1U);
    ASSERT_EQ(observer.settlements.size(), 1U);
    EXPECT_EQ(observer.settlements[0].second, Settled::in_doubt);
}

TEST(Run, an_extension_that_cannot_be_asked_for_loses_nothing) {
    struct Renewable : ScriptedSource {
        [[nodiscard]] static DeliveryDeadline deadline() { return {30s, true}; }
    } source;
    std::stop_source stop;
    Events events;
    source.put(Ids{"a"});
    int asked = 0;
    source.on_extend = [&](Delivery&) -> bool {
        if (++asked <= 4) {
            throw away();
        }
        events.add("extended");
        return true;
    };
    source.on_settle = [&](Delivery&, const Settlement&) {
        stop.request_stop();
        return Settled::yes;
    };
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token& token) {
                      EXPECT_TRUE(events.wait("extended"));
                      EXPECT_FALSE(token.stop_requested());
                      return verdict(Status::executed);
                  }},
                  stop.get_token());
    EXPECT_EQ(source.ids("ack"), Ids{"a"});
}

TEST(Run, a_source_that_a_human_must_mend_ends_the_run) {
    ScriptedSource source;
    source.on_receive = [] { throw StoreError(Fault::rejected, "WRONGTYPE"); };
    try {
        run_virtually(source, executes(), {});
        FAIL() << "run() returned";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::rejected);
        EXPECT_STREQ(error.what(), "WRONGTYPE");
    }
    EXPECT_EQ(source.calls("receive").size(), 1U);
}

TEST(Run, a_rejected_settlement_ends_the_run_after_what_is_at_work) {
    ScriptedSource source;
    source.put(Ids{"a", "b"});
    Events events;
    source.on_settle = [&](Delivery& delivery, const Settlement&) -> Settled {
        if (delivery.id == "a") {
            events.add("rejected");
            throw StoreError(Fault::rejected, "NOPERM");
        }
        return Settled::yes;
    };
    EXPECT_THROW(run_virtually(source,
                               Handler{[&](const Delivery& delivery, const std::stop_token&) {
                                   events.add(delivery.id);
                                   EXPECT_TRUE(events.wait("b"));
                                   if (delivery.id == "b") {
                                       EXPECT_TRUE(events.wait("rejected"));
                                   }
                                   return verdict(Status::executed);
                               }},
                               {},
                               {.concurrency = 2}),
                 StoreError);
    EXPECT_EQ(source.ids("ack"), (Ids{"a", "b"}));
}

TEST(Run, what_the_source_throws_beside_its_law_comes_out_unchanged) {
    ScriptedSource source;
    source.on_receive = [] { throw std::logic_error("a bug"); };
    EXPECT_THROW(run_virtually(source, executes(), {}), std::logic_error);
}

TEST(Run, a_stop_does_not_wait_for_a_source_that_is_away_longer_than_the_grace) {
    ScriptedSource source;
    std::stop_source stop;
    CountingObserver observer;
    source.put(Ids{"a"});
    source.on_settle = [&](Delivery&, const Settlement&) -> Settled {
        stop.request_stop();
        throw away();
    };
    const auto before = VirtualClock::now();
    run_virtually(source, executes(), stop.get_token(), {.grace = 20s, .observer = &observer});
    EXPECT_GE(VirtualClock::now() - before, 20s);
    EXPECT_LE(VirtualClock::now() - before, 30s);
    ASSERT_EQ(observer.settlements.size(), 1U);
    EXPECT_EQ(observer.settlements[0].second, Settled::in_doubt);
}

} // namespace
} // namespace idem::broker_tests
