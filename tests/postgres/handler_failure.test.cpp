// SPDX-License-Identifier: MIT
// What a handler can do to its transaction, and that none of it counts as executed.

#include <array>
#include <limits>
#include <span>

#include "postgres_test.hpp"

namespace idem::postgres_test {

class PostgresHandlerFailure : public PostgresTest {
protected:
    PostgresTransaction claimed() {
        auto tx = store().begin();
        if (!is_claimed(tx.claim(request()))) {
            throw std::runtime_error("the key is not free");
        }
        return tx;
    }
    /// The key is claimable, and nothing was recorded as done.
    void expect_free() {
        const auto seen = look(request());
        EXPECT_TRUE(is_claimed(seen));
        EXPECT_EQ(outside().number("SELECT count(*) FROM idem_record WHERE state = 2"), 0);
    }
    static void run(PGconn* connection, const char* sql) { PQclear(PQexec(connection, sql)); }
};

TEST_F(PostgresHandlerFailure, a_failed_statement_is_postgres_error_with_its_sqlstate) {
    outside().run("CREATE UNIQUE INDEX ON effect (id)");
    outside().run("INSERT INTO effect VALUES ('m-1')");
    auto tx = claimed();
    const auto error = thrown<PostgresError>([&] { write_effect(tx); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->sqlstate(), "23505");
    EXPECT_FALSE(tx.conflicted());
    tx.rollback();
    expect_free();
}

TEST_F(PostgresHandlerFailure, r1_3_a_swallowed_failure_is_found_before_the_commit) {
    auto tx = claimed();
    write_effect(tx);
    EXPECT_THROW(tx.execute("SELECT 1 / 0"), PostgresError);
    tx.complete(request(), "");
    const auto error = thrown<PostgresError>([&] { tx.commit(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->sqlstate(), "22012");
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    expect_free();
}

TEST_F(PostgresHandlerFailure, r1_3_a_failure_on_the_raw_connection_is_found_before_the_commit) {
    auto tx = claimed();
    run(tx.native(), "SELECT 1 / 0");
    tx.complete(request(), "");
    EXPECT_THROW(tx.commit(), PostgresError);
    tx.rollback();
    expect_free();
}

TEST_F(PostgresHandlerFailure, r1_3_a_deferred_constraint_fails_the_commit_as_the_handlers_error) {
    outside().run("ALTER TABLE effect ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED");
    auto tx = claimed();
    write_effect(tx);
    write_effect(tx);
    tx.complete(request(), "");
    const auto error = thrown<PostgresError>([&] { tx.commit(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->sqlstate(), "23505");
    EXPECT_FALSE(tx.conflicted());
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    expect_free();
}

TEST_F(PostgresHandlerFailure,
       r1_2_statements_that_end_the_transaction_are_refused_before_they_are_sent) {
    for (const char* sql : {"COMMIT",
                            "commit work",
                            "  -- done\n ;/* a /* b */ */ Commit",
                            "END",
                            "ROLLBACK",
                            "ABORT",
                            "BEGIN",
                            "START TRANSACTION",
                            "SAVEPOINT a",
                            "RELEASE a",
                            "PREPARE TRANSACTION 'x'",
                            "COPY effect FROM STDIN"}) {
        auto tx = claimed();
        EXPECT_THROW(tx.execute(sql), std::logic_error) << sql;
        EXPECT_THROW(tx.post(sql), std::logic_error) << sql;
        write_effect(tx);
        tx.rollback();
    }
    EXPECT_EQ(effects(), 0);
    expect_free();
}

TEST_F(PostgresHandlerFailure, several_statements_in_one_text_are_an_error) {
    auto tx = claimed();
    EXPECT_THROW(tx.execute("INSERT INTO effect VALUES ('m-1'); COMMIT; BEGIN"), PostgresError);
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    expect_free();
}

TEST_F(PostgresHandlerFailure, r1_3_commit_and_begin_on_the_raw_connection_is_never_executed) {
    auto tx = claimed();
    run(tx.native(), "INSERT INTO effect VALUES ('m-1'); COMMIT; BEGIN");
    tx.complete(request(), "\1x");
    EXPECT_THROW(tx.commit(), std::logic_error);
    tx.rollback();
    EXPECT_EQ(effects(), 1) << "its own doing";
    expect_free();
}

TEST_F(PostgresHandlerFailure, r1_3_commit_alone_on_the_raw_connection_is_never_executed) {
    auto tx = claimed();
    run(tx.native(), "COMMIT");
    tx.complete(request(), "");
    EXPECT_THROW(tx.commit(), std::logic_error);
    tx.rollback();
    expect_free();
}

TEST_F(PostgresHandlerFailure, r1_3_prepare_transaction_on_the_raw_connection_is_never_executed) {
    const auto gid = outside().run("SELECT 'idem-' || current_database()");
    auto tx = claimed();
    run(tx.native(), ("PREPARE TRANSACTION '" + gid + "'").c_str());
    tx.complete(request(), "");
    EXPECT_THROW(tx.commit(), std::logic_error);
    tx.rollback();
    outside().run("ROLLBACK PREPARED '" + gid + "'");
    expect_free();
}

TEST_F(PostgresHandlerFailure, r1_3_a_rollback_and_begin_on_the_raw_connection_is_never_executed) {
    auto tx = claimed();
    run(tx.native(), "ROLLBACK");
    run(tx.native(), "BEGIN");
    run(tx.native(), "INSERT INTO effect VALUES ('m-1')");
    tx.complete(request(), "");
    EXPECT_ANY_THROW(tx.commit());
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    expect_free();
}

TEST_F(PostgresHandlerFailure, a_connection_left_busy_is_a_logic_error_and_is_dropped) {
    auto tx = claimed();
    ASSERT_EQ(PQsendQuery(tx.native(), "SELECT 1"), 1);
    tx.complete(request(), "");
    EXPECT_THROW(tx.commit(), std::logic_error);
    tx.rollback();
    expect_free();
}

TEST_F(PostgresHandlerFailure, work_on_the_raw_connection_commits_with_the_record) {
    auto tx = claimed();
    tx.post("INSERT INTO effect VALUES ('posted')");
    run(tx.native(), "INSERT INTO effect VALUES ('m-1')");
    run(tx.native(), "SAVEPOINT own; INSERT INTO effect VALUES ('m-2'); ROLLBACK TO own");
    write_effect(tx, "m-3");
    tx.complete(request(), "\1x");
    tx.commit();
    EXPECT_EQ(effects(), 3);
    EXPECT_EQ(std::get<Completed>(look(request())).result, "\1x");
}

TEST_F(PostgresHandlerFailure, a_posted_failure_comes_out_of_the_commit) {
    auto tx = claimed();
    write_effect(tx);
    tx.post("INSERT INTO effect VALUES ($1)", std::nullopt);
    tx.complete(request(), "");
    const auto error = thrown<PostgresError>([&] { tx.commit(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->sqlstate(), "23502");
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    expect_free();
}

TEST_F(PostgresHandlerFailure, posted_statements_run_in_order_before_the_next_executed_one) {
    auto tx = claimed();
    tx.post("INSERT INTO effect VALUES ('a')");
    tx.post("UPDATE effect SET id = id || 'b'");
    const auto rows = tx.execute("SELECT id FROM effect");
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows.text(0, 0), "ab");
    tx.rollback();
    EXPECT_EQ(effects(), 0);
}

TEST_F(PostgresHandlerFailure, r1_5_a_serialization_failure_anywhere_is_conflicted) {
    const char* failing = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$";
    {
        auto tx = claimed();
        EXPECT_THROW(tx.execute(failing), PostgresError);
        EXPECT_TRUE(tx.conflicted());
        tx.rollback();
        EXPECT_TRUE(tx.conflicted()) << "also after the rollback";
    }
    {
        auto tx = claimed();
        tx.post(failing);
        tx.complete(request(), "");
        EXPECT_ANY_THROW(tx.commit());
        EXPECT_TRUE(tx.conflicted());
    }
    expect_free();
}

TEST_F(PostgresHandlerFailure, r1_5_a_deferred_serialization_failure_at_commit_is_conflicted) {
    outside().run("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
                  "$$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$");
    outside().run("CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON effect DEFERRABLE INITIALLY "
                  "DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()");
    auto tx = claimed();
    write_effect(tx);
    tx.complete(request(), "");
    EXPECT_EQ(fault_thrown([&] { tx.commit(); }), Fault::unavailable);
    EXPECT_TRUE(tx.conflicted());
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    expect_free();
}

TEST_F(PostgresHandlerFailure, a_deferred_trigger_that_raises_is_the_handlers_error) {
    outside().run("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
                  "$$ BEGIN RAISE EXCEPTION 'no more credit'; END $$");
    outside().run("CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON effect DEFERRABLE INITIALLY "
                  "DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()");
    auto tx = claimed();
    write_effect(tx);
    tx.complete(request(), "");
    const auto error = thrown<PostgresError>([&] { tx.commit(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->sqlstate(), "P0001");
}

TEST_F(PostgresHandlerFailure, a_record_that_the_handler_deleted_commits_nothing) {
    auto tx = claimed();
    write_effect(tx);
    tx.execute("DELETE FROM idem_record");
    tx.complete(request(), "\1x");
    EXPECT_EQ(fault_thrown([&] { tx.commit(); }), Fault::unavailable);
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    expect_free();
}

TEST_F(PostgresHandlerFailure, r1_10_the_next_transaction_finds_the_session_as_it_was) {
    for (const bool commits : {true, false}) {
        auto tx = claimed();
        tx.execute("SET statement_timeout = '1h'");
        run(tx.native(), "SET application_name = 'left behind'");
        run(tx.native(), "SELECT pg_advisory_lock(4711)");
        PQclear(PQprepare(tx.native(), "mine", "SELECT 1", 0, nullptr));
        if (commits) {
            tx.complete(request(), "");
            tx.commit();
            outside().run("TRUNCATE idem_record");
        } else {
            tx.rollback();
        }
        auto next = claimed(); // the pool lends the connection used last
        EXPECT_EQ(next.execute("SHOW statement_timeout").text(0, 0), "0");
        EXPECT_EQ(next.execute("SHOW application_name").text(0, 0), "idem");
        EXPECT_EQ(next.execute("SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'")
                      .text(0, 0),
                  "0");
        next.rollback();
        EXPECT_EQ(outside().run("SELECT pg_try_advisory_lock(4711)"), "t");
        outside().run("SELECT pg_advisory_unlock(4711)");
    }
}

TEST_F(PostgresHandlerFailure, a_search_path_that_hides_the_table_is_the_handlers_failure) {
    auto tx = claimed();
    write_effect(tx);
    tx.execute("SET LOCAL search_path = pg_catalog");
    tx.complete(request(), "\1x");
    const auto error = thrown<PostgresError>([&] { tx.commit(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->sqlstate(), "42P01");
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    expect_free();
}

TEST_F(PostgresHandlerFailure, parameters_of_every_kind_arrive) {
    using namespace std::string_literals;
    auto tx = claimed();
    const std::string bytes("\0\xff\\x", 4);
    const auto rows = tx.execute("SELECT $1::text, $2::bigint, $3::boolean, $4::bytea = "
                                 "'\\x00ff5c78', $5::integer, $6::text, "
                                 "$7::float8 = 0.1::float8, $8::text, $9::numeric",
                                 "it's"s,
                                 std::numeric_limits<std::int64_t>::min(),
                                 true,
                                 std::as_bytes(std::span(bytes)),
                                 std::optional<int>{},
                                 "",
                                 0.1,
                                 'c',
                                 std::optional<unsigned>{7U});
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows.text(0, 0), "it's");
    EXPECT_EQ(rows.text(0, 1), "-9223372036854775808");
    EXPECT_EQ(rows.text(0, 2), "t");
    EXPECT_EQ(rows.text(0, 3), "t");
    EXPECT_EQ(rows.text(0, 4), std::nullopt);
    EXPECT_EQ(rows.text(0, 5), "");
    EXPECT_EQ(rows.text(0, 6), "t");
    EXPECT_EQ(rows.text(0, 7), "c");
    EXPECT_EQ(rows.text(0, 8), "7");
    EXPECT_THROW(static_cast<void>(rows.text(1, 0)), std::out_of_range);
    EXPECT_THROW(tx.execute("SELECT $1::text", "a\0b"s), std::invalid_argument);
    EXPECT_EQ(tx.execute("INSERT INTO effect SELECT 'x' FROM generate_series(1, 3)").affected(),
              3U);
}

TEST_F(PostgresHandlerFailure, a_handler_that_makes_up_its_sql_does_not_fill_the_server) {
    auto tx = claimed();
    for (int i = 0; i < 400; ++i) {
        tx.execute("SELECT " + std::to_string(i));
    }
    const auto prepared = tx.execute("SELECT count(*) FROM pg_prepared_statements").text(0, 0);
    EXPECT_LE(std::stoi(prepared.value()), 256);
}

TEST_F(PostgresHandlerFailure, r8_a_session_that_lost_its_prepared_statements_goes_on_without) {
    handle(request("m-0"));
    {
        auto tx = claimed();
        tx.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"); // as a pooler's other session
        tx.rollback();
    }
    handle(request("m-1")); // 26000 at its claim
    handle(request("m-2"));
    EXPECT_EQ(effects(), 3);
}

TEST_F(PostgresHandlerFailure, r8_a_commit_that_is_not_prepared_any_more_is_run_again) {
    handle(request("m-0"));
    {
        auto tx = claimed();
        write_effect(tx);
        tx.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$");
        tx.complete(request(), "");
        EXPECT_EQ(fault_thrown([&] { tx.commit(); }), Fault::unavailable); // 26000
        EXPECT_TRUE(tx.conflicted());
        tx.rollback();
    }
    EXPECT_EQ(effects(), 1);
    handle(request());
    EXPECT_EQ(effects(), 2);
    EXPECT_TRUE(is<Completed>(look(request())));
}

} // namespace idem::postgres_test
