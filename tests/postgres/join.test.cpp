// SPDX-License-Identifier: MIT
// A transaction that the user has open: the claim joins it by a savepoint.

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>

#include "postgres_test.hpp"

namespace idem::postgres_test {

class PostgresJoin : public PostgresTest {
protected:
    void SetUp() override {
        PostgresTest::SetUp();
        if (!IsSkipped() && !HasFatalFailure()) {
            users_.emplace(conninfo());
            users_->run("BEGIN");
            users_->run("INSERT INTO effect VALUES ('before')");
        }
    }
    PostgresSession& users() { return *users_; }

private:
    std::optional<PostgresSession> users_;
};

TEST_F(PostgresJoin, r1_6_record_and_effect_wait_for_the_users_commit) {
    auto tx = store().join(users().native());
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    write_effect(tx);
    tx.complete(request(), "\1done");
    tx.commit();
    EXPECT_EQ(effects(), 0);
    EXPECT_TRUE(is<InProgress>(look(request()))) << "held until the user's end";
    users().run("COMMIT");
    EXPECT_EQ(effects(), 2);
    EXPECT_EQ(std::get<Completed>(look(request())).result, "\1done");
}

TEST_F(PostgresJoin, the_users_rollback_takes_record_and_effect_along) {
    auto tx = store().join(users().native());
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    write_effect(tx);
    tx.complete(request(), "");
    tx.commit();
    users().run("ROLLBACK");
    EXPECT_EQ(effects(), 0);
    EXPECT_TRUE(is_claimed(look(request())));
}

TEST_F(PostgresJoin, rollback_returns_to_the_savepoint_and_no_further) {
    {
        auto tx = store().join(users().native());
        ASSERT_TRUE(is_claimed(tx.claim(request())));
        write_effect(tx);
        EXPECT_THROW(tx.execute("SELECT 1 / 0"), PostgresError);
        tx.rollback();
    }
    users().run("INSERT INTO effect VALUES ('after')");
    users().run("COMMIT");
    EXPECT_EQ(outside().run("SELECT string_agg(id, ' ' ORDER BY id) FROM effect"), "after before");
    EXPECT_TRUE(is_claimed(look(request())));
}

TEST_F(PostgresJoin, several_messages_join_one_transaction) {
    for (const auto* id : {"m-1", "m-2", "m-1"}) {
        auto tx = store().join(users().native());
        const auto claim = tx.claim(request(id));
        if (is_claimed(claim)) {
            write_effect(tx, id);
            tx.complete(request(id), "");
            tx.commit();
        } else {
            EXPECT_TRUE(is<Completed>(claim)) << "by this very transaction";
            tx.rollback();
        }
    }
    users().run("COMMIT");
    EXPECT_EQ(effects(), 3);
    EXPECT_EQ(records(), 2);
}

TEST_F(PostgresJoin, r4_6_a_nested_claim_of_the_same_key_is_a_logic_error) {
    auto outer = store().join(users().native());
    ASSERT_TRUE(is_claimed(outer.claim(request())));
    {
        auto inner = store().join(users().native());
        EXPECT_THROW(static_cast<void>(inner.claim(request())), std::logic_error);
        EXPECT_TRUE(is_claimed(inner.claim(request("m-2"))));
        inner.complete(request("m-2"), "");
        inner.commit();
    }
    outer.complete(request(), "");
    outer.commit();
    users().run("COMMIT");
    EXPECT_EQ(records(), 2);
}

TEST_F(PostgresJoin, a_handler_that_ends_the_users_transaction_is_found) {
    auto tx = store().join(users().native());
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    PQclear(PQexec(tx.native(), "COMMIT; BEGIN"));
    tx.complete(request(), "\1x");
    EXPECT_THROW(tx.commit(), std::logic_error);
    tx.rollback();
    users().run("ROLLBACK");
    EXPECT_TRUE(is_claimed(look(request())));
    EXPECT_EQ(outside().number("SELECT count(*) FROM idem_record WHERE state = 2"), 0);
}

TEST_F(PostgresJoin, a_connection_without_an_open_transaction_is_refused) {
    EXPECT_THROW(static_cast<void>(store().join(outside().native())), std::logic_error);
    PQclear(PQexec(users().native(), "SELECT 1 / 0"));
    EXPECT_THROW(static_cast<void>(store().join(users().native())), std::logic_error);
}

TEST_F(PostgresJoin, r1_5_a_snapshot_older_than_the_record_asks_for_a_new_transaction) {
    users().run("ROLLBACK");
    users().run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    users().run("SELECT count(*) FROM effect"); // takes the snapshot
    handle(request());
    auto tx = store().join(users().native());
    EXPECT_EQ(fault_thrown([&] { static_cast<void>(tx.claim(request())); }), Fault::unavailable);
    EXPECT_TRUE(tx.conflicted());
    tx.rollback();
    EXPECT_EQ(users().number("SELECT count(*) FROM effect"), 0) << "the transaction goes on";
}

TEST_F(PostgresJoin, the_session_is_left_as_it_was) {
    {
        auto tx = store().join(users().native());
        ASSERT_TRUE(is_claimed(tx.claim(request())));
        tx.complete(request(), "");
        tx.commit();
    }
    EXPECT_EQ(PQisnonblocking(users().native()), 0);
    EXPECT_EQ(PQpipelineStatus(users().native()), PQ_PIPELINE_OFF);
    EXPECT_EQ(users().number("SELECT count(*) FROM pg_prepared_statements"), 0);
    EXPECT_EQ(users().run("SHOW idle_in_transaction_session_timeout"), "0");
    users().run("COMMIT");
}

TEST_F(PostgresJoin, r1_6_within_the_consumer_settles_nothing_before_the_users_commit) {
    IdempotentConsumer consumer(store(), DedupTable{});
    auto bill = consumer.wrap(
        "billing",
        [](const std::string& id) { return id; },
        [](const std::string& id, PostgresTransaction& tx) { write_effect(tx, id); });
    auto first = bill.within(users().native(), std::string("m-1"));
    EXPECT_EQ(first.status(), Status::executed);
    users().run("COMMIT");
    EXPECT_EQ(std::move(first).committed().settlement().action, Settlement::ack);
    EXPECT_EQ(bill(std::string("m-1")).status(), Status::replayed);
    EXPECT_EQ(effects(), 2);
}

} // namespace idem::postgres_test
