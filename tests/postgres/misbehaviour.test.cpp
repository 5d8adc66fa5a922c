// SPDX-License-Identifier: MIT
// Handlers that misbehave, through the consumer: nothing is half done, each is found out, and the
// next borrower of the connection sees nothing of it (semantics.md 1.2, 1.3, 1.10).

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>

#include <functional>
#include <ostream>
#include <string>

#include "postgres_test.hpp"

namespace idem::postgres_test {

class PostgresMisbehaviour : public PostgresTest {
protected:
    using Handler = std::function<void(PostgresTransaction&)>;

    /// One connection: who comes next has the session of who came before.
    PostgresMisbehaviour() { options_.connections = 1; }

    /// One delivery to `handler`.
    Verdict deliver(const Handler& handler, const std::string& id = "m-1") {
        return IdempotentConsumer(store(), DedupTable{})
            .wrap(
                "billing",
                [](const std::string& message) { return message; },
                [&](const std::string&, PostgresTransaction& tx) { handler(tx); })
            .handle(id, {})
            .verdict();
    }
    static void on_connection(PostgresTransaction& tx, const std::string& sql) {
        PQclear(PQexec(tx.native(), sql.c_str()));
    }
    /// Failed by the handler, charged, retried; and then the key is free for a good one.
    void expect_found_out(const Verdict& verdict, long effects_of_its_own = 0) {
        EXPECT_EQ(verdict.status, Status::failed);
        EXPECT_EQ(verdict.fault, std::nullopt) << "not the store's failure";
        EXPECT_EQ(verdict.settlement().action, Settlement::retry);
        EXPECT_EQ(effects(), effects_of_its_own);
        EXPECT_EQ(outside().number("SELECT count(*) FROM idem_record WHERE state = 2"), 0);
        EXPECT_EQ(outside().number("SELECT attempts FROM idem_record"), 1);
        expect_nothing_left_behind();
        const auto again = deliver([](PostgresTransaction& tx) { write_effect(tx); });
        EXPECT_EQ(again.status, Status::executed);
        EXPECT_EQ(again.attempts, 2U);
        EXPECT_EQ(effects(), effects_of_its_own + 1);
    }
    void expect_nothing_left_behind() {
        EXPECT_EQ(outside().number("SELECT count(*) FROM pg_stat_activity WHERE datname = "
                                   "current_database() AND state LIKE 'idle in transaction%'"),
                  0);
        EXPECT_EQ(outside().number("SELECT count(*) FROM pg_prepared_xacts"), 0);
        EXPECT_EQ(outside().number("SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = "
                                   "database WHERE datname = current_database() AND locktype = "
                                   "'advisory'"),
                  0);
    }
};

TEST_F(PostgresMisbehaviour, one_that_ends_its_transaction_by_execute_is_refused_and_charged) {
    for (const char* sql : {"COMMIT", "ROLLBACK", "PREPARE TRANSACTION 'idem'", "BEGIN"}) {
        SCOPED_TRACE(sql);
        outside().run("TRUNCATE idem_record, effect");
        expect_found_out(deliver([&](PostgresTransaction& tx) {
            write_effect(tx);
            tx.execute(sql);
        }));
    }
}

TEST_F(PostgresMisbehaviour, one_that_swallows_the_refusal_has_done_nothing_wrong) {
    const auto verdict = deliver([](PostgresTransaction& tx) {
        write_effect(tx);
        EXPECT_THROW(tx.execute("COMMIT"), std::logic_error); // it was never sent
    });
    EXPECT_EQ(verdict.status, Status::executed);
    EXPECT_EQ(effects(), 1);
    expect_nothing_left_behind();
}

TEST_F(PostgresMisbehaviour, r1_3_one_that_swallows_a_failed_statement_is_found_out) {
    expect_found_out(deliver([](PostgresTransaction& tx) {
        write_effect(tx);
        EXPECT_THROW(tx.execute("SELECT 1 / 0"), PostgresError);
    }));
}

TEST_F(PostgresMisbehaviour, r1_3_one_that_swallows_it_and_all_that_follow_is_found_out) {
    expect_found_out(deliver([](PostgresTransaction& tx) {
        EXPECT_THROW(tx.execute("SELECT 1 / 0"), PostgresError);
        EXPECT_THROW(write_effect(tx), PostgresError);
        tx.post("INSERT INTO effect VALUES ('m-1')");
    }));
}

TEST_F(PostgresMisbehaviour, r1_3_one_that_swallows_it_on_the_connection_is_found_out) {
    expect_found_out(deliver([](PostgresTransaction& tx) {
        write_effect(tx);
        on_connection(tx, "SELECT 1 / 0");
    }));
}

TEST_F(PostgresMisbehaviour, a_block_or_procedure_that_commits_is_an_error_of_the_servers) {
    outside().run("CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$");
    for (const char* sql : {"DO $$ BEGIN COMMIT; END $$", "CALL commits()"}) {
        SCOPED_TRACE(sql);
        outside().run("TRUNCATE idem_record, effect");
        expect_found_out(deliver([&](PostgresTransaction& tx) {
            write_effect(tx);
            tx.execute(sql);
        }));
    }
}

TEST_F(PostgresMisbehaviour, r1_3_one_that_rolls_back_on_the_connection_is_found_out) {
    expect_found_out(deliver([](PostgresTransaction& tx) {
        write_effect(tx);
        on_connection(tx, "ROLLBACK");
    }));
}

TEST_F(PostgresMisbehaviour, r1_3_what_follows_a_rollback_on_the_connection_is_not_carried_out) {
    expect_found_out(deliver([](PostgresTransaction& tx) {
        on_connection(tx, "ROLLBACK");
        write_effect(tx); // outside of any transaction it would stand at once, without a record
    }));
}

TEST_F(PostgresMisbehaviour, r1_3_what_was_posted_before_a_rollback_on_the_connection_is_undone) {
    expect_found_out(deliver([](PostgresTransaction& tx) {
        tx.post("INSERT INTO effect VALUES ('m-1')"); // sent with what gives the connection
        on_connection(tx, "ROLLBACK");
        tx.post("INSERT INTO effect VALUES ('m-1')");
    }));
}

TEST_F(PostgresMisbehaviour, r1_3_one_that_rolls_back_and_begins_is_found_out) {
    expect_found_out(deliver([](PostgresTransaction& tx) {
        on_connection(tx, "ROLLBACK; BEGIN");
        write_effect(tx);
    }));
}

TEST_F(PostgresMisbehaviour, r1_3_one_that_commits_and_begins_is_found_out) {
    expect_found_out(deliver([](PostgresTransaction& tx) {
                         write_effect(tx);
                         on_connection(tx, "COMMIT; BEGIN");
                         write_effect(tx);
                     }),
                     1); // what it committed itself
}

TEST_F(PostgresMisbehaviour, r1_3_one_that_commits_and_throws_leaves_the_key_open) {
    expect_found_out(deliver([](PostgresTransaction& tx) {
                         write_effect(tx);
                         on_connection(tx, "COMMIT");
                         throw std::runtime_error("no");
                     }),
                     1);
}

TEST_F(PostgresMisbehaviour, r1_3_one_that_commits_in_chains_is_found_out) {
    expect_found_out(deliver([](PostgresTransaction& tx) {
                         write_effect(tx);
                         on_connection(tx, "COMMIT AND CHAIN");
                         write_effect(tx);
                     }),
                     1);
}

TEST_F(PostgresMisbehaviour, r1_3_one_that_prepares_its_transaction_is_found_out) {
    const auto gid = outside().run("SELECT 'idem-' || current_database()");
    const auto verdict = deliver([&](PostgresTransaction& tx) {
        write_effect(tx);
        on_connection(tx, "PREPARE TRANSACTION '" + gid + "'");
    });
    EXPECT_EQ(verdict.status, Status::failed);
    EXPECT_EQ(effects(), 0);
    EXPECT_EQ(records(), 0) << "held by what it prepared: not even charged";
    EXPECT_EQ(deliver([](PostgresTransaction& tx) { write_effect(tx); }).status,
              Status::in_progress);
    outside().run("COMMIT PREPARED '" + gid + "'"); // by whoever finds it
    EXPECT_EQ(effects(), 1) << "its own doing";
    EXPECT_EQ(deliver([](PostgresTransaction& tx) { write_effect(tx); }).status, Status::executed)
        << "the record was prepared as open";
}

TEST_F(PostgresMisbehaviour, r1_3_one_that_rolls_back_to_before_the_claim_is_found_out) {
    // A savepoint of its own is allowed, and so is going back to it; the record stays.
    const auto verdict = deliver([](PostgresTransaction& tx) {
        on_connection(tx, "SAVEPOINT own");
        write_effect(tx);
        on_connection(tx, "ROLLBACK TO own");
        write_effect(tx);
    });
    EXPECT_EQ(verdict.status, Status::executed);
    EXPECT_EQ(effects(), 1);
    expect_nothing_left_behind();
}

TEST_F(PostgresMisbehaviour, r6_7_one_of_a_batch_that_commits_takes_no_other_along) {
    auto bill = IdempotentConsumer(store(), DedupTable{})
                    .wrap(
                        "billing",
                        [](const std::string& id) { return id; },
                        [](const std::string& id, PostgresTransaction& tx) {
                            write_effect(tx, id);
                            if (id == "bad") {
                                on_connection(tx, "COMMIT; BEGIN");
                            }
                        });
    const std::vector<std::string> messages{"a", "bad", "b"};
    const auto outcomes = bill.batch(messages);
    EXPECT_EQ(outcomes[1].status(), Status::failed);
    // What it committed with its own, of "a" too, is without a record: their deliveries come again.
    for (const auto at : {std::size_t{0}, std::size_t{2}}) {
        EXPECT_EQ(outcomes[at].status(), Status::executed);
    }
    EXPECT_EQ(outside().number("SELECT count(*) FROM idem_record WHERE state = 2"), 2);
    EXPECT_EQ(outside().number("SELECT count(*) FROM effect WHERE id = 'b'"), 1);
    expect_nothing_left_behind();
}

/// What a handler may leave in its session, and how the next borrower would see it.
struct Leftover {
    const char* name;
    const char* sql;
    const char* seen; ///< must answer what it answers in a fresh session

    friend std::ostream& operator<<(std::ostream& out, const Leftover& leftover) {
        return out << leftover.name;
    }
};

class PostgresLeftover : public PostgresMisbehaviour,
                         public ::testing::WithParamInterface<Leftover> {
protected:
    /// Of the store's only connection.
    std::string seen_by_the_next() {
        auto tx = store().begin();
        auto seen = tx.execute(GetParam().seen).text(0, 0);
        tx.rollback();
        return seen.value_or("");
    }
};

TEST_P(PostgresLeftover, r1_10_is_gone_before_the_next_borrower_comes) {
    const auto fresh = seen_by_the_next();
    unsigned n = 0;
    for (const bool native : {false, true}) {
        for (const bool throws : {false, true}) {
            SCOPED_TRACE(std::string(native ? "on the connection" : "executed") +
                         (throws ? ", and throws" : ""));
            const auto verdict = deliver(
                [&](PostgresTransaction& tx) {
                    write_effect(tx);
                    if (native) {
                        on_connection(tx, GetParam().sql);
                    } else {
                        tx.execute(GetParam().sql);
                    }
                    if (throws) {
                        throw std::runtime_error("no");
                    }
                },
                "m-" + std::to_string(++n));
            EXPECT_EQ(verdict.status, throws ? Status::failed : Status::executed);
            EXPECT_EQ(seen_by_the_next(), fresh);
        }
    }
    EXPECT_EQ(effects(), 2);
}

INSTANTIATE_TEST_SUITE_P(
    ,
    PostgresLeftover,
    ::testing::Values(
        Leftover{
            "cursor", "DECLARE left_over CURSOR FOR SELECT 1", "SELECT count(*) FROM pg_cursors"},
        Leftover{"cursor_with_hold",
                 "DECLARE left_over CURSOR WITH HOLD FOR SELECT 1",
                 "SELECT count(*) FROM pg_cursors"},
        Leftover{"prepared_statement",
                 "PREPARE left_over AS SELECT 1",
                 "SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_over'"},
        Leftover{"setting", "SET work_mem = '77MB'", "SHOW work_mem"},
        Leftover{"role", "SET SESSION AUTHORIZATION DEFAULT", "SELECT current_user"},
        Leftover{"temporary_table",
                 "CREATE TEMP TABLE left_over (n integer)",
                 "SELECT count(*) FROM pg_class WHERE relname = 'left_over'"},
        Leftover{"temporary_view",
                 "CREATE OR REPLACE TEMP VIEW left_over AS SELECT 1",
                 "SELECT count(*) FROM pg_class WHERE relname = 'left_over'"},
        Leftover{"listener", "LISTEN left_over", "SELECT count(*) FROM pg_listening_channels()"}),
    [](const auto& tested) { return std::string(tested.param.name); });

} // namespace idem::postgres_test
