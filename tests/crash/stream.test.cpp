// SPDX-License-Identifier: MIT
// Worker + Redis Streams + PostgreSQL, killed at each step; other consumers take over.

#include <idem/store/postgres.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
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
using idem::testing_support::PostgresSession;
using idem::testing_support::RedisServer;
using idem::testing_support::shared_postgres;
using idem::testing_support::shared_redis;
using idem::testing_support::TemporaryDirectory;

struct Options {
    std::string design = "dedup_table";
    unsigned abreast = 1, attempts = 50, drainers = 2;
};

/// The database that all sites of this program share, each with a schema of its own.
const std::string& database() {
    static const std::string conninfo = shared_postgres().create_database();
    return conninfo;
}
std::string next_name() {
    static unsigned sites = 0;
    return "crash_" + std::to_string(::getpid()) + "_" + std::to_string(++sites);
}

class StreamSite : public Site {
public:
    StreamSite(std::vector<Entry> sent, Options options)
        : sent_(std::move(sent))
        , options_(std::move(options))
        , name_(next_name())
        , broker_(shared_redis().address(), name_, sent_)
        , postgres_(database()) {
        postgres_.run("CREATE SCHEMA " + name_);
        postgres_.run("CREATE TABLE " + name_ + ".effect (id text NOT NULL, cents bigint)");
        postgres_.run(idem::PostgresStore::schema_sql({.table = name_ + ".idem_record"}));
    }
    [[nodiscard]] std::string beside(const std::string& name) const override {
        return directory_ / name;
    }
    /// The first holds what it has for long, so that each run reaches the same steps.
    [[nodiscard]] std::vector<std::string> worker(unsigned generation) const override {
        return {IDEM_TEST_WORKER,
                options_.design,
                std::to_string(options_.abreast),
                std::to_string(options_.attempts),
                database(),
                name_,
                shared_redis().address(),
                name_,
                "worker-" + std::to_string(generation),
                generation == 0 ? "60000" : "200",
                beside("starts")};
    }
    [[nodiscard]] unsigned drainers() const override { return options_.drainers; }
    [[nodiscard]] Judgement judge_now() override {
        Evidence seen;
        seen.effects = effects_of(postgres_.run(
            "SELECT coalesce(string_agg(id || ':' || cents, ';'), '') FROM " + name_ + ".effect"));
        seen.sum = postgres_.number("SELECT coalesce(sum(cents), 0) FROM " + name_ + ".effect");
        seen.recorded = ids_of(
            postgres_.run("SELECT coalesce(string_agg(convert_from(id, 'UTF8'), ';'), '') FROM " +
                          name_ + ".idem_record WHERE state = 2"));
        broker_.show(seen);
        return judge(sent_, seen);
    }

private:
    std::vector<Entry> sent_;
    Options options_;
    std::string name_;
    TemporaryDirectory directory_;
    StreamBroker broker_;
    PostgresSession postgres_;
};

auto sites(const std::vector<Entry>& sent, const Options& options = {}) {
    return [=] { return std::make_unique<StreamSite>(sent, options); };
}

class StreamCrash : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(PostgresServer::missing());
        IDEM_TEST_NEEDS(RedisServer::missing());
    }
    /// Invariant 10: no transaction, no lock. A server notices a killed client when it next looks.
    static void expect_nothing_left() {
        PostgresSession session(database());
        const auto until = std::chrono::steady_clock::now() + long_time;
        const std::string left =
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND datname = current_database() AND pid <> pg_backend_pid()) + (SELECT count(*) FROM "
            "pg_locks JOIN pg_database ON pg_database.oid = database WHERE locktype = 'advisory' "
            "AND datname = current_database()) + (SELECT count(*) FROM pg_prepared_xacts WHERE "
            "database = current_database())";
        while (session.number(left) > 0 && std::chrono::steady_clock::now() < until) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        EXPECT_EQ(session.number(left), 0) << "sessions, locks and prepared transactions";
    }
};

TEST_F(StreamCrash, i1_i2_i3_i10_a_kill_at_each_step_loses_and_doubles_nothing) {
    const auto all = enumerate(sites(mixed_stream()));
    expect_whole(all, {"run", "table", "postgres"});
    expect_each_once(all);
    expect_nothing_left();
}

TEST_F(StreamCrash, i1_i2_i3_i10_a_kill_at_each_step_of_a_batch_loses_and_doubles_nothing) {
    const auto all = enumerate(sites(mixed_stream(), {.abreast = 5}));
    expect_whole(all, {"run", "table batch", "postgres"});
    expect_each_once(all);
    expect_nothing_left();
}

TEST_F(StreamCrash, i2_mutant_mark_then_effect_loses_where_it_is_killed_between_the_two) {
    const auto all =
        enumerate(sites(plain_stream(), {.design = "mark_then_effect", .drainers = 1}));
    expect_mutant_loses(all, 2);
}

TEST_F(StreamCrash, i1_mutant_effect_then_mark_doubles_where_it_is_killed_between_the_two) {
    const auto all =
        enumerate(sites(plain_stream(), {.design = "effect_then_mark", .drainers = 1}));
    expect_mutant_doubles(all, 2);
}

TEST_F(StreamCrash, i13_a_handler_that_always_kills_its_process_is_dead_after_max_attempts) {
    StreamSite site(poisoned_stream(), {.attempts = 3});
    expect_poison_dies(site, "pay-2", 3);
    EXPECT_EQ(starts_of(site, "pay-1") + starts_of(site, "pay-3"), 2U);
}

} // namespace
