// SPDX-License-Identifier: MIT
// Worker + lease in Redis, with its effects elsewhere, killed at each step.

#include <idem/detail/redis_record.hpp>

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include "crash/enumeration.hpp"
#include "crash/mutant_windows.hpp"
#include "crash/stream_broker.hpp"
#include "crash/streams.hpp"
#include "support/needs.hpp"
#include "support/redis_server.hpp"
#include "support/temporary_directory.hpp"

namespace {

using namespace idem::crash_test;
using idem::testing_support::RedisServer;
using idem::testing_support::shared_redis;
using idem::testing_support::TemporaryDirectory;

std::string next_name() {
    static unsigned sites = 0;
    return "crash_" + std::to_string(::getpid()) + "_" + std::to_string(++sites);
}

class LeaseSite : public Site {
public:
    LeaseSite(std::vector<Entry> sent, std::string design, unsigned abreast)
        : sent_(std::move(sent))
        , design_(std::move(design))
        , abreast_(abreast)
        , broker_(shared_redis().address(), next_name(), sent_) {}
    [[nodiscard]] std::string beside(const std::string& name) const override {
        return directory_ / name;
    }
    [[nodiscard]] std::vector<std::string> worker(unsigned generation) const override {
        return {IDEM_TEST_WORKER,
                design_,
                std::to_string(abreast_),
                "400",
                shared_redis().address(),
                broker_.stream(),
                "worker-" + std::to_string(generation),
                generation == 0 ? "60000" : "100",
                beside("effects"),
                beside("starts")};
    }
    [[nodiscard]] Judgement judge_now() override {
        Evidence seen;
        for (const auto& line : lines_of(beside("effects"))) {
            seen.effects.push_back(effects_of(line).at(0));
            seen.sum += seen.effects.back().cents;
        }
        for (const auto& entry : sent_) {
            const auto key = idem::detail::redis_key(broker_.stream(), {"billing", entry.id});
            const auto record =
                idem::detail::unpack_redis_record(broker_.redis().text({"GET", key}));
            if (record && record->state == idem::detail::RedisState::completed) {
                seen.recorded.insert(entry.id);
            }
        }
        broker_.show(seen);
        return judge(sent_, seen);
    }

private:
    std::vector<Entry> sent_;
    std::string design_;
    unsigned abreast_;
    TemporaryDirectory directory_;
    StreamBroker broker_;
};

auto sites(const std::vector<Entry>& sent, const std::string& design, unsigned abreast = 1) {
    return [=] { return std::make_unique<LeaseSite>(sent, design, abreast); };
}

class LeaseCrash : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RedisServer::missing()); }
};

/// The effect is made before the record, so a kill between the two repeats it: a key has no more
/// effects than one and one for each crash.
void expect_one_more_for_a_crash(const Enumerated& all) {
    std::size_t doubled = 0;
    for (auto kill : all.kills) {
        SCOPED_TRACE(std::to_string(kill.at) + ", " + kill.step);
        EXPECT_EQ(kill.at_kill.doubled, 0U);
        EXPECT_LE(kill.at_end.most, 1U + 1U);
        EXPECT_EQ(kill.at_end.doubled, kill.at_kill.torn) << "what has its record is not repeated";
        EXPECT_EQ(kill.at_end.sum_off > 0, kill.at_end.doubled > 0);
        doubled += kill.at_end.doubled;
        kill.at_kill.torn = 0;
        kill.at_end.doubled = 0;
        kill.at_end.sum_off = 0;
        EXPECT_TRUE(kill.at_kill.sound()) << kill.at_kill.text();
        EXPECT_TRUE(kill.at_end.clean()) << kill.at_end.text();
    }
    EXPECT_GT(doubled, 0U) << "no kill was between effect and record";
}

TEST_F(LeaseCrash, i2_i3_i4_a_kill_at_each_step_loses_nothing_and_doubles_once_at_most) {
    const auto all = enumerate(sites(mixed_stream(), "distributed_lock"));
    expect_whole(all, {"run", "lease", "redis"});
    expect_one_more_for_a_crash(all);
}

TEST_F(LeaseCrash, i2_i3_i4_a_kill_at_each_step_of_a_batch_doubles_each_once_at_most) {
    const auto all = enumerate(sites(mixed_stream(), "distributed_lock", 5));
    expect_whole(all, {"run", "redis"});
    expect_one_more_for_a_crash(all);
}

/// Exempt from invariants 2 and 3, and named so.
TEST_F(LeaseCrash, at_most_once_doubles_nothing_and_loses_between_claim_and_effect_alone) {
    const auto all = enumerate(sites(plain_stream(), "at_most_once"));
    expect_whole(all, {"at most once"});
    expect_wrong_around(
        all, "at most once: recorded", 2, [](const Killed& kill) { return kill.at_end.lost == 1; });
    EXPECT_TRUE(all.where([](const Killed& kill) { return kill.at_end.doubled > 0; }).empty());
}

} // namespace
