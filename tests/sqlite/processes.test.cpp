// SPDX-License-Identifier: MIT
// Several processes on one file, and what is left when one of them is killed. The test program is
// its own helper: `processes.test worker …` is what it starts.

#ifndef IDEM_FAILPOINTS
#define IDEM_FAILPOINTS // a kill at each step of a transaction
#endif

#include <idem/store/sqlite.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <unistd.h>
#include <variant>
#include <vector>

#include "sqlite/database.hpp"
#include "support/child_process.hpp"

namespace {

using idem::testing_support::ChildOptions;
using idem::testing_support::ChildProcess;
using idem::testing_support::TestDatabase;

const idem::SqliteOptions patient{.busy = idem::milliseconds{120'000}};
constexpr std::chrono::seconds long_time{240};

/// As DedupTable does it, once.
void handle(idem::SqliteStore& store, const std::string& id) {
    const idem::ClaimRequest asked{.key = {"billing", id}};
    auto tx = store.begin();
    if (std::holds_alternative<idem::Claimed<std::monostate>>(tx.claim(asked))) {
        tx.execute("INSERT INTO effect VALUES (?)", id);
        tx.complete(asked, "done");
        tx.commit();
    }
}

/// Handles `count` messages, each `copies` times, in an order of its own.
int worker(const std::string& path, unsigned seed, unsigned count, unsigned copies) {
    std::vector<unsigned> deliveries;
    for (unsigned copy = 0; copy < copies; ++copy) {
        for (unsigned number = 0; number < count; ++number) {
            deliveries.push_back(number);
        }
    }
    std::minstd_rand random(seed);
    for (std::size_t at = deliveries.size(); at > 1; --at) {
        std::swap(deliveries[at - 1], deliveries[random() % at]);
    }
    idem::SqliteStore store(path, patient);
    for (const unsigned number : deliveries) {
        handle(store, "m-" + std::to_string(number));
    }
    return 0;
}

/// Holds a transaction with its effect and record open, says so, and waits to be killed.
int holder(const std::string& path, const std::string& marker) {
    idem::SqliteStore store(path, patient);
    auto tx = store.begin();
    static_cast<void>(tx.claim({.key = {"billing", "m-1"}}));
    tx.execute("INSERT INTO effect VALUES ('m-1')");
    tx.execute("PRAGMA cache_size = 1"); // pages go to the log before the commit
    tx.execute("CREATE TABLE big AS SELECT randomblob(1000000) AS x");
    tx.complete({.key = {"billing", "m-1"}}, "done");
    std::ofstream(marker) << "open";
    for (;;) {
        ::pause();
    }
}

class SqliteProcesses : public ::testing::Test {
protected:
    SqliteProcesses() { idem::SqliteStore(database.path(), patient).migrate(); }
    ChildProcess start(std::vector<std::string> arguments, const ChildOptions& options = {}) {
        arguments.insert(arguments.begin(), "/proc/self/exe");
        arguments.insert(arguments.begin() + 2, database.path());
        return ChildProcess(arguments, options);
    }
    ChildProcess start_worker(unsigned seed, unsigned count, unsigned copies) {
        return start(
            {"worker", std::to_string(seed), std::to_string(count), std::to_string(copies)});
    }
    static void expect_clean_end(ChildProcess& child) {
        const auto ended = child.wait(long_time);
        ASSERT_TRUE(ended.has_value()) << "a worker hangs";
        EXPECT_TRUE(ended->cleanly()) << "exit " << ended->code << ", signal " << ended->signal;
    }
    void expect_each_once(unsigned count) {
        auto plain = database.plain();
        EXPECT_EQ(plain.number("SELECT count(*) FROM effect"), count);
        EXPECT_EQ(plain.number("SELECT count(DISTINCT id) FROM effect"), count);
        EXPECT_EQ(plain.number("SELECT count(*) FROM idem_record WHERE state = 2"), count);
        EXPECT_EQ(plain.text("PRAGMA integrity_check"), "ok");
    }

    TestDatabase database;
};

TEST_F(SqliteProcesses, r1_9_processes_that_get_the_same_messages_take_effect_once_each) {
    std::vector<ChildProcess> workers;
    workers.reserve(4);
    for (unsigned seed = 1; seed <= 4; ++seed) {
        workers.push_back(start_worker(seed, 150, 2));
    }
    for (auto& child : workers) {
        expect_clean_end(child);
    }
    expect_each_once(150);
}

TEST_F(SqliteProcesses, r1_2_workers_killed_in_mid_work_lose_and_double_nothing) {
    constexpr unsigned count = 400;
    const auto until = std::chrono::steady_clock::now() + long_time;
    unsigned kills = 0;
    auto plain = database.plain();
    for (unsigned seed = 1; seed <= 8; ++seed) {
        auto first = start_worker(seed, count, 1);
        auto second = start_worker(seed + 100, count, 1);
        const auto goal = seed * count / 10;
        while (plain.number("SELECT count(*) FROM effect") < goal) {
            ASSERT_LT(std::chrono::steady_clock::now(), until) << "no worker makes headway";
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        kills += first.kill(SIGKILL) ? 1 : 0;
        kills += second.kill(SIGKILL) ? 1 : 0;
        first.wait(long_time);
        second.wait(long_time);
        EXPECT_EQ(plain.number("SELECT count(*) FROM effect"),
                  plain.number("SELECT count(*) FROM idem_record"));
    }
    EXPECT_GT(kills, 0U);
    auto last = start_worker(1'000, count, 1);
    expect_clean_end(last);
    expect_each_once(count);
}

TEST_F(SqliteProcesses, r1_2_kill_9_in_mid_transaction_leaves_nothing) {
    const auto marker = database.beside("marker");
    auto child = start({"holder", marker});
    const auto until = std::chrono::steady_clock::now() + long_time;
    while (!std::filesystem::exists(marker)) {
        ASSERT_TRUE(child.running());
        ASSERT_LT(std::chrono::steady_clock::now(), until);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(database.effects() + database.records(), 0);
    child.kill(SIGKILL);
    ASSERT_TRUE(child.wait(long_time).has_value());
    EXPECT_EQ(database.effects() + database.records(), 0);
    idem::SqliteStore store(database.path(), patient);
    handle(store, "m-1");
    handle(store, "m-1");
    expect_each_once(1);
}

TEST_F(SqliteProcesses, r1_2_a_kill_at_each_step_leaves_both_or_neither) {
    const auto log = database.beside("steps");
    ChildOptions counting;
    counting.environment["IDEM_FAILPOINT_LOG"] = log;
    auto counted = start({"worker", "1", "1", "1"}, counting);
    expect_clean_end(counted);
    std::vector<std::string> steps;
    std::ifstream file(log);
    for (std::string step; std::getline(file, step);) {
        steps.push_back(step);
    }
    ASSERT_GE(steps.size(), 6U);
    unsigned after_commit = 0;
    for (std::size_t step = 1; step <= steps.size(); ++step) {
        database.plain().run("DELETE FROM effect; DELETE FROM idem_record");
        ChildOptions killing;
        killing.environment["IDEM_FAILPOINT"] = std::to_string(step);
        auto killed = start({"worker", "1", "1", "1"}, killing);
        const auto ended = killed.wait(long_time);
        ASSERT_TRUE(ended.has_value());
        EXPECT_EQ(ended->signal, SIGKILL) << steps[step - 1];
        EXPECT_EQ(database.effects(), database.records()) << "killed at " << steps[step - 1];
        after_commit += database.effects() > 0 ? 1 : 0;
        auto again = start({"worker", "2", "1", "2"});
        expect_clean_end(again);
        expect_each_once(1);
    }
    EXPECT_EQ(after_commit, 1U) << "of the steps one is after COMMIT";
}

TEST_F(SqliteProcesses, migrate_by_ten_processes_at_once) {
    const auto path = database.beside("new.db");
    std::vector<ChildProcess> children;
    children.reserve(10);
    for (int number = 0; number < 10; ++number) {
        children.push_back(start({"migrate", path}));
    }
    for (auto& child : children) {
        expect_clean_end(child);
    }
    EXPECT_NO_THROW(idem::SqliteStore(path, patient).verify());
}

} // namespace

int main(int count, char** values) {
    const std::vector<std::string> arguments(values, values + count);
    try {
        if (arguments.size() == 6 && arguments[1] == "worker") {
            return worker(arguments[2],
                          static_cast<unsigned>(std::stoul(arguments[3])),
                          static_cast<unsigned>(std::stoul(arguments[4])),
                          static_cast<unsigned>(std::stoul(arguments[5])));
        }
        if (arguments.size() == 4 && arguments[1] == "holder") {
            return holder(arguments[2], arguments[3]);
        }
        if (arguments.size() == 4 && arguments[1] == "migrate") {
            idem::SqliteStore(arguments[3], patient).migrate();
            return 0;
        }
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    ::testing::InitGoogleTest(&count, values);
    return RUN_ALL_TESTS();
}
