// SPDX-License-Identifier: MIT
// What a handler may do with its transaction, and what it does to itself by breaking it.

#include <idem/store/sqlite.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "sqlite/database.hpp"

namespace {

using idem::ClaimRequest;
using idem::SqliteError;
using idem::SqliteTransaction;

class SqliteHandler : public ::testing::Test {
protected:
    SqliteHandler() : store(database.path(), {.on_open = "PRAGMA foreign_keys = ON"}) {
        store.migrate();
    }
    SqliteTransaction begin_claimed() {
        auto tx = store.begin();
        EXPECT_TRUE(std::holds_alternative<idem::Claimed<std::monostate>>(tx.claim({.key = key})));
        return tx;
    }
    static void write_effect(SqliteTransaction& tx) {
        tx.execute("INSERT INTO effect VALUES ('m-1')");
    }
    /// Completes and commits, which must fail as the handler's own fault.
    void expect_handler_failure(SqliteTransaction& tx) {
        try {
            tx.complete({.key = key}, "done");
            tx.commit();
            ADD_FAILURE() << "a broken transaction was committed";
        } catch (const SqliteError& error) {
            EXPECT_FALSE(tx.conflicted()) << error.what();
        }
        tx.rollback();
        expect_nothing_and_go_on();
    }
    void expect_nothing_and_go_on() {
        EXPECT_EQ(database.effects(), 0);
        EXPECT_EQ(database.records(), 0);
        auto tx = begin_claimed();
        write_effect(tx);
        tx.complete({.key = key}, "done");
        tx.commit();
        EXPECT_EQ(database.effects(), 1);
        EXPECT_EQ(database.records(), 1);
    }
    static int raw(SqliteTransaction& tx, const char* sql) {
        return sqlite3_exec(tx.native(), sql, nullptr, nullptr, nullptr);
    }

    idem::testing_support::TestDatabase database;
    idem::SqliteStore store;
    idem::Key key{"billing", "m-1"};
};

TEST_F(SqliteHandler, r1_2_control_statements_are_refused_before_they_run) {
    auto tx = begin_claimed();
    write_effect(tx);
    for (const char* sql : {"COMMIT",
                            "commit transaction",
                            "END",
                            "ROLLBACK",
                            "Rollback Transaction",
                            "BEGIN",
                            "BEGIN IMMEDIATE",
                            "  -- a comment\n COMMIT",
                            "/* BEGIN */ ROLLBACK;",
                            "; COMMIT",
                            "\xef\xbb\xbf COMMIT"}) {
        EXPECT_THROW(tx.execute(sql), std::logic_error) << sql;
    }
    EXPECT_EQ(database.effects(), 0);
    tx.complete({.key = key}, "done");
    tx.commit();
    EXPECT_EQ(database.effects(), 1);
}

TEST_F(SqliteHandler, r1_3_a_commit_through_the_raw_connection_becomes_a_rollback) {
    auto tx = begin_claimed();
    write_effect(tx);
    EXPECT_NE(raw(tx, "COMMIT"), SQLITE_OK);
    expect_handler_failure(tx);
}

TEST_F(SqliteHandler, r1_3_commit_and_begin_through_the_raw_connection_keep_no_effect) {
    auto tx = begin_claimed();
    write_effect(tx);
    raw(tx, "COMMIT");
    raw(tx, "BEGIN IMMEDIATE");
    raw(tx, "INSERT INTO effect VALUES ('late')");
    expect_handler_failure(tx);
}

TEST_F(SqliteHandler, r1_3_what_runs_after_a_rollback_of_the_handler_commits_nothing) {
    auto tx = begin_claimed();
    write_effect(tx);
    EXPECT_EQ(raw(tx, "ROLLBACK"), SQLITE_OK);
    EXPECT_NE(raw(tx, "INSERT INTO effect VALUES ('alone')"), SQLITE_OK);
    EXPECT_THROW(tx.execute("INSERT INTO effect VALUES ('alone')"), SqliteError);
    expect_handler_failure(tx);
}

TEST_F(SqliteHandler, r1_3_replaced_hooks_are_a_broken_transaction) {
    auto tx = begin_claimed();
    write_effect(tx);
    sqlite3_commit_hook(tx.native(), nullptr, nullptr);
    expect_handler_failure(tx);
}

TEST_F(SqliteHandler, r1_9_a_swallowed_statement_that_rolled_all_back_is_noticed) {
    database.plain().run("CREATE TABLE once (id TEXT UNIQUE); INSERT INTO once VALUES ('a')");
    auto tx = begin_claimed();
    write_effect(tx);
    EXPECT_THROW(tx.execute("INSERT OR ROLLBACK INTO once VALUES ('a')"), SqliteError);
    EXPECT_THROW(tx.execute("INSERT INTO effect VALUES ('alone')"), SqliteError);
    expect_handler_failure(tx);
}

TEST_F(SqliteHandler, a_swallowed_statement_that_failed_alone_changes_nothing) {
    database.plain().run("CREATE TABLE once (id TEXT UNIQUE); INSERT INTO once VALUES ('a')");
    auto tx = begin_claimed();
    write_effect(tx);
    try {
        tx.execute("INSERT INTO once VALUES ('b'), ('a')");
        ADD_FAILURE();
    } catch (const SqliteError& error) {
        EXPECT_EQ(error.code(), SQLITE_CONSTRAINT_UNIQUE);
        EXPECT_NE(std::string(error.what()).find("UNIQUE"), std::string::npos);
    }
    EXPECT_FALSE(tx.conflicted());
    tx.complete({.key = key}, "done");
    tx.commit();
    EXPECT_EQ(database.effects(), 1);
    EXPECT_EQ(database.plain().number("SELECT count(*) FROM once"), 1);
}

TEST_F(SqliteHandler, r1_3_a_deferred_constraint_at_commit_is_the_handlers_failure) {
    database.plain().run("CREATE TABLE parent (id INTEGER PRIMARY KEY);"
                         "CREATE TABLE child (parent INTEGER REFERENCES parent "
                         "DEFERRABLE INITIALLY DEFERRED)");
    auto tx = begin_claimed();
    write_effect(tx);
    tx.execute("INSERT INTO child VALUES (?)", 7);
    tx.complete({.key = key}, "done");
    try {
        tx.commit();
        ADD_FAILURE();
    } catch (const SqliteError& error) {
        EXPECT_EQ(error.code(), SQLITE_CONSTRAINT_FOREIGNKEY);
    }
    EXPECT_FALSE(tx.conflicted());
    tx.rollback();
    EXPECT_EQ(database.plain().number("SELECT count(*) FROM child"), 0);
    expect_nothing_and_go_on();
}

TEST_F(SqliteHandler, r1_10_a_statement_left_half_run_is_the_handlers_failure) {
    auto tx = begin_claimed();
    sqlite3_stmt* statement = nullptr;
    ASSERT_EQ(sqlite3_prepare_v2(tx.native(),
                                 "INSERT INTO effect VALUES ('a'), ('b') RETURNING id",
                                 -1,
                                 &statement,
                                 nullptr),
              SQLITE_OK);
    ASSERT_EQ(sqlite3_step(statement), SQLITE_ROW);
    tx.complete({.key = key}, "done");
    EXPECT_THROW(tx.commit(), SqliteError);
    sqlite3_finalize(statement);
    expect_nothing_and_go_on();
}

TEST_F(SqliteHandler, r1_10_no_state_of_a_connection_reaches_the_next_handler) {
    for (int round = 0; round < 2; ++round) {
        auto tx = store.begin();
        tx.execute("CREATE TEMP TABLE scratch (x)");
        tx.execute("INSERT INTO scratch VALUES (1)");
        EXPECT_EQ(tx.execute("SELECT count(*) FROM scratch").integer(0, 0), 1);
        tx.execute("PRAGMA recursive_triggers = ON");
        tx.commit();
    }
    auto tx = store.begin();
    EXPECT_EQ(tx.execute("PRAGMA recursive_triggers").integer(0, 0), 0);
    EXPECT_EQ(tx.execute("PRAGMA foreign_keys").integer(0, 0), 1) << "on_open is run each time";
    EXPECT_EQ(tx.execute("PRAGMA synchronous").integer(0, 0), 2) << "r1_9: FULL";
}

TEST_F(SqliteHandler, values_of_every_type_come_back_as_they_went_in) {
    using namespace std::string_literals;
    auto tx = store.begin();
    tx.execute("CREATE TABLE every (a, b, c, d, e, f, g, h, i)");
    const std::array<std::byte, 3> bytes{std::byte{0}, std::byte{0xff}, std::byte{1}};
    const auto written = tx.execute("INSERT INTO every VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                    std::numeric_limits<std::int64_t>::min(),
                                    "nul \0 in text"s,
                                    0.25,
                                    true,
                                    bytes,
                                    nullptr,
                                    std::optional<std::string>(),
                                    std::optional<int>(7),
                                    std::string_view());
    EXPECT_EQ(written.affected(), 1U);
    EXPECT_EQ(written.size(), 0U);
    const auto rows =
        tx.execute("SELECT a, b, c, d, e, f, g, h, i, typeof(e), typeof(i) FROM every");
    tx.commit();
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows.affected(), 0U);
    EXPECT_EQ(rows.integer(0, 0), std::numeric_limits<std::int64_t>::min());
    EXPECT_EQ(rows.text(0, 1), "nul \0 in text"s);
    EXPECT_EQ(rows.text(0, 2), "0.25");
    EXPECT_EQ(rows.integer(0, 3), 1);
    EXPECT_EQ(rows.text(0, 4), "\0\xff\1"s);
    EXPECT_EQ(rows.text(0, 5), std::nullopt);
    EXPECT_EQ(rows.text(0, 6), std::nullopt);
    EXPECT_EQ(rows.integer(0, 6), std::nullopt);
    EXPECT_EQ(rows.integer(0, 7), 7);
    EXPECT_EQ(rows.text(0, 8), "");
    EXPECT_EQ(rows.text(0, 9), "blob");
    EXPECT_EQ(rows.text(0, 10), "text");
    EXPECT_THROW(static_cast<void>(rows.text(1, 0)), std::out_of_range);
    EXPECT_THROW(static_cast<void>(rows.text(0, 11)), std::out_of_range);
    EXPECT_THROW(static_cast<void>(rows.integer(0, 1)), std::out_of_range);
}

TEST_F(SqliteHandler, affected_counts_the_rows_of_this_statement) {
    auto tx = store.begin();
    EXPECT_EQ(tx.execute("INSERT INTO effect VALUES ('a'), ('b')").affected(), 2U);
    EXPECT_EQ(tx.execute("UPDATE effect SET id = 'c' WHERE id = 'z'").affected(), 0U);
    EXPECT_EQ(tx.execute("SELECT * FROM effect").affected(), 0U);
    EXPECT_EQ(tx.execute("INSERT INTO effect VALUES ('d') RETURNING id").text(0, 0), "d");
    EXPECT_EQ(tx.execute("DELETE FROM effect").affected(), 3U);
}

TEST_F(SqliteHandler, one_statement_and_as_many_values_as_parameters) {
    auto tx = store.begin();
    EXPECT_THROW(tx.execute("INSERT INTO effect VALUES ('a'); INSERT INTO effect VALUES ('b')"),
                 std::invalid_argument);
    EXPECT_THROW(tx.execute("INSERT INTO effect VALUES ('a'); nonsense"), std::invalid_argument);
    EXPECT_THROW(tx.execute("INSERT INTO effect VALUES ('a'); COMMIT"), std::invalid_argument);
    EXPECT_THROW(tx.execute(""), std::invalid_argument);
    EXPECT_THROW(tx.execute(" ;; -- nothing"), std::invalid_argument);
    EXPECT_THROW(tx.execute("INSERT INTO effect VALUES (?)"), std::invalid_argument);
    EXPECT_THROW(tx.execute("INSERT INTO effect VALUES ('a')", 1), std::invalid_argument);
    EXPECT_THROW(tx.execute("SELECT ?", std::numeric_limits<std::uint64_t>::max()),
                 std::invalid_argument);
    EXPECT_THROW(tx.execute("no such statement"), SqliteError);
    EXPECT_EQ(tx.execute("INSERT INTO effect VALUES ('a'); -- once").affected(), 1U);
    tx.commit();
    EXPECT_EQ(database.effects(), 1);
}

TEST_F(SqliteHandler, any_number_of_different_statements) {
    auto tx = store.begin();
    for (int number = 0; number < 300; ++number) {
        tx.execute("INSERT INTO effect VALUES ('" + std::to_string(number) + "')");
    }
    tx.commit();
    EXPECT_EQ(database.effects(), 300);
}

TEST_F(SqliteHandler, savepoints_of_the_handlers_own_are_its_own) {
    auto tx = begin_claimed();
    tx.execute("SAVEPOINT mine");
    write_effect(tx);
    tx.execute("ROLLBACK TO mine");
    tx.execute("RELEASE mine");
    write_effect(tx);
    tx.complete({.key = key}, "done");
    tx.commit();
    EXPECT_EQ(database.effects(), 1);
}

TEST_F(SqliteHandler, r6_7_a_handler_that_broke_a_batch_makes_it_run_again) {
    auto tx = store.begin();
    const std::array<ClaimRequest, 2> asked{
        {{.key = {"billing", "m-1"}}, {.key = {"billing", "m-2"}}}};
    ASSERT_EQ(tx.claim(asked).size(), 2U);
    tx.savepoint();
    write_effect(tx);
    EXPECT_FALSE(tx.conflicted());
    raw(tx, "ROLLBACK");
    EXPECT_THROW(tx.savepoint(), SqliteError);
    EXPECT_TRUE(tx.conflicted());
    tx.rollback();
    expect_nothing_and_go_on();
}

TEST_F(SqliteHandler, after_its_end_a_transaction_is_over) {
    auto tx = begin_claimed();
    tx.rollback();
    EXPECT_THROW(tx.execute("SELECT 1"), std::logic_error);
    EXPECT_THROW(static_cast<void>(tx.native()), std::logic_error);
    EXPECT_THROW(tx.complete({.key = key}, "done"), std::logic_error);
    EXPECT_THROW(tx.commit(), std::logic_error);
    EXPECT_FALSE(tx.conflicted());
}

TEST_F(SqliteHandler, only_a_claimed_key_is_completed_and_once) {
    auto tx = begin_claimed();
    EXPECT_THROW(tx.complete({.key = {"billing", "m-2"}}, "done"), std::logic_error);
    EXPECT_THROW(tx.complete({.key = {"shipping", "m-1"}}, "done"), std::logic_error);
    tx.complete({.key = key}, "done");
    EXPECT_THROW(tx.complete({.key = key}, "again"), std::logic_error);
    tx.commit();
    EXPECT_EQ(database.records(), 1);
}

TEST_F(SqliteHandler, r1_2_a_record_that_a_trigger_swallows_stops_the_commit) {
    database.plain().run("CREATE TRIGGER swallow BEFORE INSERT ON idem_record "
                         "BEGIN SELECT RAISE(IGNORE); END");
    auto tx = begin_claimed();
    write_effect(tx);
    try {
        tx.complete({.key = key}, "done");
        ADD_FAILURE();
    } catch (const idem::StoreError& error) {
        EXPECT_EQ(error.fault(), idem::Fault::rejected);
    }
    tx.rollback();
    EXPECT_EQ(database.effects(), 0);
}

} // namespace
