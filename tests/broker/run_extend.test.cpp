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
    source.on_extend = [&](Delivery& delivery) { return delivery.id != "lost"; };
    source.on_settle = [&](Delivery&, const Settlement&) {
        stop.request_stop();
        return Settled::yes;
    };
    run_virtually(source,
                  Handler{[&](const Delivery& delivery, const std::stop_token& token) {
                      if (delivery.id == "lost") {
                          std::mutex mutex;
                          std::unique_lock lock(mutex);
                          std::condition_variable_any never;
                          never.wait_for(lock, token, 60s, [] { return false; });
                          EXPECT_TRUE(token.stop_requested());
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
                      std::mutex mutex;
                      std::unique_lock lock(mutex);
                      std::condition_variable_any never;
                      never.wait_for(lock, token, 60s, [] { return false; });
                      EXPECT_TRUE(token.stop_requested());
                      EXPECT_GE(VirtualClock::now() - started, 15s);
                      return verdict(Status::executed);
                  }},
                  stop.get_token());
    EXPECT_EQ(source.ids("ack"), Ids{"a"});
    EXPECT_TRUE(source.calls("extend").empty());
}

} // namespace
} // namespace idem::broker_tests
