// SPDX-License-Identifier: MIT
// In a transaction that the user has open on a connection of their own.

#include <idem/store/sqlite.hpp>

#include <gtest/gtest.h>

#include <string>
#include <variant>

#include "sqlite/database.hpp"

namespace {

using Won = idem::Claimed<std::monostate>;

class SqliteJoin : public ::testing::Test {
protected:
    SqliteJoin() : store(database.path(), {.busy = idem::milliseconds{50}}) { store.migrate(); }
    /// What a handler does in the user's transaction, up to where commit() would come.
    idem::SqliteTransaction handle(const idem::Key& key) {
        auto tx = store.join(user.native());
        EXPECT_TRUE(std::holds_alternative<Won>(tx.claim({.key = key})));
        tx.execute("INSERT INTO effect VALUES (?)", key.id);
        tx.complete({.key = key}, "done");
        return tx;
    }

    idem::testing_support::TestDatabase database;
    idem::testing_support::PlainConnection user{database.path(), 50};
    idem::SqliteStore store;
};

TEST_F(SqliteJoin, r1_6_nothing_is_visible_before_the_users_own_commit) {
    user.run("BEGIN IMMEDIATE");
    user.run("INSERT INTO effect VALUES ('the user''s')");
    handle({"billing", "m-1"}).commit();
    EXPECT_EQ(database.effects(), 0);
    EXPECT_EQ(database.records(), 0);
    user.run("COMMIT");
    EXPECT_EQ(database.effects(), 2);
    EXPECT_EQ(database.records(), 1);
    EXPECT_TRUE(
        std::holds_alternative<idem::Completed>(store.begin().claim({.key = {"billing", "m-1"}})));
}

TEST_F(SqliteJoin, rollback_returns_to_the_savepoint_and_keeps_the_users_writes) {
    user.run("BEGIN");
    user.run("INSERT INTO effect VALUES ('the user''s')");
    handle({"billing", "m-1"}).rollback();
    { const auto dropped = handle({"billing", "m-2"}); }
    handle({"billing", "m-3"}).commit();
    user.run("COMMIT");
    EXPECT_EQ(database.effects(), 2);
    EXPECT_EQ(database.records(), 1);
}

TEST_F(SqliteJoin, the_users_rollback_takes_all) {
    user.run("BEGIN");
    handle({"billing", "m-1"}).commit();
    user.run("ROLLBACK");
    EXPECT_EQ(database.effects() + database.records(), 0);
}

TEST_F(SqliteJoin, without_an_open_transaction_it_is_a_logic_error) {
    EXPECT_THROW(static_cast<void>(store.join(user.native())), std::logic_error);
    EXPECT_THROW(static_cast<void>(store.join(nullptr)), std::logic_error);
}

TEST_F(SqliteJoin, r1_5_a_lock_that_others_hold_asks_for_a_new_transaction) {
    user.run("BEGIN");
    auto owner = store.begin();
    auto tx = store.join(user.native());
    EXPECT_THROW(static_cast<void>(tx.claim({.key = {"billing", "m-1"}})), idem::StoreError);
    EXPECT_TRUE(tx.conflicted());
}

TEST_F(SqliteJoin, r1_5_a_snapshot_that_others_wrote_past_asks_for_a_new_transaction) {
    user.run("BEGIN");
    EXPECT_EQ(user.number("SELECT count(*) FROM effect"), 0);
    {
        auto other = store.begin();
        static_cast<void>(other.claim({.key = {"billing", "m-1"}}));
        other.complete({.key = {"billing", "m-1"}}, "done");
        other.commit();
    }
    auto tx = store.join(user.native());
    try {
        static_cast<void>(tx.claim({.key = {"billing", "m-1"}}));
        ADD_FAILURE() << "the claim believed its old snapshot";
    } catch (const idem::StoreError& error) {
        EXPECT_EQ(error.fault(), idem::Fault::unavailable);
    }
    EXPECT_TRUE(tx.conflicted());
    tx.rollback();
    user.run("ROLLBACK");
    user.run("BEGIN");
    EXPECT_TRUE(std::holds_alternative<idem::Completed>(
        store.join(user.native()).claim({.key = {"billing", "m-1"}})));
    user.run("ROLLBACK");
}

TEST_F(SqliteJoin, r1_2_a_handler_that_ended_the_users_transaction_is_noticed) {
    user.run("BEGIN");
    auto tx = handle({"billing", "m-1"});
    EXPECT_THROW(tx.execute("COMMIT"), std::logic_error);
    sqlite3_exec(tx.native(), "ROLLBACK", nullptr, nullptr, nullptr);
    EXPECT_THROW(tx.execute("INSERT INTO effect VALUES ('alone')"), idem::SqliteError);
    EXPECT_THROW(tx.commit(), idem::SqliteError);
    EXPECT_FALSE(tx.conflicted());
    EXPECT_EQ(database.effects() + database.records(), 0);
}

TEST_F(SqliteJoin, r1_2_a_transaction_begun_anew_by_the_handler_is_noticed) {
    user.run("BEGIN");
    auto tx = handle({"billing", "m-1"});
    user.run("ROLLBACK");
    user.run("BEGIN");
    EXPECT_THROW(tx.commit(), idem::SqliteError);
    user.run("COMMIT");
    EXPECT_EQ(database.effects() + database.records(), 0);
}

TEST_F(SqliteJoin, the_connection_can_be_closed_afterwards) {
    sqlite3* mine = nullptr;
    ASSERT_EQ(sqlite3_open(database.path().c_str(), &mine), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(mine, "BEGIN", nullptr, nullptr, nullptr), SQLITE_OK);
    {
        auto tx = store.join(mine);
        static_cast<void>(tx.claim({.key = {"billing", "m-1"}}));
        tx.commit();
    }
    EXPECT_EQ(sqlite3_exec(mine, "COMMIT", nullptr, nullptr, nullptr), SQLITE_OK);
    EXPECT_EQ(sqlite3_close(mine), SQLITE_OK) << "no statement of the library is left in it";
}

} // namespace
