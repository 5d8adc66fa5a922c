// SPDX-License-Identifier: MIT
// What is decided without a server: the kind of a statement, the lock of a key, whose failure it
// is.

#include <idem/store/postgres.hpp>

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace idem::detail {

TEST(PostgresSql, r1_2_what_begins_ends_or_splits_a_transaction_is_told_by_its_first_words) {
    for (const char* sql : {"COMMIT",
                            "commit;",
                            "\t\n cOmMiT",
                            "-- x\nCOMMIT",
                            "--\rCOMMIT",
                            "/* /* */ SELECT */ ROLLBACK",
                            ";;COMMIT",
                            "; -- a\n /**/ ;END",
                            "BEGIN",
                            "START TRANSACTION",
                            "ABORT",
                            "END",
                            "SAVEPOINT a",
                            "RELEASE SAVEPOINT a",
                            "ROLLBACK TO a",
                            "PREPARE TRANSACTION 'a'",
                            "prepare/**/transaction 'a'",
                            "COMMIT/**/AND CHAIN",
                            "ROLLBACK PREPARED 'a'"}) {
        EXPECT_EQ(kind_of(sql), SqlKind::ending) << sql;
    }
    for (const char* sql : {"SET x = 1",
                            "set session x = 1",
                            "declare c cursor with hold for select 1",
                            "RESET ALL",
                            "DISCARD ALL",
                            "LISTEN a",
                            "PREPARE a AS SELECT 1",
                            "DEALLOCATE a",
                            "CREATE TEMP TABLE a ()",
                            "create temporary view v as select 1",
                            "LOAD 'x'"}) {
        EXPECT_EQ(kind_of(sql), SqlKind::session) << sql;
    }
    for (const char* sql : {"SELECT 1",
                            "SELECT 'COMMIT'",
                            "",
                            "  ",
                            "-- COMMIT",
                            "/* COMMIT",
                            "commits",
                            "INSERT INTO commit VALUES (1)",
                            "SET LOCAL x = 1",
                            "(SELECT 1)",
                            "\"commit\"",
                            "SET CONSTRAINTS ALL IMMEDIATE",
                            "WITH a AS (SELECT 1) SELECT 2",
                            "CREATE TABLE a ()",
                            "- - COMMIT"}) {
        EXPECT_EQ(kind_of(sql), SqlKind::plain) << sql;
    }
    EXPECT_EQ(kind_of("copy effect from stdin"), SqlKind::copy);
}

TEST(PostgresSql, equal_texts_are_one_statement_to_a_connection) {
    const PqSql one("SELECT 1"), same("SELECT 1"), other("SELECT 2");
    EXPECT_TRUE(one == same);
    EXPECT_FALSE(one == other);
    EXPECT_EQ(PqSql::Hash{}(one), PqSql::Hash{}(same));
    EXPECT_FALSE(PqSql::once("SELECT 1").is_to_be_prepared());
}

TEST(PostgresSql, r4_6_the_lock_of_a_key_is_part_of_the_record_format) {
    // Programs of several releases work on one table: these numbers must never change.
    EXPECT_EQ(advisory_lock_of("idem_record", {"billing", "m-1"}), -6099159442118001650);
    EXPECT_EQ(advisory_lock_of("shop.idem_record", {"billing", "m-1"}), 5114532104165178260);
    const std::set<std::int64_t> locks{advisory_lock_of("t", {"a:b", "c"}),
                                       advisory_lock_of("t", {"a", "b:c"}),
                                       advisory_lock_of("t", {"a", ":b:c"}),
                                       advisory_lock_of("ta", {":b", "c"}),
                                       advisory_lock_of("t", {"ab", "c"}),
                                       advisory_lock_of("t", {"a", "bc"})};
    EXPECT_EQ(locks.size(), 6U);
}

TEST(PostgresSql, table_names_are_quoted_part_by_part) {
    EXPECT_EQ(with_table("a {table} b {fence} {x}", "shop.record"),
              "a \"shop\".\"record\" b \"shop\".\"record_fence\" {x}");
    EXPECT_NE(PostgresStore::schema_sql({.table = "shop.record"}).find("\"shop\".\"record\" ("),
              std::string::npos);
}

TEST(PostgresSql, parameters_become_text_that_the_server_reads_back) {
    EXPECT_EQ(parameter_of(-7).value, "-7");
    EXPECT_EQ(parameter_of(0.1).value, "0.1");
    EXPECT_EQ(parameter_of(true).value, "t");
    EXPECT_EQ(parameter_of('7').value, "7");
    EXPECT_EQ(parameter_of("text").value, "text");
    EXPECT_FALSE(parameter_of(nullptr).value);
    EXPECT_FALSE(parameter_of(std::optional<std::string>{}).value);
    EXPECT_THROW(static_cast<void>(parameter_of(std::string("a\0b", 3))), std::invalid_argument);
    EXPECT_EQ(bytes_array({"", std::string_view("\0\"", 2)}).value, "{\"\\\\x\",\"\\\\x0022\"}");
    EXPECT_EQ(plain_note("a\nb\0c\xff"), "a b");
}

TEST(PostgresSql, a_binary_row_is_big_endian_with_a_sign) {
    EXPECT_EQ(fingerprint_bytes({.high = 0x0102030405060708, .low = 0xff, .algorithm = 1}),
              std::string("\1\2\3\4\5\6\7\10\0\0\0\0\0\0\0\xff", 16));
    EXPECT_EQ(fingerprint_bytes({}), "");
}

/// A leg of our claim's, the handler's, and our own last statements, that failed at one of them.
class PostgresFailure : public ::testing::Test {
protected:
    static PqLeg failed(std::size_t at, const char* sqlstate, bool link_lost = false) {
        PqLeg leg;
        leg.failed = at;
        leg.sqlstate = sqlstate;
        leg.link_lost = link_lost;
        return leg;
    }
    static PostgresSteps steps() {
        PostgresSteps all;
        for (const auto origin : {PostgresOrigin::ours,
                                  PostgresOrigin::handler,
                                  PostgresOrigin::seal,
                                  PostgresOrigin::still_ours,
                                  PostgresOrigin::end}) {
            all.push_back({.statement = {.sql = PqSql("SELECT 1")}, .origin = origin});
        }
        return all;
    }
    static constexpr std::size_t ours = 0, handler = 1, seal = 2, still_ours = 3, end = 4;
};

TEST_F(PostgresFailure, the_failing_statement_tells_whose_failure_it_is) {
    const auto all = steps();
    EXPECT_EQ(blame_for(failed(ours, "42P01"), all), PostgresBlame::store);
    EXPECT_EQ(blame_for(failed(ours, "25P02"), all), PostgresBlame::handler);
    EXPECT_EQ(blame_for(failed(handler, "23505"), all), PostgresBlame::handler);
    EXPECT_EQ(blame_for(failed(handler, "3B001"), all), PostgresBlame::handler);
    EXPECT_EQ(blame_for(failed(seal, "22012"), all), PostgresBlame::record_changed);
    EXPECT_EQ(blame_for(failed(seal, "53100"), all), PostgresBlame::store);
    EXPECT_EQ(blame_for(failed(seal, "42P01"), all), PostgresBlame::handler);
    EXPECT_EQ(blame_for(failed(still_ours, "22012"), all), PostgresBlame::handler_ended_it);
    EXPECT_EQ(blame_for(failed(end, "3B001"), all), PostgresBlame::handler_ended_it);
    EXPECT_EQ(blame_for(failed(end, "23505"), all), PostgresBlame::handler);
    EXPECT_EQ(blame_for(failed(end, "P0001"), all), PostgresBlame::handler);
    EXPECT_EQ(blame_for(failed(end, "40001"), all), PostgresBlame::store);
    EXPECT_EQ(blame_for(failed(end, "53100"), all), PostgresBlame::store);
    EXPECT_EQ(blame_for(failed(end, "57P01", true), all), PostgresBlame::store);
}

TEST_F(PostgresFailure, r1_5_r3_2_what_is_run_again_and_what_is_not) {
    for (const char* sqlstate : {"40001", "40P01", "26000", "42P05"}) {
        EXPECT_TRUE(is_worth_a_rerun(failed(handler, sqlstate))) << sqlstate;
    }
    for (const char* sqlstate : {"23505", "53200", "57014", "42P01", "25P02"}) {
        EXPECT_FALSE(is_worth_a_rerun(failed(handler, sqlstate))) << sqlstate;
    }
    EXPECT_TRUE(is_worth_a_rerun(failed(handler, "57P01", true)));
    EXPECT_FALSE(is_worth_a_rerun(failed(handler, "25P03", true)));
    PqLeg silent;
    silent.link_lost = silent.timed_out = true;
    EXPECT_FALSE(is_worth_a_rerun(silent));
}

TEST_F(PostgresFailure, r8_the_fault_is_told_by_the_code_alone) {
    for (const char* sqlstate : {"08006",
                                 "08P01",
                                 "53100",
                                 "53200",
                                 "53300",
                                 "57P01",
                                 "57P03",
                                 "57014",
                                 "25006",
                                 "40001",
                                 "55P03",
                                 "58030",
                                 "XX000",
                                 ""}) {
        EXPECT_EQ(fault_of(sqlstate), Fault::unavailable) << sqlstate;
    }
    for (const char* sqlstate : {"42P01",
                                 "42703",
                                 "42501",
                                 "42P10",
                                 "28P01",
                                 "28000",
                                 "3D000",
                                 "3F000",
                                 "0A000",
                                 "22P02",
                                 "23514",
                                 "XX001"}) {
        EXPECT_EQ(fault_of(sqlstate), Fault::rejected) << sqlstate;
    }
    EXPECT_EQ(fault_of("25P03"), Fault::lease_lost);
}

} // namespace idem::detail
