// SPDX-License-Identifier: MIT
// How idem::run keeps the deliveries that it has, and what it does when it loses one.
#include "scripted_source.hpp"

namespace idem::broker_tests {
namespace {

struct Renewable : ScriptedSource {
    [[nodiscard]] static DeliveryDeadline deadline() { return {30s, true}; }
};

TEST(Run, every_delivery_here_is_extended_at_a_third_of_its_deadline) {
    Renewable source;
    std::stop_source stop;
    Events events;
    source.put(Ids{"held", "at work", "waits", "also waits"});
    std::map<std::string, std::vector<VirtualClock::time_point>> extended;
    source.on_extend = [&](Delivery& delivery) {
        auto& times = extended[delivery.id];
        times.push_back(VirtualClock::now());
        if (delivery.id == "at work" && times.size() == 5) {
            events.add("long enough");
        }
        return true;
    };
    int acked = 0;
    source.on_settle = [&](Delivery&, const Settlement&) {
        if (++acked == 3) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token& token) {
                      if (delivery.id == "held") {
                          return failed(std::make_exception_ptr(RetryLater(1h)));
                      }
                      if (delivery.id == "at work") {
                          EXPECT_TRUE(events.wait("long enough"));
                          EXPECT_FALSE(token.stop_requested());
                      }
                      return verdict(Status::executed);
                  }},
                  stop.get_token());
    for (const auto* id : {"held", "at work", "waits", "also waits"}) {
        const auto& times = extended[id];
        ASSERT_GE(times.size(), 5U) << id;
        for (std::size_t i = 1; i < times.size(); ++i) {
            EXPECT_GE(times[i] - times[i - 1], 5s) << id;
            EXPECT_LE(times[i] - times[i - 1], 11s) << id;
        }
    }
    for (const auto& call : source.calls("extend")) {
        EXPECT_EQ(call.time, 30s);
    }
    EXPECT_EQ(source.ids("ack").size(), 3U);
}

TEST(Run, r4_5_a_lost_delivery_has_its_handler_stopped_and_is_never_settled) {
    Renewable source;
    std::stop_source stop;
    CountingObserver observer;
    source.put(Ids{"lost", "b"});
    std::atomic<bool> at_work{false}; // lost only then, however late it starts
    source.on_extend = [&](Delivery& delivery) { return delivery.id != "lost" || !at_work; };
    source.on_settle = [&](Delivery&, const Settlement&) {
        stop.request_stop();
        return Settled::yes;
    };
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token& token) {
                      if (delivery.id == "lost") {
                          at_work = true;
                          EXPECT_TRUE(stop_comes(token));
                      } else {
                          EXPECT_FALSE(token.stop_requested());
                      }
                      return verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.observer = &observer});
    EXPECT_EQ(source.ids("ack"), Ids{"b"});
    EXPECT_TRUE(source.ids("retry").empty());
    ASSERT_EQ(observer.settlements.size(), 2U);
    EXPECT_EQ(observer.settlements[0].second, Settled::lost);
    EXPECT_EQ(observer.settlements[1].second, Settled::yes);
}

TEST(Run, a_held_delivery_that_is_lost_is_not_handled_again) {
    Renewable source;
    std::stop_source stop;
    CountingObserver observer;
    source.put(Ids{"lost"});
    source.on_extend = [&](Delivery&) { return false; };
    int idle = 0;
    source.on_idle = [&] {
        if (++idle == 1'000) { // 100 s
            stop.request_stop();
        }
    };
    int handled = 0;
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      ++handled;
                      return failed(std::make_exception_ptr(RetryLater(60s)));
                  }},
                  stop.get_token(),
                  {.observer = &observer});
    EXPECT_EQ(handled, 1);
    EXPECT_EQ(source.calls("extend").size(), 1U);
    EXPECT_TRUE(source.ids("retry").empty());
    ASSERT_EQ(observer.settlements.size(), 1U);
    EXPECT_EQ(observer.settlements[0].second, Settled::lost);
}

TEST(Run, r7_5_a_handler_past_a_deadline_that_cannot_be_renewed_is_stopped_and_settled) {
    struct Amqp : ScriptedSource {
        [[nodiscard]] static DeliveryDeadline deadline() { return {20s, false}; }
    } source;
    std::stop_source stop;
    source.put(Ids{"a"});
    source.on_settle = [&](Delivery&, const Settlement&) {
        stop.request_stop();
        return Settled::yes;
    };
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token& token) {
                      const auto started = VirtualClock::now();
                      EXPECT_TRUE(stop_comes(token));
                      EXPECT_GE(VirtualClock::now() - started, 15s);
                      return verdict(Status::executed);
                  }},
                  stop.get_token());
    EXPECT_EQ(source.ids("ack"), Ids{"a"});
    EXPECT_TRUE(source.calls("extend").empty());
}

TEST(Run, r4_5_rejected_ends_the_run_though_its_delivery_was_lost) {
    Renewable source;
    RunLimit limit;
    source.put(Ids{"lost"});
    std::atomic<int> handled{0};
    source.on_extend = [&](Delivery&) { return handled == 0; }; // not lost before it is at work
    EXPECT_THROW(run_virtually(source,
                               Handler{[&](const Delivery&, const std::stop_token& token) {
                                   ++handled;
                                   EXPECT_TRUE(stop_comes(token));
                                   return store_failed(Fault::rejected);
                               }},
                               limit.stop.get_token()),
                 StoreError);
    EXPECT_EQ(source.settlements("lost"), 0U);
}

TEST(Run, r4_5_no_handler_starts_on_a_delivery_that_is_known_to_be_lost) {
    struct Laned : Renewable {
        [[nodiscard]] static std::uint64_t lane(const Delivery&) { return 1; }
    } source;
    RunLimit limit;
    CountingObserver observer;
    for (int i = 0; i < 40; ++i) { // so many that several of them are handed over together
        source.put(Delivery{.id = std::to_string(i)});
    }
    std::atomic<int> handled{0};
    source.on_extend = [&](Delivery&) { return handled == 0; };
    int idle = 0;
    source.on_idle = [&] {
        if (++idle == 50) {
            limit.stop.request_stop();
        }
    };
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token& token) {
                      if (++handled == 1) {
                          EXPECT_TRUE(stop_comes(token));
                      }
                      return failed(std::make_exception_ptr(RetryLater(1ms)));
                  }},
                  limit.stop.get_token(),
                  {.observer = &observer});
    EXPECT_EQ(handled, 1);
    EXPECT_EQ(observer.settlements.size(), 40U);
    for (const auto& [settlement, how] : observer.settlements) {
        EXPECT_EQ(how, Settled::lost);
    }
    EXPECT_TRUE(source.ids("ack").empty());
    EXPECT_TRUE(source.ids("retry").empty());
}

TEST(Run, extensions_come_in_time_although_the_poll_is_longer_than_the_deadline) {
    Renewable source;
    RunLimit limit;
    source.put(Ids{"held"});
    source.on_settle = [&](Delivery&, const Settlement&) {
        limit.stop.request_stop();
        return Settled::yes;
    };
    int handled = 0;
    auto kept = VirtualClock::now(); // until 30 s later
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      return ++handled == 1 ? failed(std::make_exception_ptr(RetryLater(10min)))
                                            : verdict(Status::executed);
                  }},
                  limit.stop.get_token(),
                  {.poll = 200s});
    const auto extended = source.calls("extend");
    EXPECT_GE(extended.size(), 20U);
    for (const auto& call : extended) {
        EXPECT_LT(call.at - kept, 30s);
        kept = call.at;
    }
    EXPECT_EQ(handled, 2);
    EXPECT_EQ(source.ids("ack"), Ids{"held"});
}

} // namespace
} // namespace idem::broker_tests
