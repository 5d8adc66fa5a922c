// SPDX-License-Identifier: MIT
// Claim, complete and commit of one message, and what they cost.

#include <thread>

#include "postgres_test.hpp"
#include "support/link_proxy.hpp"

namespace idem::postgres_test {

using PostgresTransactionTest = PostgresTest;

TEST_F(PostgresTransactionTest, r1_2_record_and_effect_become_visible_together) {
    auto tx = store().begin();
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    write_effect(tx);
    tx.complete(request(), "\1done");
    EXPECT_EQ(effects(), 0);
    EXPECT_EQ(records(), 0);
    tx.commit();
    EXPECT_EQ(effects(), 1);
    EXPECT_EQ(records(), 1);
    const auto again = look(request());
    ASSERT_TRUE(is<Completed>(again));
    EXPECT_EQ(std::get<Completed>(again).result, "\1done");
    EXPECT_GE(std::get<Completed>(again).age, milliseconds{0});
}

TEST_F(PostgresTransactionTest, r1_1_the_claim_of_a_held_key_does_not_wait) {
    auto owner = store().begin();
    ASSERT_TRUE(is_claimed(owner.claim(request())));
    // On this very thread: a claim that waited would never come back.
    EXPECT_TRUE(is<InProgress>(look(request())));
    owner.complete(request(), "");
    owner.commit();
    EXPECT_TRUE(is<Completed>(look(request())));
}

TEST_F(PostgresTransactionTest, r1_1_a_winner_that_commits_between_claim_and_read_is_seen) {
    // The loser's statement finds the lock taken; before its later statement the winner commits.
    auto until_done = [this](const std::string& id) {
        while (true) {
            auto tx = store().begin();
            const auto claim = tx.claim(request(id));
            if (is<Completed>(claim)) {
                return;
            }
            if (is_claimed(claim)) {
                write_effect(tx, id);
                tx.complete(request(id), "");
                tx.commit();
            } else if (!is<InProgress>(claim)) {
                throw std::runtime_error("neither claimed, completed nor in progress");
            }
        }
    };
    for (int round = 0; round < 50; ++round) {
        const std::jthread other([&] { until_done("m-" + std::to_string(round)); });
        until_done("m-" + std::to_string(round));
    }
    EXPECT_EQ(effects(), 50);
}

TEST_F(PostgresTransactionTest, a_void_result_writes_one_row_version) {
    handle(request("void"));
    EXPECT_EQ(outside().run("SELECT ctid FROM idem_record"), "(0,1)");
    handle(request("text"), "\1x");
    EXPECT_EQ(outside().run("SELECT ctid FROM idem_record WHERE result IS NOT NULL"), "(0,3)");
}

TEST_F(PostgresTransactionTest,
       a_claim_that_is_not_completed_leaves_the_key_open_and_keeps_the_effect) {
    auto tx = store().begin();
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    write_effect(tx);
    tx.commit();
    EXPECT_EQ(effects(), 1);
    const auto again = look(request());
    ASSERT_TRUE(is_claimed(again));
    EXPECT_EQ(std::get<0>(again).attempt, 1U);
    EXPECT_FALSE(std::get<0>(again).takeover);
}

TEST_F(PostgresTransactionTest, complete_needs_a_claim) {
    auto tx = store().begin();
    EXPECT_THROW(tx.complete(request(), ""), std::logic_error);
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    EXPECT_THROW(tx.complete(request("other"), ""), std::logic_error);
}

TEST_F(PostgresTransactionTest, an_ended_transaction_refuses_everything) {
    auto tx = store().begin();
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    tx.complete(request(), "");
    tx.commit();
    EXPECT_THROW(write_effect(tx), std::logic_error);
    EXPECT_THROW(tx.post("SELECT 1"), std::logic_error);
    EXPECT_THROW(static_cast<void>(tx.native()), std::logic_error);
    EXPECT_THROW(static_cast<void>(tx.claim(request("m-2"))), std::logic_error);
    EXPECT_THROW(tx.commit(), std::logic_error);
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    EXPECT_TRUE(is<Completed>(look(request())));
}

TEST_F(PostgresTransactionTest, r5_6_a_record_past_its_retention_counts_as_absent) {
    auto asked = request("m-1", fingerprint_of("one"));
    asked.max_attempts = 2;
    handle(asked, "\1old");
    outside().run("UPDATE idem_record SET expires = now() - interval '1 second', attempts = 7");
    const auto other = request("m-1", fingerprint_of("other payload"));
    const auto seen = look(other);
    ASSERT_TRUE(is_claimed(seen));
    EXPECT_EQ(std::get<0>(seen).attempt, 1U);
    handle(other, "\1new");
    EXPECT_EQ(std::get<Completed>(look(other)).result, "\1new");
    EXPECT_EQ(outside().number("SELECT attempts FROM idem_record"), 1);
    EXPECT_EQ(records(), 1);
}

TEST_F(PostgresTransactionTest, r5_6_the_retention_of_the_request_is_stored) {
    auto asked = request();
    asked.retention = seconds{86'400};
    handle(asked);
    asked.key.id = "for ever";
    asked.retention = seconds::max();
    handle(asked, "\1x");
    EXPECT_EQ(
        outside().number("SELECT round(extract(epoch FROM expires - changed)) FROM idem_record "
                         "WHERE id = 'm-1'"),
        86'400);
    EXPECT_TRUE(is<Completed>(look(asked)));
}

TEST_F(PostgresTransactionTest, r5_5_a_newer_record_format_is_unavailable_and_never_overwritten) {
    handle(request(), "\1x");
    outside().run("UPDATE idem_record SET format = 2, state = 9");
    EXPECT_EQ(fault_thrown([&] { static_cast<void>(look(request())); }), Fault::unavailable);
    EXPECT_EQ(fault_thrown([&] { static_cast<void>(store().peek(request())); }),
              Fault::unavailable);
    store().record_failure(request(), "failed");
    EXPECT_EQ(outside().run("SELECT format || ':' || state || ':' || attempts FROM idem_record"),
              "2:9:1");
}

TEST_F(PostgresTransactionTest, r4_6_a_lease_of_the_same_table_is_in_progress_until_it_ends) {
    outside().run(
        "INSERT INTO idem_record (changed, expires, lease_until, format, state, scope, id, "
        "owner, fence, attempts) VALUES (now(), now() + interval '1 day', "
        "now() + interval '1 hour', 1, 1, 'billing', 'm-1', 'nonce', 41, 1)");
    const auto busy = look(request());
    ASSERT_TRUE(is<InProgress>(busy));
    EXPECT_GT(std::get<InProgress>(busy).retry_after, milliseconds{3'000'000});
    outside().run("UPDATE idem_record SET lease_until = now() - interval '1 second'");
    auto tx = store().begin();
    const auto claim = tx.claim(request());
    ASSERT_TRUE(is_claimed(claim));
    EXPECT_TRUE(std::get<0>(claim).takeover);
    EXPECT_EQ(std::get<0>(claim).attempt, 2U);
    tx.complete(request(), "");
    tx.commit();
    EXPECT_EQ(outside().number("SELECT fence FROM idem_record"), 42);
}

TEST_F(PostgresTransactionTest, a_parked_record_answers_parked) {
    handle(request());
    outside().run("UPDATE idem_record SET state = 4");
    EXPECT_TRUE(is<Parked>(look(request())));
    EXPECT_TRUE(is<Parked>(store().peek(request())));
}

TEST_F(PostgresTransactionTest,
       r1_1_a_foreign_writer_of_the_row_is_in_progress_after_lock_timeout) {
    PostgresSession foreign(conninfo());
    foreign.run("BEGIN");
    foreign.run("INSERT INTO idem_record (changed, expires, format, state, scope, id) "
                "VALUES (now(), now() + interval '1 day', 1, 1, 'billing', 'm-1')");
    PostgresStore impatient(conninfo() + " options='-c lock_timeout=50ms'");
    auto tx = impatient.begin();
    EXPECT_TRUE(is<InProgress>(tx.claim(request()))) << "55P03";
    ASSERT_TRUE(is_claimed(tx.claim(request("m-2")))) << "the transaction is usable still";
    write_effect(tx);
    tx.complete(request("m-2"), "");
    tx.commit();
    EXPECT_EQ(effects(), 1);
}

/// The store behind a proxy that counts.
class PostgresCost : public PostgresTest {
protected:
    void SetUp() override {
        PostgresTest::SetUp();
        if (IsSkipped() || HasFatalFailure()) {
            return;
        }
        if (!shared_postgres().owned()) {
            GTEST_SKIP() << "the proxy needs a unix socket of the test's own server";
        }
        proxy_.emplace(shared_postgres().socket());
        store_.emplace(PostgresServer::with_database("user=postgres host=" + proxy_->host(),
                                                     outside().run("SELECT current_database()")));
        run("warm up", "\1x"); // connects, and prepares
        run("warm up", "\1x");
    }
    void run(std::string_view id, std::string_view result) {
        auto tx = store_->begin();
        const auto asked = request(id);
        if (is_claimed(tx.claim(asked))) {
            write_effect(tx, id);
            tx.complete(asked, result);
            tx.commit();
        } else {
            tx.rollback();
        }
    }
    template <class Call>
    unsigned trips(Call call) {
        const auto before = proxy_->trips();
        call();
        return proxy_->trips() - before;
    }
    std::optional<testing_support::LinkProxy> proxy_;
    std::optional<PostgresStore> store_;
};

TEST_F(PostgresCost, a_message_costs_two_trips_and_those_of_its_handler) {
    EXPECT_EQ(trips([&] { run("void", ""); }), 3U);
    EXPECT_EQ(trips([&] { run("text", "\1x"); }), 3U);
}
TEST_F(PostgresCost, a_duplicate_costs_two_trips_and_a_look_one) {
    run("done", "");
    EXPECT_EQ(trips([&] { run("done", ""); }), 2U);
    EXPECT_EQ(trips([&] { static_cast<void>(store_->peek(request("done"))); }), 1U);
}
TEST_F(PostgresCost, posted_statements_cost_no_trip) {
    EXPECT_EQ(trips([&] {
                  auto tx = store_->begin();
                  ASSERT_TRUE(is_claimed(tx.claim(request())));
                  for (int i = 0; i < 10; ++i) {
                      tx.post("INSERT INTO effect VALUES ($1)", i);
                  }
                  tx.complete(request(), "");
                  tx.commit();
              }),
              2U);
    EXPECT_EQ(effects(), 1 + 10);
}
TEST_F(PostgresCost, a_failed_attempt_costs_one_trip) {
    EXPECT_EQ(trips([&] { store_->record_failure(request(), "failed"); }), 1U);
}
TEST_F(PostgresCost, a_batch_costs_two_trips_and_those_of_its_handlers) {
    const std::vector<ClaimRequest> asked{request("b-1"), request("b-2"), request("b-3")};
    const std::vector<std::string> results(3);
    auto batch = [&] {
        auto tx = store_->begin();
        ASSERT_EQ(tx.claim(std::span(asked)).size(), 3U);
        for (const auto& one : asked) {
            tx.savepoint();
            write_effect(tx, one.key.id);
        }
        tx.complete(std::span(asked), std::span(results));
        tx.commit();
    };
    EXPECT_EQ(trips(batch), 5U);
}

} // namespace idem::postgres_test
