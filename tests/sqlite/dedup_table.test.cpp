// SPDX-License-Identifier: MIT
// DedupTable over SqliteStore: what a user's handler comes to.

#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "sqlite/database.hpp"

namespace {

using idem::SqliteTransaction;
using idem::Status;

struct Order {
    std::string id;
    int cents = 0;
};

class SqliteDedupTable : public ::testing::Test {
protected:
    SqliteDedupTable() {
        database.plain().run("CREATE TABLE charge (order_id TEXT NOT NULL, cents INTEGER)");
        store.migrate();
    }
    template <class Handler>
    auto wrap(Handler handler, idem::ConsumerOptions options = {}) {
        return idem::IdempotentConsumer(store, idem::DedupTable{}, options)
            .wrap("billing", &Order::id, handler);
    }
    static void charge(const Order& order, SqliteTransaction& tx) {
        tx.execute("INSERT INTO charge VALUES (?, ?)", order.id, order.cents);
    }
    std::int64_t charges() { return database.plain().number("SELECT count(*) FROM charge"); }

    idem::testing_support::TestDatabase database;
    idem::SqliteStore store{database.path()};
};

TEST_F(SqliteDedupTable, a_message_that_comes_again_is_replayed) {
    const auto bill = wrap([](const Order& order, SqliteTransaction& tx) {
        charge(order, tx);
        return tx.execute("SELECT count(*) FROM charge").integer(0, 0).value();
    });
    static_assert(decltype(bill)::guarantee == idem::Guarantee::effectively_once);
    EXPECT_EQ(bill({"o-1", 10}).status(), Status::executed);
    EXPECT_EQ(bill({"o-2", 20}).value(), 2);
    const auto again = bill({"o-1", 10});
    EXPECT_EQ(again.status(), Status::replayed);
    EXPECT_EQ(again.value(), 1);
    EXPECT_EQ(charges(), 2);
}

TEST_F(SqliteDedupTable, r3_4_failures_are_counted_until_it_is_dead) {
    const auto bill = wrap(
        [](const Order& order, SqliteTransaction& tx) {
            charge(order, tx);
            throw std::runtime_error("card declined");
        },
        {.max_attempts = 2});
    EXPECT_EQ(bill.handle({"o-1", 10}).status(), Status::failed);
    EXPECT_EQ(bill.handle({"o-1", 10}).status(), Status::failed);
    EXPECT_EQ(bill.handle({"o-1", 10}).status(), Status::dead);
    EXPECT_EQ(charges(), 0);
    EXPECT_EQ(database.plain().text("SELECT note FROM idem_record"), "card declined");
}

TEST_F(SqliteDedupTable, r1_3_a_handler_that_commits_fails_and_leaves_nothing) {
    const auto bill = wrap([](const Order& order, SqliteTransaction& tx) {
        charge(order, tx);
        sqlite3_exec(tx.native(), "COMMIT", nullptr, nullptr, nullptr);
    });
    const auto outcome = bill.handle({"o-1", 10});
    EXPECT_EQ(outcome.status(), Status::failed);
    EXPECT_EQ(outcome.settlement().action, idem::Action::retry);
    EXPECT_EQ(charges(), 0);
    EXPECT_EQ(database.plain().number("SELECT attempts FROM idem_record"), 1) << "charged";
}

TEST_F(SqliteDedupTable, r3_2_a_full_file_is_unavailable_and_not_charged) {
    idem::SqliteStore small{database.path(), {.on_open = "PRAGMA max_page_count = 12"}};
    const auto bill = idem::IdempotentConsumer(small, idem::DedupTable{}, {.max_attempts = 1})
                          .wrap("billing", &Order::id, [](const Order&, SqliteTransaction& tx) {
                              tx.execute("INSERT INTO charge VALUES (zeroblob(1000000), 1)");
                          });
    for (int again = 0; again < 3; ++again) {
        try {
            static_cast<void>(bill({"o-1", 10}));
            ADD_FAILURE();
        } catch (const idem::StoreError& error) {
            EXPECT_EQ(error.fault(), idem::Fault::unavailable) << error.what();
        }
    }
    EXPECT_EQ(database.records(), 0);
}

TEST_F(SqliteDedupTable, r6_7_in_a_batch_one_failure_is_its_own) {
    const auto bill = wrap([](const Order& order, SqliteTransaction& tx) {
        charge(order, tx);
        if (order.cents < 0) {
            throw std::runtime_error("negative");
        }
    });
    const std::vector<Order> orders{{"o-1", 1}, {"o-2", -1}, {"o-1", 1}, {"o-3", 3}};
    const auto outcomes = bill.batch(orders);
    ASSERT_EQ(outcomes.size(), 4U);
    EXPECT_EQ(outcomes[0].status(), Status::executed);
    EXPECT_EQ(outcomes[1].status(), Status::failed);
    EXPECT_EQ(outcomes[2].status(), Status::replayed);
    EXPECT_EQ(outcomes[3].status(), Status::executed);
    EXPECT_EQ(charges(), 2);
}

TEST_F(SqliteDedupTable, r6_7_in_a_batch_one_that_breaks_the_transaction_fails_alone) {
    for (const bool swallows : {true, false}) {
        const auto bill = wrap([&](const Order& order, SqliteTransaction& tx) {
            charge(order, tx);
            if (order.cents < 0) {
                sqlite3_exec(tx.native(), "ROLLBACK", nullptr, nullptr, nullptr);
                if (!swallows) {
                    throw std::runtime_error("negative");
                }
            }
        });
        const std::string suffix = swallows ? "a" : "b";
        const std::vector<Order> orders{
            {"o-1" + suffix, 1}, {"o-2" + suffix, -1}, {"o-3" + suffix, 3}};
        const auto outcomes = bill.batch(orders);
        ASSERT_EQ(outcomes.size(), 3U);
        EXPECT_EQ(outcomes[0].status(), Status::executed);
        EXPECT_EQ(outcomes[1].status(), Status::failed);
        EXPECT_EQ(outcomes[2].status(), Status::executed);
    }
    EXPECT_EQ(charges(), 4);
}

TEST_F(SqliteDedupTable, r1_6_within_the_users_transaction_nothing_settles_before_its_commit) {
    const auto bill = wrap(&SqliteDedupTable::charge);
    auto user = database.plain();
    user.run("BEGIN IMMEDIATE");
    auto uncommitted = bill.within(user.native(), {"o-1", 10});
    EXPECT_EQ(uncommitted.status(), Status::executed);
    EXPECT_EQ(charges(), 0);
    user.run("COMMIT");
    EXPECT_EQ(std::move(uncommitted).committed().settlement().action, idem::Action::ack);
    EXPECT_EQ(charges(), 1);
    EXPECT_EQ(bill({"o-1", 10}).status(), Status::replayed);
}

TEST_F(SqliteDedupTable, r3_3_a_redelivered_message_is_charged_before_its_handler_runs) {
    const auto bill = idem::IdempotentConsumer(store, idem::DedupTable{}, {.max_attempts = 3})
                          .wrap(
                              "billing",
                              [](const Order& order) {
                                  return idem::Identity{.id = order.id, .redelivered = true};
                              },
                              [this](const Order& order, SqliteTransaction& tx) {
                                  EXPECT_EQ(store.peek({.key = {"billing", order.id}}).index(), 0U);
                                  EXPECT_EQ(database.records(), 1);
                                  charge(order, tx);
                              });
    EXPECT_EQ(bill({"o-1", 10}).status(), Status::executed);
    EXPECT_EQ(bill({"o-1", 10}).status(), Status::replayed);
    EXPECT_EQ(charges(), 1);
}

TEST_F(SqliteDedupTable, threads_that_get_the_same_messages_take_effect_once_each) {
    const auto bill = wrap(&SqliteDedupTable::charge);
    std::atomic<int> executed{0};
    {
        std::vector<std::jthread> threads;
        threads.reserve(8);
        for (int thread = 0; thread < 8; ++thread) {
            threads.emplace_back([&, thread] {
                for (int number = 0; number < 40; ++number) {
                    const auto id = "o-" + std::to_string((number + thread * 5) % 40);
                    executed += bill({id, 1}).status() == Status::executed ? 1 : 0;
                }
            });
        }
    }
    EXPECT_EQ(executed, 40);
    EXPECT_EQ(charges(), 40);
}

} // namespace
