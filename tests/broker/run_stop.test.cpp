// SPDX-License-Identifier: MIT
// How idem::run ends, and on which threads it works.
#include "scripted_source.hpp"

namespace idem::broker_tests {
namespace {

TEST(Run, a_stop_lets_what_is_at_work_finish_and_starts_nothing_more) {
    ScriptedSource source;
    std::stop_source stop;
    Events events;
    source.put(Ids{"a", "b", "c", "d", "e", "f"});
    std::atomic<bool> asked{false};
    std::jthread stopper([&] {
        EXPECT_TRUE(events.wait("started", 2));
        stop.request_stop();
        events.add("stopped");
    });
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token& token) {
                      events.add("started");
                      EXPECT_TRUE(events.wait("stopped"));
                      asked = asked || token.stop_requested();
                      return verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.concurrency = 2, .grace = 24h * 365});
    EXPECT_EQ(events.count("started"), 2);
    EXPECT_FALSE(asked) << "stopped within the grace";
    EXPECT_EQ(source.ids("ack").size(), 2U);
    const auto left = source.calls("retry");
    EXPECT_EQ(left.size() + source.inbox.size(), 4U);
    for (const auto& call : left) {
        EXPECT_EQ(call.settlement.delay, 0ms);
    }
}

TEST(Run, after_the_grace_handlers_are_asked_to_stop_and_waited_for) {
    ScriptedSource source;
    std::stop_source stop;
    source.put(Ids{"a"});
    VirtualClock::time_point stopped, asked;
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token& token) {
                      stopped = VirtualClock::now();
                      stop.request_stop();
                      EXPECT_TRUE(stop_comes(token));
                      asked = VirtualClock::now();
                      return verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.grace = 7s});
    EXPECT_GE(asked - stopped, 7s);
    EXPECT_EQ(source.ids("ack"), Ids{"a"});
}

TEST(Run, what_is_held_when_the_stop_comes_is_left_to_the_broker) {
    ScriptedSource source;
    std::stop_source stop;
    source.put(Ids{"a"});
    source.on_idle = [&] { stop.request_stop(); };
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      return failed(std::make_exception_ptr(RetryLater(1h)));
                  }},
                  stop.get_token());
    EXPECT_EQ(source.ids("retry"), Ids{"a"});
    EXPECT_EQ(source.calls("retry")[0].settlement.reason, reason::retry_later);
    EXPECT_EQ(source.settlements("a"), 1U);
}

TEST(Run, a_retry_after_the_stop_is_not_held) {
    ScriptedSource source;
    std::stop_source stop;
    source.put(Ids{"a"});
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      stop.request_stop();
                      return verdict(Status::in_progress);
                  }},
                  stop.get_token());
    EXPECT_EQ(source.ids("retry"), Ids{"a"});
}

TEST(Run, r7_8_rejected_waits_for_what_is_at_work_and_settles_it) {
    ScriptedSource source;
    Events events;
    source.put(Ids{"good", "bad"});
    EXPECT_THROW(run_virtually(source,
                               Handler{[&](const Delivery& delivery, const std::stop_token&) {
                                   if (delivery.id == "bad") {
                                       EXPECT_TRUE(events.wait("good started"));
                                       events.add("rejected");
                                       return store_failed(Fault::rejected);
                                   }
                                   events.add("good started");
                                   EXPECT_TRUE(events.wait("rejected"));
                                   return verdict(Status::executed);
                               }},
                               {},
                               {.concurrency = 2}),
                 StoreError);
    EXPECT_EQ(source.ids("ack"), Ids{"good"});
    EXPECT_EQ(source.settlements("bad"), 0U);
}

TEST(Run, a_stop_that_came_before_handles_nothing) {
    ScriptedSource source;
    std::stop_source stop;
    stop.request_stop();
    source.put(Ids{"a"});
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      ADD_FAILURE() << "handled";
                      return verdict(Status::executed);
                  }},
                  stop.get_token());
    EXPECT_EQ(source.settlements("a"), 0U);
}

TEST(Run, handlers_run_on_other_threads_and_no_more_than_concurrency_at_a_time) {
    ScriptedSource source;
    std::stop_source stop;
    Events events;
    Ids ids;
    for (int i = 0; i < 60; ++i) {
        ids.push_back(std::to_string(i));
    }
    source.put(ids);
    std::atomic<int> at_work{0}, most{0};
    int acked = 0;
    source.on_settle = [&](Delivery&, const Settlement&) {
        if (++acked == 60) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    const auto loop = std::this_thread::get_id();
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      EXPECT_NE(std::this_thread::get_id(), loop);
                      const int now = ++at_work;
                      int before = most;
                      while (before < now && !most.compare_exchange_weak(before, now)) {
                      }
                      events.add("started");
                      EXPECT_TRUE(events.wait("started", 3)); // the first three meet
                      --at_work;
                      return verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.concurrency = 3});
    EXPECT_EQ(most, 3);
    EXPECT_EQ(source.ids("ack").size(), 60U);
}

TEST(Run, r7_8_while_handlers_are_at_work_receive_does_not_wait) {
    ScriptedSource source;
    std::stop_source stop;
    Events events;
    source.put(Ids{"slow"});
    bool at_work = false;
    std::size_t asked = 0;
    source.on_receive = [&] {
        if (!at_work) {
            at_work = events.count("started") > 0;
        }
        if (at_work && events.count("done") == 0) {
            EXPECT_EQ(source.log.back().time, 0ms);
            if (++asked == 5) {
                source.put(Ids{"late"}); // taken while the other is at work
            }
        }
    };
    int acked = 0;
    source.on_settle = [&](Delivery&, const Settlement&) {
        if (++acked == 2) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token&) {
                      events.add("started");
                      if (delivery.id == "slow") {
                          EXPECT_TRUE(events.wait("late"));
                          events.add("done");
                      } else {
                          events.add("late");
                      }
                      return verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.concurrency = 2});
    auto acked_ids = source.ids("ack");
    std::sort(acked_ids.begin(), acked_ids.end());
    EXPECT_EQ(acked_ids, (Ids{"late", "slow"}));
}

TEST(Run, it_takes_no_more_than_it_has_hands_for_while_handlers_are_slow) {
    BoundedSource source;
    std::stop_source stop;
    Events events;
    Ids ids;
    for (int i = 0; i < 50; ++i) {
        ids.push_back(std::to_string(i));
    }
    source.put(ids);
    int turns = 0;
    source.on_receive = [&] {
        if (events.count("started") == 2 && ++turns == 20) {
            EXPECT_GE(source.inbox.size(), 48U);
            events.add("looked");
            stop.request_stop();
        }
    };
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      events.add("started");
                      EXPECT_TRUE(events.wait("looked"));
                      return verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.concurrency = 2});
    EXPECT_EQ(source.ids("ack").size(), 2U);
}

TEST(Run, it_works_in_real_time_too) {
    ScriptedSource source;
    std::stop_source stop;
    Ids ids;
    for (int i = 0; i < 2'000; ++i) {
        ids.push_back(std::to_string(i));
    }
    source.put(ids);
    std::size_t acked = 0;
    source.on_settle = [&](Delivery&, const Settlement&) {
        if (++acked == ids.size()) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    run(source,
        Handler{[](const Delivery&, const std::stop_token&) { return verdict(Status::executed); }},
        stop.get_token(),
        {.concurrency = 4});
    auto done = source.ids("ack");
    std::sort(done.begin(), done.end());
    std::sort(ids.begin(), ids.end());
    EXPECT_EQ(done, ids);
}

} // namespace
} // namespace idem::broker_tests
