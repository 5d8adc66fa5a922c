// SPDX-License-Identifier: MIT
// idem::run with batches.
#include "scripted_source.hpp"

namespace idem::broker_tests {
namespace {

/// Writes down its batches; `does` answers for each delivery of one.
struct BatchHandler : Handler {
    std::function<void(std::span<const Delivery>, const std::stop_token&)> on_batch;

    [[nodiscard]] std::vector<Outcome<void>> batch(std::span<const Delivery> deliveries,
                                                   const std::stop_token& stop) const {
        if (on_batch) {
            on_batch(deliveries, stop);
        }
        std::vector<Outcome<void>> outcomes;
        for (const auto& delivery : deliveries) {
            outcomes.push_back(handle(delivery, stop));
        }
        return outcomes;
    }
};
static_assert(BatchDeliveryHandler<BatchHandler, ScriptedSource>);
static_assert(!BatchDeliveryHandler<Handler, ScriptedSource>);

BatchHandler executes(std::vector<std::size_t>& sizes) {
    return {{[](const Delivery&, const std::stop_token&) { return verdict(Status::executed); }},
            [&sizes](std::span<const Delivery> deliveries, const std::stop_token&) {
                sizes.push_back(deliveries.size());
            }};
}

TEST(RunInBatches, each_is_handled_in_a_batch_and_settled_for_itself) {
    ScriptedSource source;
    std::stop_source stop;
    source.put(Ids{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"});
    int settled = 0;
    source.on_settle = [&](Delivery&, const Settlement&) {
        if (++settled == 10) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    std::vector<std::size_t> sizes;
    auto handler = executes(sizes);
    handler.does = [](const Delivery& delivery, const std::stop_token&) {
        return verdict(delivery.id == "3" ? Status::conflict : Status::executed);
    };
    run_virtually(source, handler, stop.get_token(), {.batch = 4});
    EXPECT_EQ(sizes, (std::vector<std::size_t>{4, 4, 2}));
    EXPECT_EQ(source.ids("dead_letter"), Ids{"3"});
    EXPECT_EQ(source.ids("ack"), (Ids{"0", "1", "2", "4", "5", "6", "7", "8", "9"}));
}

TEST(RunInBatches, one_that_must_be_retried_comes_again_without_the_others) {
    ScriptedSource source;
    std::stop_source stop;
    source.put(Ids{"0", "1", "2"});
    int settled = 0;
    source.on_settle = [&](Delivery&, const Settlement&) {
        if (++settled == 3) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    std::vector<std::size_t> sizes;
    auto handler = executes(sizes);
    int tries = 0;
    handler.does = [&](const Delivery& delivery, const std::stop_token&) {
        return delivery.id == "1" && ++tries == 1 ? verdict(Status::in_progress)
                                                  : verdict(Status::executed);
    };
    run_virtually(source, handler, stop.get_token(), {.batch = 8});
    EXPECT_EQ(sizes, (std::vector<std::size_t>{3, 1}));
    EXPECT_EQ(source.ids("ack"), (Ids{"0", "2", "1"}));
}

TEST(RunInBatches, what_the_batch_throws_is_the_outcome_of_each) {
    ScriptedSource source;
    std::stop_source stop;
    source.put(Ids{"0", "1"});
    int settled = 0;
    source.on_settle = [&](Delivery&, const Settlement&) {
        if (++settled == 2) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    std::vector<std::size_t> sizes;
    auto handler = executes(sizes);
    handler.on_batch = [&](std::span<const Delivery> deliveries, const std::stop_token&) {
        sizes.push_back(deliveries.size());
        if (sizes.size() == 1) {
            throw StoreError(Fault::unavailable, "down");
        }
    };
    run_virtually(source, handler, stop.get_token(), {.batch = 2});
    EXPECT_EQ(sizes[0], 2U);
    EXPECT_EQ(source.ids("ack").size(), 2U);
    EXPECT_TRUE(source.ids("retry").empty());

    source.put(Ids{"2", "3"});
    handler.on_batch = [](std::span<const Delivery>, const std::stop_token&) {
        throw StoreError(Fault::rejected, "no such table");
    };
    EXPECT_THROW(run_virtually(source, handler, {}, {.batch = 2}), StoreError);
    EXPECT_EQ(source.settlements("2") + source.settlements("3"), 0U);
}

TEST(RunInBatches, a_handler_that_answers_too_few_gets_the_rest_again) {
    ScriptedSource source;
    std::stop_source stop;
    source.put(Ids{"0", "1"});
    int settled = 0;
    source.on_settle = [&](Delivery&, const Settlement&) {
        if (++settled == 2) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    struct Short : Handler {
        [[nodiscard]] std::vector<Outcome<void>> batch(std::span<const Delivery> deliveries,
                                                       const std::stop_token& token) const {
            std::vector<Outcome<void>> outcomes;
            outcomes.push_back(handle(deliveries[0], token));
            return outcomes;
        }
    } const handler{
        {[](const Delivery&, const std::stop_token&) { return verdict(Status::executed); }}};
    run_virtually(source, handler, stop.get_token(), {.batch = 2});
    EXPECT_EQ(source.ids("ack"), (Ids{"0", "1"}));
}

struct LanedBatches : ScriptedSource {
    [[nodiscard]] static std::uint64_t lane(const Delivery& delivery) { return delivery.lane; }
    /// Three lanes, in turn.
    void put_each(int count) {
        for (int i = 0; i < count; ++i) {
            put(Delivery{.id = std::to_string(i), .lane = static_cast<std::uint64_t>(i % 3)});
        }
    }
    void stop_after(std::stop_source& stop, int settlements) {
        on_settle = [&stop, settlements, settled = 0](Delivery&, const Settlement&) mutable {
            if (++settled == settlements) {
                stop.request_stop();
            }
            return Settled::yes;
        };
    }
};

TEST(RunInBatches, r9_8_of_a_lane_several_are_in_a_batch_in_order_and_no_two_batches_at_a_time) {
    LanedBatches source;
    std::stop_source stop;
    source.put_each(24);
    source.stop_after(stop, 24);
    std::vector<std::size_t> sizes;
    auto handler = executes(sizes);
    std::mutex mutex;
    std::vector<std::string> order[3];
    std::set<std::uint64_t> at_work;
    std::size_t most_of_a_lane = 0;
    handler.on_batch = [&](std::span<const Delivery> deliveries, const std::stop_token&) {
        const std::scoped_lock lock(mutex);
        sizes.push_back(deliveries.size());
        std::map<std::uint64_t, std::size_t> of;
        for (const auto& delivery : deliveries) {
            order[delivery.lane].push_back(delivery.id);
            most_of_a_lane = std::max(most_of_a_lane, ++of[delivery.lane]);
        }
        for (const auto& [lane, count] : of) {
            EXPECT_TRUE(at_work.insert(lane).second) << "lane " << lane << " in two batches";
        }
    };
    handler.does = [&](const Delivery& delivery, const std::stop_token&) {
        const std::scoped_lock lock(mutex);
        at_work.erase(delivery.lane);
        return verdict(Status::executed);
    };
    run_virtually(source, handler, stop.get_token(), {.concurrency = 2, .batch = 8});
    EXPECT_EQ(order[0], (Ids{"0", "3", "6", "9", "12", "15", "18", "21"}));
    EXPECT_EQ(order[1], (Ids{"1", "4", "7", "10", "13", "16", "19", "22"}));
    EXPECT_EQ(order[2], (Ids{"2", "5", "8", "11", "14", "17", "20", "23"}));
    EXPECT_GT(most_of_a_lane, 1U);
}

TEST(RunInBatches, r6_9_what_came_to_retry_behind_a_retry_of_its_lane_waits_behind_it_in_order) {
    for (const auto& first : {verdict(Status::in_progress),
                              failed(std::make_exception_ptr(RetryLater(1min))),
                              store_failed(Fault::unavailable)}) {
        LanedBatches source;
        std::stop_source stop;
        source.put_each(15);
        source.stop_after(stop, 15);
        std::vector<std::size_t> sizes;
        auto handler = executes(sizes);
        std::vector<std::string> seen; // of lane 0, executed
        int tries = 0;
        bool held = false;
        handler.on_batch = [&](std::span<const Delivery>, const std::stop_token&) { held = false; };
        handler.does = [&](const Delivery& delivery, const std::stop_token&) {
            if (delivery.id == "3") {
                held = ++tries <= 2;
                if (held) {
                    return first;
                }
            }
            if (delivery.lane == 0 && held) { // as a strategy that keeps order answers
                return verdict(Status::in_progress);
            }
            if (delivery.lane == 0) {
                seen.push_back(delivery.id);
            }
            return verdict(Status::executed);
        };
        run_virtually(source, handler, stop.get_token(), {.batch = 16});
        EXPECT_EQ(seen, (Ids{"0", "3", "6", "9", "12"}));
        EXPECT_EQ(tries, 3);
        EXPECT_EQ(source.ids("ack").size(), 15U);
        EXPECT_TRUE(source.ids("retry").empty());
    }
}

TEST(RunInBatches, r9_8_of_two_dead_letters_of_a_lane_both_are_written_before_it_goes_on) {
    LanedBatches source;
    RunLimit limit;
    for (const auto* id : {"0", "1", "2", "3"}) {
        source.put(Delivery{.id = id, .lane = 1});
    }
    std::map<std::string, int> tries;
    std::atomic<int> written{0};
    int settled = 0;
    source.on_settle = [&](Delivery& delivery, const Settlement& settlement) {
        if (delivery.id == "1" && ++tries[delivery.id] <= 5) {
            throw StoreError(Fault::unavailable, "the broker is away");
        }
        written += settlement.action == Action::dead_letter ? 1 : 0;
        if (++settled == 4) {
            limit.stop.request_stop();
        }
        return Settled::yes;
    };
    std::vector<std::size_t> sizes;
    auto handler = executes(sizes);
    std::vector<int> written_before; // of each batch
    handler.on_batch = [&](std::span<const Delivery> deliveries, const std::stop_token&) {
        sizes.push_back(deliveries.size());
        written_before.push_back(written);
    };
    handler.does = [](const Delivery& delivery, const std::stop_token&) {
        return verdict(delivery.id < "2" ? Status::dead : Status::executed);
    };
    run_virtually(source, handler, limit.stop.get_token(), {.batch = 2});
    EXPECT_EQ(sizes, (std::vector<std::size_t>{2, 2}));
    EXPECT_EQ(written_before, (std::vector<int>{0, 2}));
    EXPECT_EQ(source.ids("ack"), (Ids{"2", "3"}));
}

TEST(RunInBatches, a_store_that_is_down_behind_a_retry_of_its_lane_is_tried_again) {
    LanedBatches source;
    RunLimit limit;
    source.put(Delivery{.id = "0", .lane = 1});
    source.put(Delivery{.id = "1", .lane = 1});
    source.stop_after(limit.stop, 2);
    std::vector<std::size_t> sizes;
    auto handler = executes(sizes);
    int tries = 0;
    handler.does = [&](const Delivery& delivery, const std::stop_token&) {
        if (++tries > 2) {
            return verdict(Status::executed);
        }
        return store_failed(delivery.id == "0" ? Fault::in_doubt : Fault::unavailable);
    };
    run_virtually(source, handler, limit.stop.get_token(), {.batch = 8});
    EXPECT_EQ(tries, 4);
    EXPECT_EQ(source.ids("ack"), (Ids{"0", "1"}));
}

} // namespace
} // namespace idem::broker_tests
