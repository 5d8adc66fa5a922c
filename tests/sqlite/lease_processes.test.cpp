// SPDX-License-Identifier: MIT
// Several processes that lease keys of one file, and what is left when one of them is killed. The
// test program is its own helper: `lease_processes.test claimer …` is what it starts.

#ifndef IDEM_FAILPOINTS
#define IDEM_FAILPOINTS // a kill at each step of a lease
#endif

#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>
#include <variant>
#include <vector>

#include "sqlite/database.hpp"
#include "sqlite/shifted_clock.hpp"
#include "support/child_process.hpp"

namespace {

using idem::ClaimRequest;
using idem::milliseconds;
using idem::testing_support::ChildOptions;
using idem::testing_support::ChildProcess;
using idem::testing_support::PlainConnection;
using idem::testing_support::TestDatabase;

using Store = idem::BasicSqliteStore<ShiftedClock>;

const idem::SqliteOptions patient{.busy = milliseconds{120'000}};
constexpr std::chrono::seconds long_time{240};
constexpr milliseconds lease{600'000};

ClaimRequest leased(std::string_view id) {
    return {.key = {"billing", id}, .lease = lease};
}

/// Claims `count` keys in an order of its own, singly or 16 at a time; the effect of each that it
/// won lies outside the transaction of its record.
int claimer(const std::string& path, unsigned seed, unsigned count, unsigned at_once) {
    std::vector<std::string> ids;
    for (unsigned number = 0; number < count; ++number) {
        ids.push_back("m-" + std::to_string(number));
    }
    std::minstd_rand random(seed);
    for (std::size_t at = ids.size(); at > 1; --at) {
        std::swap(ids[at - 1], ids[random() % at]);
    }
    idem::SqliteStore store(path, patient);
    PlainConnection effects(path, 120'000);
    for (std::size_t from = 0; from < ids.size(); from += at_once) {
        std::vector<ClaimRequest> asked;
        for (std::size_t at = from; at < std::min<std::size_t>(from + at_once, count); ++at) {
            asked.push_back(leased(ids[at]));
        }
        std::vector<idem::SqliteTicket> tickets;
        for (auto& answer : store.claim(std::span<const ClaimRequest>(asked))) {
            if (auto* won = std::get_if<0>(&answer)) {
                effects.run("INSERT INTO effect VALUES ('" + won->ticket.id + "')");
                tickets.push_back(std::move(won->ticket));
            }
        }
        const std::vector<std::string> results(tickets.size(), "done");
        for (const auto state : store.complete(std::span<const idem::SqliteTicket>(tickets),
                                               std::span<const std::string>(results))) {
            if (state != idem::TicketState::valid) {
                return 1;
            }
        }
    }
    return 0;
}

/// Leases m-1, says by which fence, and waits to be killed.
int owner(const std::string& path, const std::string& marker) {
    idem::SqliteStore store(path, patient);
    const auto mine = std::get<0>(store.claim(leased("m-1")));
    std::ofstream(marker + ".new") << mine.fence;
    std::filesystem::rename(marker + ".new", marker);
    for (;;) {
        ::pause();
    }
}

template <class OverStore>
auto charging(OverStore& store, PlainConnection& effects) {
    return idem::IdempotentConsumer(store, idem::DistributedLock{.lease = lease})
        .wrap(
            "billing",
            [](const std::string& id) { return id; },
            [&effects](const std::string& id) {
                effects.run("INSERT INTO effect VALUES ('" + id + "')");
                IDEM_FAILPOINT("handler: effect made");
            });
}

/// Handles m-1 under a lease, once.
int locker(const std::string& path) {
    idem::SqliteStore store(path, patient);
    PlainConnection effects(path);
    return charging(store, effects)("m-1").status() == idem::Status::executed ? 0 : 1;
}

class SqliteLeaseProcesses : public ::testing::Test {
protected:
    SqliteLeaseProcesses() { store.migrate(); }
    ChildProcess start(std::vector<std::string> arguments, const ChildOptions& options = {}) {
        arguments.insert(arguments.begin(), "/proc/self/exe");
        arguments.insert(arguments.begin() + 2, database.path());
        return ChildProcess(arguments, options);
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
        EXPECT_EQ(plain.number("SELECT count(*) FROM idem_record WHERE attempts > 1"), 0);
        EXPECT_EQ(plain.number("SELECT count(DISTINCT fence) FROM idem_record"), count);
        EXPECT_EQ(plain.text("PRAGMA integrity_check"), "ok");
    }

    TestDatabase database;
    Store store{database.path(), patient};
};

TEST_F(SqliteLeaseProcesses, i4_of_processes_that_lease_the_same_keys_one_gets_each) {
    constexpr unsigned count = 150;
    std::vector<ChildProcess> workers;
    workers.reserve(4);
    for (unsigned seed = 1; seed <= 4; ++seed) {
        workers.push_back(start(
            {"claimer", std::to_string(seed), std::to_string(count), seed % 2 == 0 ? "16" : "1"}));
    }
    for (auto& child : workers) {
        expect_clean_end(child);
    }
    expect_each_once(count);
}

TEST_F(SqliteLeaseProcesses, r4_1_the_lease_of_a_killed_owner_is_taken_over_by_another_process) {
    const auto marker = database.beside("marker");
    auto child = start({"owner", marker});
    const auto until = std::chrono::steady_clock::now() + long_time;
    while (!std::filesystem::exists(marker)) {
        ASSERT_TRUE(child.running());
        ASSERT_LT(std::chrono::steady_clock::now(), until);
        std::this_thread::sleep_for(milliseconds(1));
    }
    std::uint64_t fence = 0;
    std::ifstream(marker) >> fence;
    EXPECT_TRUE(std::holds_alternative<idem::InProgress>(store.claim(leased("m-1"))));
    child.kill(SIGKILL);
    ASSERT_TRUE(child.wait(long_time).has_value());
    EXPECT_TRUE(std::holds_alternative<idem::InProgress>(store.claim(leased("m-1"))))
        << "nobody but the clock knows that it was killed";
    ShiftedClock::advance(lease);
    const auto mine = std::get<0>(store.claim(leased("m-1")));
    EXPECT_TRUE(mine.takeover);
    EXPECT_EQ(mine.attempt, 2U);
    EXPECT_GT(mine.fence, fence);
    EXPECT_EQ(store.complete(mine.ticket, ""), idem::TicketState::valid);
}

TEST_F(SqliteLeaseProcesses, i2_i4_a_kill_at_each_step_loses_nothing_and_doubles_once_at_most) {
    const auto log = database.beside("steps");
    ChildOptions counting;
    counting.environment["IDEM_FAILPOINT_LOG"] = log;
    auto counted = start({"locker"}, counting);
    expect_clean_end(counted);
    expect_each_once(1);
    std::vector<std::string> steps;
    std::ifstream file(log);
    for (std::string step; std::getline(file, step);) {
        steps.push_back(step);
    }
    ASSERT_GE(steps.size(), 10U) << "two commits, and the steps of a leased call";
    PlainConnection effects(database.path());
    unsigned doubled = 0;
    for (std::size_t step = 1; step <= steps.size(); ++step) {
        SCOPED_TRACE(steps[step - 1]);
        effects.run("DELETE FROM effect; DELETE FROM idem_record");
        ChildOptions killing;
        killing.environment["IDEM_FAILPOINT"] = std::to_string(step);
        auto killed = start({"locker"}, killing);
        const auto ended = killed.wait(long_time);
        ASSERT_TRUE(ended.has_value());
        EXPECT_EQ(ended->signal, SIGKILL);
        const auto made = database.effects();
        const auto recorded = effects.number("SELECT count(*) FROM idem_record WHERE state = 2");
        ShiftedClock::advance(lease);
        const auto charge = charging(store, effects);
        EXPECT_EQ(charge("m-1").status(),
                  recorded == 1 ? idem::Status::replayed : idem::Status::executed);
        EXPECT_EQ(charge("m-1").status(), idem::Status::replayed);
        EXPECT_EQ(database.effects(), made + 1 - recorded);
        doubled += database.effects() > 1 ? 1 : 0;
        EXPECT_EQ(effects.text("PRAGMA integrity_check"), "ok");
    }
    EXPECT_GT(doubled, 0U) << "no kill was between effect and record";
}

} // namespace

int main(int count, char** values) {
    const std::vector<std::string> arguments(values, values + count);
    const auto number = [&](std::size_t at) {
        return static_cast<unsigned>(std::stoul(arguments.at(at)));
    };
    try {
        if (arguments.size() == 6 && arguments[1] == "claimer") {
            return claimer(arguments[2], number(3), number(4), number(5));
        }
        if (arguments.size() == 4 && arguments[1] == "owner") {
            return owner(arguments[2], arguments[3]);
        }
        if (arguments.size() == 3 && arguments[1] == "locker") {
            return locker(arguments[2]);
        }
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    ::testing::InitGoogleTest(&count, values);
    return RUN_ALL_TESTS();
}
