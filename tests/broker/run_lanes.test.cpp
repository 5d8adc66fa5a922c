// SPDX-License-Identifier: MIT
// Order, where a source has lanes.
#include "scripted_source.hpp"

namespace idem::broker_tests {
namespace {

struct Laned : ScriptedSource {
    [[nodiscard]] static std::uint64_t lane(const Delivery& delivery) { return delivery.lane; }
    void pause(std::uint64_t lane) { paused.insert(lane); }
    void resume(std::uint64_t lane) {
        EXPECT_EQ(paused.erase(lane), 1U);
        ++resumed;
    }
    std::set<std::uint64_t> paused;
    int resumed = 0;
};
static_assert(OrderedSource<Laned> && PausableSource<Laned>);

/// What was handled of each lane, in order.
class Seen {
public:
    void add(const Delivery& delivery) {
        const std::scoped_lock lock(mutex_);
        order_[delivery.lane].push_back(delivery.id);
    }
    [[nodiscard]] Ids of(std::uint64_t lane) {
        const std::scoped_lock lock(mutex_);
        return order_[lane];
    }

private:
    std::mutex mutex_;
    std::map<std::uint64_t, Ids> order_;
};

void stop_after(Laned& source, std::stop_source& stop, int settlements) {
    source.on_settle = [&stop, settlements, done = 0](Delivery&, const Settlement&) mutable {
        if (++done == settlements) {
            stop.request_stop();
        }
        return Settled::yes;
    };
}

TEST(RunInLanes, r9_8_one_at_a_time_and_in_order) {
    Laned source;
    std::stop_source stop;
    Seen seen;
    std::map<std::uint64_t, Ids> given;
    for (int i = 0; i < 300; ++i) {
        const auto lane = static_cast<std::uint64_t>(i % 5);
        source.put(Delivery{.id = std::to_string(i), .lane = lane});
        given[lane].push_back(std::to_string(i));
    }
    stop_after(source, stop, 300);
    std::atomic<int> at_work[5]{}, together{0}, most{0};
    Events events;
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token&) {
                      EXPECT_EQ(++at_work[delivery.lane], 1) << "two of one lane";
                      const int now = ++together;
                      for (int before = most; before < now;) {
                          most.compare_exchange_weak(before, now);
                      }
                      events.add("at work");
                      EXPECT_TRUE(events.wait("at work", 4)); // lanes go side by side
                      seen.add(delivery);
                      --together;
                      --at_work[delivery.lane];
                      return verdict(Status::executed);
                  }},
                  stop.get_token(),
                  {.concurrency = 4});
    for (const auto& [lane, ids] : given) {
        EXPECT_EQ(seen.of(lane), ids) << lane;
    }
    EXPECT_EQ(most, 4);
    EXPECT_EQ(source.ids("ack").size(), 300U);
}

TEST(RunInLanes, r6_9_a_held_delivery_holds_its_lane_and_no_other) {
    for (const auto& error : {failed(std::make_exception_ptr(RetryLater(1ms))),
                              failed(std::make_exception_ptr(std::runtime_error("boom"))),
                              store_failed(Fault::unavailable)}) {
        Laned source;
        std::stop_source stop;
        Seen seen;
        for (int i = 0; i < 40; ++i) {
            source.put(
                Delivery{.id = std::to_string(i), .lane = static_cast<std::uint64_t>(i % 2)});
        }
        stop_after(source, stop, 40);
        std::mutex mutex;
        std::map<std::string, int> tries;
        run_virtually(source,
                      Handler{[&](const Delivery& delivery, const std::stop_token&) {
                          {
                              const std::scoped_lock lock(mutex);
                              if (delivery.lane == 0 && ++tries[delivery.id] < 3) {
                                  return error; // each of lane 0 twice
                              }
                          }
                          seen.add(delivery);
                          return verdict(Status::executed);
                      }},
                      stop.get_token(),
                      {.concurrency = 2, .hold = 0}); // lanes hold whatever the bound
        Ids even, odd;
        for (int i = 0; i < 40; ++i) {
            (i % 2 == 0 ? even : odd).push_back(std::to_string(i));
        }
        EXPECT_EQ(seen.of(0), even);
        EXPECT_EQ(seen.of(1), odd);
        EXPECT_EQ(source.ids("ack").size(), 40U);
        EXPECT_TRUE(source.paused.empty());
    }
}

TEST(RunInLanes, while_one_is_held_the_others_go_on) {
    Laned source;
    std::stop_source stop;
    source.put(Delivery{.id = "held", .lane = 1});
    source.put(Delivery{.id = "behind it", .lane = 1});
    source.put(Delivery{.id = "free", .lane = 2});
    stop_after(source, stop, 3);
    int tries = 0;
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token&) {
                      return delivery.id == "held" && ++tries == 1
                                 ? failed(std::make_exception_ptr(RetryLater(60s)))
                                 : verdict(Status::executed);
                  }},
                  stop.get_token());
    EXPECT_EQ(source.ids("ack"), (Ids{"free", "held", "behind it"}));
    EXPECT_EQ(source.resumed, 1);
}

TEST(RunInLanes, a_dead_letter_lets_the_lane_go_on) {
    Laned source;
    std::stop_source stop;
    source.put(Delivery{.id = "dead", .lane = 1});
    source.put(Delivery{.id = "next", .lane = 1});
    stop_after(source, stop, 2);
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token&) {
                      return verdict(delivery.id == "dead" ? Status::dead : Status::executed);
                  }},
                  stop.get_token());
    EXPECT_EQ(source.ids("dead_letter"), Ids{"dead"});
    EXPECT_EQ(source.ids("ack"), Ids{"next"});
}

TEST(RunInLanes, r9_8_nothing_of_a_lane_starts_before_its_dead_letter_is_written) {
    Laned source;
    RunLimit limit;
    Events events;
    source.put(Delivery{.id = "dead", .lane = 1});
    for (const auto* id : {"b", "c", "d"}) {
        source.put(Delivery{.id = id, .lane = 1});
    }
    for (const auto* id : {"x", "y", "z"}) {
        source.put(Delivery{.id = id, .lane = 2});
    }
    int tries = 0, settled = 0;
    std::atomic<bool> written{false};
    source.on_settle = [&](Delivery& delivery, const Settlement&) {
        if (delivery.id == "dead") {
            if (++tries <= 2 || events.count("of another lane") < 3) {
                events.add("not written");
                throw StoreError(Fault::unavailable, "the broker is away");
            }
            written = true;
        }
        if (++settled == 7) {
            limit.stop.request_stop();
        }
        return Settled::yes;
    };
    std::atomic<int> too_early{0};
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token&) {
                      if (delivery.id == "dead") {
                          return verdict(Status::dead);
                      }
                      if (delivery.lane == 2) {
                          EXPECT_TRUE(events.wait("not written"));
                          events.add("of another lane");
                      } else if (!written) {
                          ++too_early;
                      }
                      return verdict(Status::executed);
                  }},
                  limit.stop.get_token(),
                  {.concurrency = 2});
    EXPECT_EQ(too_early, 0);
    EXPECT_GE(tries, 3);
    EXPECT_EQ(source.ids("ack").size(), 6U);
    EXPECT_TRUE(source.ids("retry").empty());
}

TEST(RunInLanes, r6_3_behind_a_dead_letter_that_is_refused_nothing_starts) {
    Laned source;
    RunLimit limit;
    Seen seen;
    source.put(Delivery{.id = "dead", .lane = 1});
    for (int i = 0; i < 40; ++i) {
        source.put(Delivery{.id = std::to_string(i), .lane = 1});
    }
    source.on_settle = [&](Delivery&, const Settlement&) -> Settled {
        throw StoreError(Fault::rejected, "there is no topic orders.dead");
    };
    EXPECT_THROW(run_virtually(source,
                               Handler{[&](const Delivery& delivery, const std::stop_token&) {
                                   seen.add(delivery);
                                   return verdict(delivery.id == "dead" ? Status::dead
                                                                        : Status::executed);
                               }},
                               limit.stop.get_token()),
                 StoreError);
    EXPECT_EQ(seen.of(1), Ids{"dead"});
    EXPECT_EQ(source.ids("dead_letter"), Ids{"dead"});
    EXPECT_TRUE(source.ids("ack").empty());
}

TEST(RunInLanes, with_one_of_a_lane_all_behind_it_are_asked_for_and_lost) {
    struct Revoked : Laned {
        [[nodiscard]] static DeliveryDeadline deadline() { return {30s, true}; }
    } source;
    std::stop_source stop;
    for (const auto* id : {"a", "b", "c"}) {
        source.put(Delivery{.id = id, .lane = 1});
    }
    source.put(Delivery{.id = "other", .lane = 2});
    std::atomic<int> handled{0}; // lost once the first is at work, however late it starts
    source.on_extend = [&](Delivery& delivery) { return delivery.lane != 1 || handled == 0; };
    stop_after(source, stop, 1);
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token& token) {
                      if (delivery.lane == 1) {
                          ++handled;
                          EXPECT_TRUE(stop_comes(token));
                      }
                      return verdict(Status::executed);
                  }},
                  stop.get_token());
    EXPECT_EQ(handled, 1);
    EXPECT_EQ(source.ids("ack"), Ids{"other"});
    EXPECT_TRUE(source.ids("retry").empty());
}

} // namespace
} // namespace idem::broker_tests
