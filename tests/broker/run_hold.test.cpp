// SPDX-License-Identifier: MIT
// What idem::run does with a retry, and while the store is down.
#include "scripted_source.hpp"

namespace idem::broker_tests {
namespace {

using Moments = std::vector<VirtualClock::time_point>;

/// The gaps between the calls of a handler that answers `answers` in turn, then executed.
struct Retried {
    ScriptedSource source;
    Moments calls; // one handler thread; read after the run
    std::vector<std::chrono::milliseconds> gaps;

    void run(std::vector<Verdict> answers) {
        std::stop_source stop;
        source.put(Ids{"a"});
        source.on_settle = [&](Delivery&, const Settlement&) {
            stop.request_stop();
            return Settled::yes;
        };
        run_virtually(source,
                      Handler{[&](const Delivery&, const std::stop_token&) {
                          calls.push_back(VirtualClock::now());
                          const auto turn = calls.size() - 1;
                          return turn < answers.size() ? answers[turn] : verdict(Status::executed);
                      }},
                      stop.get_token());
        for (std::size_t i = 1; i < calls.size(); ++i) {
            gaps.push_back(
                std::chrono::duration_cast<std::chrono::milliseconds>(calls[i] - calls[i - 1]));
        }
    }
};

Verdict throws(const std::exception_ptr& error) {
    return failed(error);
}
Verdict boom() {
    return throws(std::make_exception_ptr(std::runtime_error("boom")));
}
Verdict busy(milliseconds left) {
    auto answer = verdict(Status::in_progress);
    answer.retry_after = left;
    return answer;
}

TEST(Run, r7_2_a_retry_is_held_here_and_handled_again) {
    Retried one;
    one.run({boom()});
    EXPECT_EQ(one.calls.size(), 2U);
    EXPECT_TRUE(one.source.ids("retry").empty());
    EXPECT_EQ(one.source.ids("ack"), Ids{"a"});
    EXPECT_EQ(one.source.settlements("a"), 1U);
}

TEST(Run, r7_1_retries_in_a_row_wait_twice_as_long_up_to_30_seconds) {
    Retried one;
    one.run(std::vector<Verdict>(10, boom()));
    ASSERT_EQ(one.gaps.size(), 10U);
    auto expected = 200ms;
    for (const auto gap : one.gaps) {
        EXPECT_GE(gap, expected);
        EXPECT_LE(gap, expected * 6 / 5 + 200ms); // and the poll
        expected = std::min<std::chrono::milliseconds>(expected * 2, 30s);
    }
}

TEST(Run, r7_1_a_remaining_lease_is_waited_for_within_bounds) {
    Retried one;
    one.run({busy(5s), busy(1h)});
    ASSERT_EQ(one.gaps.size(), 2U);
    EXPECT_GE(one.gaps[0], 5s);
    EXPECT_LE(one.gaps[0], 6200ms);
    EXPECT_GE(one.gaps[1], 30s);
    EXPECT_LE(one.gaps[1], 36200ms);
}

TEST(Run, r7_1_what_the_handler_asks_for_is_exact) {
    Retried one;
    one.run({throws(std::make_exception_ptr(RetryLater(20ms))),
             throws(std::make_exception_ptr(RetryLater(90s)))});
    ASSERT_EQ(one.gaps.size(), 2U);
    EXPECT_GE(one.gaps[0], 20ms);
    EXPECT_LE(one.gaps[0], 150ms);
    EXPECT_GE(one.gaps[1], 90s);
    EXPECT_LE(one.gaps[1], 90200ms);
}

TEST(Run, r7_2_no_more_than_hold_are_held) {
    ScriptedSource source;
    std::stop_source stop;
    Ids ids;
    for (int i = 0; i < 10; ++i) {
        ids.push_back(std::to_string(i));
    }
    source.put(ids);
    int acks = 0;
    source.on_settle = [&](Delivery&, const Settlement& settlement) {
        acks += settlement.action == Action::ack ? 1 : 0;
        if (acks == 3) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    std::set<std::string> seen;
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token&) {
                      return seen.insert(delivery.id).second ? boom() : verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.hold = 3});
    EXPECT_EQ(source.ids("retry").size(), 7U);
    EXPECT_EQ(source.ids("ack").size(), 3U);
    for (const auto& id : ids) {
        EXPECT_EQ(source.settlements(id), 1U) << id;
    }
}

TEST(Run, r7_2_what_cannot_be_renewed_is_not_held_past_its_deadline) {
    struct Amqp : ScriptedSource {
        [[nodiscard]] static DeliveryDeadline deadline() { return {10s, false}; }
    } source;
    static_assert(DeadlinedSource<Amqp>);
    std::stop_source stop;
    source.put(Ids{"a"});
    source.on_settle = [&](Delivery&, const Settlement&) {
        stop.request_stop();
        return Settled::yes;
    };
    int calls = 0;
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      ++calls;
                      return boom();
                  }},
                  stop.get_token());
    EXPECT_GE(calls, 4); // 200 + 400 + 800 + 1600 ms, and a fifth, are below 10 s
    EXPECT_LE(calls, 6); // 6.2 s are, 12.6 s are not
    EXPECT_EQ(source.ids("retry"), Ids{"a"});
    EXPECT_TRUE(source.calls("extend").empty());
}

TEST(Run, a_store_that_is_down_is_asked_by_one_delivery_at_growing_intervals) {
    BoundedSource source;
    std::stop_source stop;
    source.put(Ids{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"});
    std::mutex mutex;
    Moments calls;
    int down_for = 14;
    int acked = 0;
    std::size_t inbox_when_up = 0;
    source.on_settle = [&](Delivery&, const Settlement& settlement) {
        EXPECT_EQ(settlement.action, Action::ack);
        if (++acked == 1) {
            inbox_when_up = source.inbox.size();
        }
        if (acked == 10) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    run_virtually(source,
                  Handler{[&](const Delivery&, const std::stop_token&) {
                      const std::scoped_lock lock(mutex);
                      if (down_for-- > 0) {
                          calls.push_back(VirtualClock::now());
                          return store_failed(Fault::unavailable);
                      }
                      return verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.concurrency = 2});
    ASSERT_EQ(calls.size(), 14U);
    EXPECT_GE(inbox_when_up, 5U) << "deliveries were taken while the store was down";
    // At most two handlers were at work when it went down; each call after them is a probe.
    auto expected = 200ms;
    for (std::size_t i = 2; i < calls.size(); ++i) {
        EXPECT_GE(calls[i] - calls[i - 1], expected) << i;
        EXPECT_LE(calls[i] - calls[i - 1], 6200ms) << i;
        expected = std::min<std::chrono::milliseconds>(expected * 2, 5s);
    }
    EXPECT_EQ(source.ids("ack").size(), 10U);
    EXPECT_TRUE(source.ids("retry").empty());
}

TEST(Run, a_probe_that_reached_its_handler_does_not_keep_the_others_waiting) {
    ScriptedSource source;
    std::stop_source stop;
    source.put(Ids{"down", "long", "b", "c"});
    Events events;
    std::atomic<bool> was_down{false};
    source.on_settle = [&](Delivery& delivery, const Settlement&) {
        events.add("settled");
        if (delivery.id == "c") {
            events.add("c settled");
        }
        if (events.count("settled") == 4) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token&) {
                      if (!was_down.exchange(true)) {
                          return store_failed(Fault::unavailable);
                      }
                      if (delivery.id == "down") { // the probe: the store is back, the work is long
                          EXPECT_TRUE(events.wait("c settled"));
                      }
                      return verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.concurrency = 2});
    EXPECT_EQ(source.ids("ack").size(), 4U);
}

TEST(Run, the_store_being_in_doubt_about_one_key_does_not_stop_the_others) {
    ScriptedSource source;
    std::stop_source stop;
    source.put(Ids{"doubtful", "b", "c"});
    int acked = 0;
    source.on_settle = [&](Delivery&, const Settlement&) {
        if (++acked == 3) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    int doubts = 3;
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token&) {
                      return delivery.id == "doubtful" && doubts-- > 0
                                 ? store_failed(Fault::in_doubt)
                                 : verdict(Status::executed);
                  }},
                  stop.get_token());
    EXPECT_EQ(source.ids("ack"), (Ids{"b", "c", "doubtful"}));
}

TEST(Run, while_the_store_is_down_and_all_that_is_here_is_held_a_new_one_is_taken_to_try_it) {
    ScriptedSource source;
    RunLimit limit;
    source.put(Ids{"held", "asks"});
    std::atomic<bool> asked{false};
    bool lost = false, is_new_there = false;
    source.on_extend = [&](Delivery& delivery) {
        lost = lost || (asked && delivery.id == "asks");
        return !lost || delivery.id != "asks";
    };
    source.on_receive = [&] {
        if (lost && !std::exchange(is_new_there, true)) {
            source.put(Ids{"new"});
        }
    };
    source.on_settle = [&](Delivery&, const Settlement&) {
        limit.stop.request_stop();
        return Settled::yes;
    };
    Ids tried; // after the loss, on the one handler thread
    bool is_held = false;
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token&) {
                      if (delivery.id == "asks") {
                          asked = true;
                          return store_failed(Fault::unavailable);
                      }
                      if (delivery.id == "held" && !std::exchange(is_held, true)) {
                          return failed(std::make_exception_ptr(RetryLater(1h)));
                      }
                      tried.push_back(delivery.id);
                      return verdict(Status::executed);
                  }},
                  limit.stop.get_token(),
                  {.concurrency = 1});
    EXPECT_TRUE(lost);
    EXPECT_EQ(tried, Ids{"new"});
    EXPECT_EQ(source.ids("ack"), Ids{"new"});
    EXPECT_EQ(source.ids("retry"), Ids{"held"}); // given back at the end
}

} // namespace
} // namespace idem::broker_tests
