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

TEST(RunInBatches, of_a_lane_no_more_than_one_is_in_a_batch) {
    struct Laned : ScriptedSource {
        [[nodiscard]] static std::uint64_t lane(const Delivery& delivery) { return delivery.lane; }
    } source;
    std::stop_source stop;
    for (int i = 0; i < 12; ++i) {
        source.put(Delivery{.id = std::to_string(i), .lane = static_cast<std::uint64_t>(i % 3)});
    }
    int settled = 0;
    source.on_settle = [&](Delivery&, const Settlement&) {
        if (++settled == 12) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    std::vector<std::size_t> sizes;
    auto handler = executes(sizes);
    std::vector<std::string> order[3];
    handler.on_batch = [&](std::span<const Delivery> deliveries, const std::stop_token&) {
        std::set<std::uint64_t> lanes;
        for (const auto& delivery : deliveries) {
            EXPECT_TRUE(lanes.insert(delivery.lane).second) << "two of one lane";
            order[delivery.lane].push_back(delivery.id);
        }
    };
    run_virtually(source, handler, stop.get_token(), {.batch = 8});
    EXPECT_EQ(order[0], (Ids{"0", "3", "6", "9"}));
    EXPECT_EQ(order[1], (Ids{"1", "4", "7", "10"}));
    EXPECT_EQ(order[2], (Ids{"2", "5", "8", "11"}));
}

} // namespace
} // namespace idem::broker_tests
