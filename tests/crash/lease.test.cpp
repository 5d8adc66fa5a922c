// SPDX-License-Identifier: MIT
// Worker + lease in Redis, PostgreSQL or SQLite, with its effects elsewhere, killed at each step.

#include <idem/detail/redis_record.hpp>
#include <idem/store/postgres.hpp>
#include <idem/store/sqlite.hpp>

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
#include "support/postgres_server.hpp"
#include "support/redis_server.hpp"
#include "support/temporary_directory.hpp"

namespace {

using namespace idem::crash_test;
using idem::testing_support::PostgresServer;
using idem::testing_support::RedisServer;
using idem::testing_support::shared_postgres;
using idem::testing_support::shared_redis;
using idem::testing_support::TemporaryDirectory;

std::string next_name() {
    static unsigned sites = 0;
    return "crash_" + std::to_string(::getpid()) + "_" + std::to_string(++sites);
}

/// Where the records of a site are kept.
class LeaseHome {
public:
    LeaseHome() = default;
    LeaseHome(const LeaseHome&) = delete;
    LeaseHome& operator=(const LeaseHome&) = delete;
    virtual ~LeaseHome() = default;
    /// The worker's last two arguments.
    [[nodiscard]] virtual std::vector<std::string> arguments() const = 0;
    virtual bool completed(const idem::Key& key) = 0;
};

class RedisHome : public LeaseHome {
public:
    explicit RedisHome(std::string name) : name_(std::move(name)) {}
    [[nodiscard]] std::vector<std::string> arguments() const override {
        return {"redis", shared_redis().address()};
    }
    bool completed(const idem::Key& key) override {
        const auto record = idem::detail::unpack_redis_record(
            redis_.text({"GET", idem::detail::redis_key(name_, key)}));
        return record && record->state == idem::detail::RedisState::completed;
    }

private:
    std::string name_;
    idem::testing_support::RedisSession redis_{shared_redis().address()};
};

template <class Store>
class TableHome : public LeaseHome {
public:
    template <class Options>
    TableHome(std::string kind, std::string where, const Options& options)
        : arguments_{std::move(kind), std::move(where)}
        , store_(arguments_[1], options) {
        store_.migrate();
    }
    [[nodiscard]] std::vector<std::string> arguments() const override { return arguments_; }
    bool completed(const idem::Key& key) override {
        const auto record = store_.find(key);
        return record && record->state == idem::State::completed;
    }

private:
    std::vector<std::string> arguments_;
    Store store_;
};

/// The database that all sites of this program share, each with a table of its own.
const std::string& database() {
    static const std::string conninfo = shared_postgres().create_database();
    return conninfo;
}

std::unique_ptr<LeaseHome>
home_in(const std::string& kind, const std::string& name, const std::string& file) {
    if (kind == "postgres") {
        return std::make_unique<TableHome<idem::PostgresStore>>(
            kind, database(), idem::PostgresOptions{.table = name});
    }
    if (kind == "sqlite") {
        return std::make_unique<TableHome<idem::SqliteStore>>(kind, file, idem::SqliteOptions{});
    }
    return std::make_unique<RedisHome>(name);
}

class LeaseSite : public Site {
public:
    LeaseSite(std::vector<Entry> sent,
              std::string design,
              const std::string& kind,
              unsigned abreast)
        : sent_(std::move(sent))
        , design_(std::move(design))
        , abreast_(abreast)
        , broker_(shared_redis().address(), next_name(), sent_)
        , home_(home_in(kind, broker_.stream(), beside("records.db"))) {}
    [[nodiscard]] std::string beside(const std::string& name) const override {
        return directory_ / name;
    }
    [[nodiscard]] std::vector<std::string> worker(unsigned generation) const override {
        std::vector<std::string> words{IDEM_TEST_WORKER,
                                       design_,
                                       std::to_string(abreast_),
                                       "400",
                                       shared_redis().address(),
                                       broker_.stream(),
                                       "worker-" + std::to_string(generation),
                                       generation == 0 ? "60000" : "100",
                                       beside("effects"),
                                       beside("starts")};
        for (auto& word : home_->arguments()) {
            words.push_back(std::move(word));
        }
        return words;
    }
    [[nodiscard]] Judgement judge_now() override {
        Evidence seen;
        for (const auto& line : lines_of(beside("effects"))) {
            seen.effects.push_back(effects_of(line).at(0));
            seen.sum += seen.effects.back().cents;
        }
        for (const auto& entry : sent_) {
            if (!entry.id.empty() && home_->completed({"billing", entry.id})) {
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
    std::unique_ptr<LeaseHome> home_;
};

auto sites(const std::vector<Entry>& sent,
           const std::string& design,
           unsigned abreast = 1,
           const std::string& kind = "redis") {
    return [=] { return std::make_unique<LeaseSite>(sent, design, kind, abreast); };
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

TEST_F(LeaseCrash, i2_i3_i4_the_same_with_the_lease_in_postgresql) {
    IDEM_TEST_NEEDS(PostgresServer::missing());
    const auto all = enumerate(sites(mixed_stream(), "distributed_lock", 1, "postgres"));
    expect_whole(all, {"run", "lease", "postgres lease"});
    expect_one_more_for_a_crash(all);
}

TEST_F(LeaseCrash, i2_i3_i4_the_same_with_the_lease_in_sqlite) {
    const auto all = enumerate(sites(mixed_stream(), "distributed_lock", 1, "sqlite"));
    expect_whole(all, {"run", "lease", "sqlite lease"});
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
