// SPDX-License-Identifier: MIT
// Failed attempts are counted beside the handler's transaction (semantics.md §3).

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>

#include <thread>

#include "postgres_test.hpp"

namespace idem::postgres_test {

class PostgresAttempts : public PostgresTest {
protected:
    long attempts() { return outside().number("SELECT max(attempts) FROM idem_record"); }
};

TEST_F(PostgresAttempts, r3_4_attempts_at_the_limit_are_dead_and_the_record_says_why) {
    auto asked = request();
    asked.max_attempts = 2;
    store().record_failure(asked, "no credit\nat all");
    EXPECT_TRUE(is_claimed(look(asked)));
    EXPECT_EQ(outside().run("SELECT note FROM idem_record WHERE state = 1"), "no credit at all");
    store().record_failure(asked, "\xff\xfe bytes");
    EXPECT_EQ(std::get<Dead>(look(asked)).attempts, 2U);
    EXPECT_EQ(std::get<Dead>(store().peek(asked)).attempts, 2U);
    EXPECT_EQ(outside().run("SELECT note FROM idem_record WHERE state = 3"), "?? bytes");
    asked.max_attempts = 3;
    EXPECT_TRUE(is_claimed(look(asked))) << "the limit is the request's";
}

TEST_F(PostgresAttempts, r3_2_a_failure_waits_for_the_keys_owner_but_not_for_ever) {
    auto owner = store().begin();
    ASSERT_TRUE(is_claimed(owner.claim(request())));
    store().record_failure(request(), "while another is at it");
    owner.rollback();
    EXPECT_EQ(records(), 0);
    auto again = store().begin();
    ASSERT_TRUE(is_claimed(again.claim(request())));
    std::jthread waits([&] { store().record_failure(request(), "waits"); });
    EXPECT_TRUE(eventually(
        [&] { return outside().number("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0; }));
    again.complete(request(), "\1x");
    again.commit();
    waits.join();
    EXPECT_EQ(std::get<Completed>(look(request())).result, "\1x") << "never downgraded";
}

TEST_F(PostgresAttempts, failures_from_many_threads_are_all_counted) {
    {
        std::vector<std::jthread> threads;
        threads.reserve(4);
        for (int thread = 0; thread < 4; ++thread) {
            threads.emplace_back([&] {
                for (int i = 0; i < 10; ++i) {
                    store().record_failure(request(), "failed");
                }
            });
        }
    }
    EXPECT_EQ(attempts(), 40);
}

TEST_F(PostgresAttempts, a_failure_of_an_expired_record_begins_anew) {
    handle(request(), "\1x");
    outside().run("UPDATE idem_record SET expires = now() - interval '1 s', attempts = 5");
    store().record_failure(request(), "failed");
    EXPECT_EQ(attempts(), 1);
    const auto seen = look(request());
    ASSERT_TRUE(is_claimed(seen));
    EXPECT_EQ(std::get<0>(seen).attempt, 2U);
}

TEST_F(PostgresAttempts, a_failure_touches_neither_a_lease_nor_a_parked_record) {
    store().record_failure(request(), "failed");
    for (const char* change : {"state = 4", "state = 1, lease_until = now() + interval '1 hour'"}) {
        outside().run(std::string("UPDATE idem_record SET ") + change);
        store().record_failure(request(), "failed");
        EXPECT_EQ(attempts(), 1) << change;
    }
}

TEST_F(PostgresAttempts, r3_3_a_suspect_delivery_is_charged_before_its_handler) {
    unsigned ran = 0;
    IdempotentConsumer consumer(store(), DedupTable{}, {.max_attempts = 2});
    auto bill = consumer.wrap(
        "billing",
        [](const std::string& id) { return Identity{.id = id, .redelivered = true}; },
        [&](const std::string&, PostgresTransaction&) {
            ++ran;
            EXPECT_EQ(attempts(), ran); // seen from outside, so it survives a crash of this process
            throw std::runtime_error("always");
        });
    const std::string message = "m-1";
    for (int delivery = 0; delivery < 2; ++delivery) {
        EXPECT_EQ(bill.handle(message, {}).status(), Status::failed);
    }
    EXPECT_EQ(bill.handle(message, {}).status(), Status::dead);
    EXPECT_EQ(ran, 2U);
}

TEST_F(PostgresAttempts, r1_5_r3_4_a_conflict_reruns_the_handler_and_is_no_attempt) {
    unsigned ran = 0;
    IdempotentConsumer consumer(store(), DedupTable{});
    auto bill = consumer.wrap(
        "billing",
        [](const std::string& id) { return id; },
        [&](const std::string& id, PostgresTransaction& tx) {
            write_effect(tx, id);
            if (++ran < 3) {
                tx.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$");
            }
        });
    const std::string message = "m-1";
    EXPECT_EQ(bill(message).status(), Status::executed);
    EXPECT_EQ(ran, 3U);
    EXPECT_EQ(effects(), 1);
    EXPECT_EQ(attempts(), 1) << "the one that succeeded";
}

TEST_F(PostgresAttempts, r1_5_a_real_deadlock_ends_with_both_messages_executed_once) {
    outside().run("CREATE TABLE account (id integer PRIMARY KEY, cents integer)");
    outside().run("INSERT INTO account VALUES (1, 0), (2, 0)");
    std::atomic<int> at_the_gate{0}, ran{0};
    IdempotentConsumer consumer(store(), DedupTable{});
    auto transfer = consumer.wrap(
        "transfer",
        [](int from) { return from; },
        [&](int from, PostgresTransaction& tx) {
            ++ran;
            tx.execute("UPDATE account SET cents = cents - 1 WHERE id = $1", from);
            ++at_the_gate;
            while (at_the_gate < 2) {
                std::this_thread::yield();
            }
            tx.execute("UPDATE account SET cents = cents + 1 WHERE id = $1", 3 - from);
        });
    {
        std::jthread one([&] { EXPECT_EQ(transfer(1).status(), Status::executed); });
        std::jthread two([&] { EXPECT_EQ(transfer(2).status(), Status::executed); });
    }
    EXPECT_GE(ran, 3);
    EXPECT_EQ(outside().number("SELECT count(*) FROM account WHERE cents = 0"), 2);
    EXPECT_EQ(outside().number("SELECT count(*) FROM idem_record WHERE state = 2"), 2);
}

} // namespace idem::postgres_test
