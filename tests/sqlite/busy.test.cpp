// SPDX-License-Identifier: MIT
// The write lock is the claim, so begin() is what waits (semantics.md 1.9).

#include <idem/store/sqlite.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "sqlite/database.hpp"

namespace {

using idem::Fault;
using idem::StoreError;
using idem::testing_support::TestDatabase;
using std::chrono::steady_clock;

constexpr idem::milliseconds short_time{60}, long_time{60'000};

/// What begin() throws, and that it waited as long as it may.
void expect_busy(idem::SqliteStore& store) {
    const auto start = steady_clock::now();
    try {
        const auto tx = store.begin();
        ADD_FAILURE() << "two transactions at once";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::unavailable);
        EXPECT_NE(std::string(error.what()).find("SqliteOptions::busy"), std::string::npos)
            << error.what();
    }
    EXPECT_GE(steady_clock::now() - start, short_time);
}

TEST(SqliteBusy, r1_9_a_lock_of_another_process_past_the_deadline_is_unavailable) {
    const TestDatabase database;
    idem::SqliteStore store{database.path(), {.busy = short_time}};
    store.migrate();
    auto other = database.plain();
    other.run("BEGIN IMMEDIATE");
    expect_busy(store);
    other.run("ROLLBACK");
    EXPECT_NO_THROW(store.begin().commit());
}

TEST(SqliteBusy, r1_9_a_transaction_of_another_thread_past_the_deadline_is_unavailable) {
    const TestDatabase database;
    idem::SqliteStore store{database.path(), {.busy = short_time}};
    store.migrate();
    auto mine = store.begin();
    std::thread([&] { expect_busy(store); }).join();
    mine.commit();
    std::thread([&] { EXPECT_NO_THROW(store.begin().commit()); }).join();
}

TEST(SqliteBusy, r1_9_a_transaction_of_another_store_past_the_deadline_is_unavailable) {
    const TestDatabase database;
    idem::SqliteStore store{database.path(), {.busy = short_time}};
    idem::SqliteStore other{database.path(), {.busy = short_time}};
    store.migrate();
    const auto mine = store.begin();
    expect_busy(other);
}

TEST(SqliteBusy, r1_9_a_nested_begin_on_one_thread_is_a_logic_error) {
    const TestDatabase database;
    idem::SqliteStore store{database.path(), {.busy = long_time}};
    store.migrate();
    {
        auto mine = store.begin();
        const auto start = steady_clock::now();
        EXPECT_THROW(static_cast<void>(store.begin()), std::logic_error);
        store.record_failure({.key = {"billing", "m-1"}}, "inside: not counted, and no deadlock");
        EXPECT_LT(steady_clock::now() - start, long_time);
        mine.execute("INSERT INTO effect VALUES ('m-1')");
        mine.commit();
    }
    EXPECT_EQ(database.effects(), 1);
    EXPECT_EQ(database.records(), 0);
    EXPECT_NO_THROW(store.begin().commit());
}

TEST(SqliteBusy, r1_9_begin_waits_for_the_thread_before_it_and_sees_what_it_did) {
    const TestDatabase database;
    idem::SqliteStore store{database.path(), {.busy = long_time}};
    store.migrate();
    std::optional<idem::SqliteTransaction> mine(store.begin());
    static_cast<void>(mine->claim({.key = {"billing", "m-1"}}));
    std::atomic<bool> first_is_over{false};
    auto second = std::async(std::launch::async, [&] {
        auto tx = store.begin();
        const bool waited = first_is_over;
        return waited &&
               std::holds_alternative<idem::Completed>(tx.claim({.key = {"billing", "m-1"}}));
    });
    mine->complete({.key = {"billing", "m-1"}}, "done");
    first_is_over = true;
    mine->commit();
    EXPECT_TRUE(second.get());
}

TEST(SqliteBusy, r1_9_begin_waits_for_the_lock_of_another_process) {
    const TestDatabase database;
    idem::SqliteStore store{database.path(), {.busy = long_time}};
    store.migrate();
    auto other = database.plain();
    other.run("BEGIN IMMEDIATE");
    other.run("INSERT INTO effect VALUES ('first')");
    std::promise<void> started;
    auto second = std::async(std::launch::async, [&] {
        started.set_value();
        auto tx = store.begin();
        return tx.execute("SELECT count(*) FROM effect").integer(0, 0);
    });
    started.get_future().wait();
    other.run("COMMIT");
    EXPECT_EQ(second.get(), 1);
}

TEST(SqliteBusy, a_transaction_may_end_on_another_thread_than_it_began) {
    const TestDatabase database;
    idem::SqliteStore store{database.path(), {.busy = long_time}};
    store.migrate();
    auto mine = store.begin();
    std::thread([tx = std::move(mine)]() mutable {
        tx.execute("INSERT INTO effect VALUES ('m-1')");
        tx.commit();
    }).join();
    EXPECT_EQ(database.effects(), 1);
    EXPECT_NO_THROW(store.begin().commit());
}

TEST(SqliteBusy, many_threads_take_turns_and_none_is_turned_away) {
    const TestDatabase database;
    idem::SqliteStore store{database.path(), {.busy = long_time}};
    store.migrate();
    {
        std::vector<std::jthread> threads;
        threads.reserve(8);
        for (int thread = 0; thread < 8; ++thread) {
            threads.emplace_back([&] {
                for (int round = 0; round < 25; ++round) {
                    auto tx = store.begin();
                    tx.execute("INSERT INTO effect VALUES ('m')");
                    tx.commit();
                    static_cast<void>(store.peek({.key = {"billing", "m-1"}}));
                }
            });
        }
    }
    EXPECT_EQ(database.effects(), 200);
}

} // namespace
