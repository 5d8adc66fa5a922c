// SPDX-License-Identifier: MIT
// Several messages in one transaction, each with a way back of its own (semantics.md 6.7).

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>

#include <span>
#include <vector>

#include "postgres_test.hpp"

namespace idem::postgres_test {

class PostgresBatch : public PostgresTest {
protected:
    static std::vector<ClaimRequest> requests(const std::vector<std::string>& ids) {
        std::vector<ClaimRequest> asked;
        asked.reserve(ids.size());
        for (const auto& id : ids) {
            asked.push_back(request(id));
        }
        return asked;
    }
    static void complete(PostgresTransaction& tx, const std::vector<ClaimRequest>& asked) {
        const std::vector<std::string> results(asked.size(), "\1done");
        tx.complete(std::span(asked), std::span(results));
    }
    long completed() {
        return outside().number("SELECT count(*) FROM idem_record WHERE state = 2");
    }
    const std::vector<std::string> ids_{"m-1", "m-2", "m-3"};
};

TEST_F(PostgresBatch, r1_2_the_records_come_last_and_for_the_succeeded_alone) {
    const auto asked = requests(ids_);
    auto tx = store().begin();
    ASSERT_EQ(tx.claim(std::span(asked)).size(), 3U);
    EXPECT_EQ(tx.execute("SELECT count(*) FROM idem_record").text(0, 0), "0");
    for (const auto& one : asked) {
        tx.savepoint();
        if (one.key.id == "m-2") {
            write_effect(tx, one.key.id);
            EXPECT_THROW(tx.execute("SELECT 1 / 0"), PostgresError);
            tx.back_to_savepoint();
        } else {
            write_effect(tx, one.key.id);
        }
    }
    complete(tx, {asked[0], asked[2]});
    tx.commit();
    EXPECT_EQ(outside().run("SELECT string_agg(id, ' ' ORDER BY id) FROM effect"), "m-1 m-3");
    EXPECT_EQ(completed(), 2);
    EXPECT_TRUE(is_claimed(look(asked[1])));
}

TEST_F(PostgresBatch, posted_statements_go_back_with_their_message) {
    const auto asked = requests(ids_);
    auto tx = store().begin();
    ASSERT_EQ(tx.claim(std::span(asked)).size(), 3U);
    for (const auto& one : asked) {
        tx.savepoint();
        tx.post("INSERT INTO effect VALUES ($1)", one.key.id);
        if (one.key.id == "m-2") {
            tx.back_to_savepoint();
        }
    }
    complete(tx, {asked[0], asked[2]});
    tx.commit();
    EXPECT_EQ(outside().run("SELECT string_agg(id, ' ' ORDER BY id) FROM effect"), "m-1 m-3");
}

TEST_F(PostgresBatch, a_posted_failure_of_one_message_is_never_taken_for_anothers) {
    const auto asked = requests(ids_);
    auto tx = store().begin();
    ASSERT_EQ(tx.claim(std::span(asked)).size(), 3U);
    tx.savepoint();
    tx.post("INSERT INTO effect VALUES (NULL)"); // m-1 counts as handled from here
    tx.savepoint();
    EXPECT_THROW(write_effect(tx, "m-2"), PostgresError);
    tx.back_to_savepoint(); // must not rescue the transaction without the writes of m-1
    complete(tx, {asked[0]});
    EXPECT_THROW(tx.commit(), PostgresError);
    tx.rollback();
    EXPECT_EQ(effects() + completed(), 0);
}

TEST_F(PostgresBatch, a_swallowed_failure_of_one_message_fails_the_commit) {
    const auto asked = requests(ids_);
    auto tx = store().begin();
    ASSERT_EQ(tx.claim(std::span(asked)).size(), 3U);
    tx.savepoint();
    EXPECT_THROW(tx.execute("SELECT 1 / 0"), PostgresError); // and the handler returns well
    tx.savepoint();
    EXPECT_THROW(write_effect(tx, "m-2"), PostgresError);
    tx.back_to_savepoint();
    complete(tx, {asked[0]});
    EXPECT_THROW(tx.commit(), PostgresError);
    tx.rollback();
    EXPECT_EQ(effects() + completed(), 0);
}

TEST_F(PostgresBatch, r1_2_a_commit_on_the_raw_connection_is_found_behind_savepoints_too) {
    const auto asked = requests(ids_);
    auto tx = store().begin();
    ASSERT_EQ(tx.claim(std::span(asked)).size(), 3U);
    tx.savepoint();
    write_effect(tx, "m-1");
    tx.back_to_savepoint();
    tx.savepoint();
    PQclear(PQexec(tx.native(), "COMMIT; BEGIN"));
    complete(tx, {asked[1]});
    EXPECT_THROW(tx.commit(), std::logic_error);
    tx.rollback();
    EXPECT_EQ(completed(), 0);
}

TEST_F(PostgresBatch, work_on_the_raw_connection_survives_a_way_back) {
    const auto asked = requests(ids_);
    auto tx = store().begin();
    ASSERT_EQ(tx.claim(std::span(asked)).size(), 3U);
    tx.savepoint();
    PQclear(PQexec(tx.native(), "INSERT INTO effect VALUES ('m-1')"));
    tx.back_to_savepoint();
    tx.savepoint();
    PQclear(PQexec(tx.native(), "INSERT INTO effect VALUES ('m-2')"));
    complete(tx, {asked[1]});
    tx.commit();
    EXPECT_EQ(outside().run("SELECT string_agg(id, ' ') FROM effect"), "m-2");
    EXPECT_EQ(completed(), 1);
}

TEST_F(PostgresBatch, an_open_or_expired_record_is_completed_in_place) {
    store().record_failure(request("m-1", fingerprint_of("one")), "failed");
    handle(request("m-2"), "\1old");
    outside().run("UPDATE idem_record SET expires = now() - interval '1 s' WHERE id = 'm-2'");
    const auto asked = requests(ids_);
    auto tx = store().begin();
    const auto claims = tx.claim(std::span(asked));
    EXPECT_EQ(std::get<0>(claims.at(0)).attempt, 2U);
    EXPECT_EQ(std::get<0>(claims.at(1)).attempt, 1U);
    complete(tx, asked);
    tx.commit();
    EXPECT_EQ(completed(), 3);
    EXPECT_TRUE(is<Conflict>(look(request("m-1", fingerprint_of("two"))))) << "the first one stays";
}

TEST_F(PostgresBatch, a_record_that_changed_without_its_lock_commits_nothing) {
    const auto asked = requests(ids_);
    auto tx = store().begin();
    ASSERT_EQ(tx.claim(std::span(asked)).size(), 3U);
    write_effect(tx);
    outside().run("INSERT INTO idem_record (changed, expires, format, state, scope, id) "
                  "VALUES (now(), now() + interval '1 day', 1, 2, 'billing', 'm-2')");
    complete(tx, asked);
    EXPECT_EQ(fault_thrown([&] { tx.commit(); }), Fault::unavailable);
    EXPECT_TRUE(tx.conflicted());
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    EXPECT_EQ(completed(), 1);
}

TEST_F(PostgresBatch, more_than_500_keys_or_equal_ones_are_refused) {
    std::vector<std::string> ids;
    ids.reserve(501);
    for (int i = 0; i < 501; ++i) {
        ids.push_back(std::to_string(i));
    }
    auto asked = requests(ids);
    auto tx = store().begin();
    EXPECT_THROW(static_cast<void>(tx.claim(std::span<const ClaimRequest>(asked))),
                 std::invalid_argument);
    asked.pop_back();
    EXPECT_EQ(tx.claim(std::span<const ClaimRequest>(asked)).size(), 500U);
    tx.rollback();
    const std::vector<ClaimRequest> twice{request(), request()};
    auto other = store().begin();
    EXPECT_THROW(static_cast<void>(other.claim(std::span(twice))), std::logic_error);
}

TEST_F(PostgresBatch, r6_7_a_batch_of_the_consumer_gives_one_verdict_per_message) {
    IdempotentConsumer consumer(store(), DedupTable{});
    auto bill = consumer.wrap(
        "billing",
        [](const std::string& id) { return id; },
        [](const std::string& id, PostgresTransaction& tx) {
            tx.post("INSERT INTO effect VALUES ($1)", id);
            if (id == "bad") {
                tx.execute("SELECT 1 / 0");
            }
            if (id == "posted badly") {
                tx.post("INSERT INTO effect VALUES (NULL)");
            }
        });
    const std::vector<std::string> messages{"a", "bad", "b", "a", "posted badly", "c"};
    const auto outcomes = bill.batch(messages);
    ASSERT_EQ(outcomes.size(), 6U);
    EXPECT_EQ(outcomes[0].status(), Status::executed);
    EXPECT_EQ(outcomes[1].status(), Status::failed);
    EXPECT_EQ(outcomes[2].status(), Status::executed);
    EXPECT_EQ(outcomes[3].status(), Status::replayed);
    EXPECT_EQ(outcomes[4].status(), Status::failed);
    EXPECT_EQ(outcomes[5].status(), Status::executed);
    EXPECT_EQ(outside().run("SELECT string_agg(id, ' ' ORDER BY id) FROM effect"), "a b c");
    EXPECT_EQ(completed(), 3);
}

} // namespace idem::postgres_test
