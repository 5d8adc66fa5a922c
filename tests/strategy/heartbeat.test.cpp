// SPDX-License-Identifier: MIT
// The heartbeat: it renews while the handler runs, and asks the handler to stop once the lease is
// lost (semantics.md 4.5). Beats come by real time, leases end by virtual time.

#include <idem/consumer.hpp>
#include <idem/strategy/distributed_lock.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "strategy/scripted_leases.hpp"

namespace {

using idem::Lease;
using idem::milliseconds;
using idem::Status;

struct Order {
    std::string id = "m-1";
};

class Heartbeat : public ::testing::Test {
protected:
    static constexpr milliseconds lease{90};
    static constexpr std::chrono::seconds never{60}; // no machine is that slow

    /// `each` is called by every beat.
    void on_beat(std::function<void()> each = [] {}) {
        store_.script.after("renew", [this, each = std::move(each)] {
            each();
            const std::scoped_lock lock(mutex_);
            ++beats_;
            changed_.notify_all();
        });
    }
    /// False: they did not come.
    bool wait_for_beats(unsigned count) {
        std::unique_lock lock(mutex_);
        const unsigned target = beats_ + count;
        return changed_.wait_for(lock, never, [&] { return beats_ >= target; });
    }
    bool wait_for_stop(const std::stop_token& stop) {
        std::condition_variable_any stopped;
        std::unique_lock lock(mutex_);
        stopped.wait_for(lock, stop, never, [] { return false; });
        return stop.stop_requested();
    }
    template <class Handler>
    auto wrapped(Handler handler, idem::ConsumerOptions options = {}) {
        return idem::IdempotentConsumer{store_, idem::DistributedLock{.lease = lease}, options}
            .wrap("billing", &Order::id, std::move(handler));
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    unsigned beats_ = 0;
    BeatingLeases store_; // ends first: its thread calls on_beat's hook
};

TEST_F(Heartbeat, renews_for_as_long_as_the_handler_runs) {
    on_beat([left = 5]() mutable {
        if (left-- > 0) {
            VirtualClock::advance(lease / 2);
        }
    });
    const auto bill = wrapped([this](const Order&, Lease& held) {
        const auto fence = held.fence();
        // The sixth comes after the fifth, with all of the time that passed, has reached the lease.
        EXPECT_TRUE(wait_for_beats(6)) << "two leases and a half by virtual time";
        EXPECT_FALSE(held.stop_token().stop_requested());
        EXPECT_GT(held.remaining(), milliseconds{0});
        EXPECT_EQ(held.fence(), fence);
        held.ensure_held();
    });
    EXPECT_EQ(bill(Order{}).status(), Status::executed);
    EXPECT_EQ(bill(Order{}).status(), Status::replayed);
}

TEST_F(Heartbeat, r4_5_an_overtaken_ticket_requests_the_handlers_stop) {
    on_beat();
    const auto bill = wrapped([this](const Order&, Lease& held) {
        VirtualClock::advance(lease);
        EXPECT_EQ(store_.memory.claim({.key = {"billing", "m-1"}}).index(), 0U);
        EXPECT_TRUE(wait_for_stop(held.stop_token()));
        EXPECT_LE(held.remaining(), milliseconds{0});
        EXPECT_THROW(held.ensure_held(), idem::StoreError);
    });
    EXPECT_EQ(bill.handle(Order{}).settlement().reason, idem::reason::lease_lost);
}

TEST_F(Heartbeat, r4_5_a_hung_handler_is_asked_to_stop_and_loses_its_key) {
    on_beat();
    const auto bill = wrapped(
        [this](const Order&, Lease& held) {
            EXPECT_TRUE(wait_for_stop(held.stop_token()));
            VirtualClock::advance(lease); // nobody renews any more
            EXPECT_EQ(store_.memory.claim({.key = {"billing", "m-1"}}).index(), 0U);
        },
        {.max_handler_time = milliseconds{200}});
    EXPECT_EQ(bill.handle(Order{}).settlement().reason, idem::reason::lease_lost);
}

TEST_F(Heartbeat, a_store_that_stumbles_is_asked_again_while_the_lease_lasts) {
    store_.script.fail({"renew", 1, fault(idem::Fault::unavailable)});
    store_.script.fail({"renew", 2, fault(idem::Fault::in_doubt)});
    on_beat();
    const auto bill = wrapped([this](const Order&, Lease& held) {
        EXPECT_TRUE(wait_for_beats(4));
        EXPECT_FALSE(held.stop_token().stop_requested());
    });
    EXPECT_EQ(bill(Order{}).status(), Status::executed);
}

TEST_F(Heartbeat, a_store_that_stays_away_past_the_lease_requests_the_handlers_stop) {
    store_.script.fail_always("renew", fault(idem::Fault::unavailable));
    on_beat([] { VirtualClock::advance(lease / 2); });
    const auto bill = wrapped([this](const Order&, Lease& held) {
        EXPECT_TRUE(wait_for_stop(held.stop_token()));
        EXPECT_LE(held.remaining(), milliseconds{0});
    });
    EXPECT_EQ(bill(Order{}).status(), Status::executed) << "expired, not overtaken: valid";
}

TEST_F(Heartbeat, many_handlers_at_once_are_all_renewed) {
    on_beat();
    const auto bill = wrapped([this](const Order&, Lease& held) {
        EXPECT_TRUE(wait_for_beats(16));
        EXPECT_FALSE(held.stop_token().stop_requested());
    });
    std::atomic<unsigned> executed{0};
    {
        std::vector<std::jthread> threads;
        threads.reserve(8);
        for (int number = 0; number < 8; ++number) {
            threads.emplace_back([&, number] {
                executed += bill(Order{"m-" + std::to_string(number)}).status() == Status::executed;
            });
        }
    }
    EXPECT_EQ(executed, 8U);
}

TEST_F(Heartbeat, calls_that_come_and_go_leave_nothing_behind) {
    on_beat();
    const auto bill = wrapped([](const Order&, Lease&) {});
    std::vector<std::jthread> threads;
    threads.reserve(4);
    for (int thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&, thread] {
            for (int number = 0; number < 200; ++number) {
                const Order order{std::to_string(thread) + "-" + std::to_string(number)};
                EXPECT_EQ(bill(order).status(), Status::executed);
            }
        });
    }
    threads.clear();
    EXPECT_EQ(store_.script.count("complete"), 800U);
}

} // namespace
