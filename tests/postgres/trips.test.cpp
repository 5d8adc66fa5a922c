// SPDX-License-Identifier: MIT
// What messages cost through the consumer, on a connection that has seen their like: round trips
// counted on the wire, and bytes of WAL.

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "postgres_test.hpp"
#include "support/link_proxy.hpp"

namespace idem::postgres_test {

using testing_support::LinkProxy;

class PostgresTrips : public PostgresTest {
protected:
    struct Message {
        std::string id;
        bool redelivered = false;
    };
    using Handler = std::function<void(const Message&, PostgresTransaction&)>;

    void SetUp() override {
        PostgresTest::SetUp();
        if (IsSkipped() || HasFatalFailure()) {
            return;
        }
        if (!shared_postgres().owned()) {
            GTEST_SKIP() << "the proxy needs a unix socket of the test's own server";
        }
        proxy_.emplace(shared_postgres().socket());
        behind_.emplace(PostgresServer::with_database("user=postgres host=" + proxy_->host(),
                                                      outside().run("SELECT current_database()")),
                        PostgresOptions{.connections = 1});
    }
    PostgresStore& behind() { return *behind_; }
    [[nodiscard]] std::string proxy_host() const { return proxy_->host(); }
    /// A consumer of what `handler` does.
    auto handled_by(Handler handler, ConsumerOptions options = {}) {
        return IdempotentConsumer(*behind_, DedupTable{}, options)
            .wrap(
                "billing",
                [](const Message& message) {
                    return Identity{.id = message.id, .redelivered = message.redelivered};
                },
                [handler = std::move(handler)](const Message& message, PostgresTransaction& tx) {
                    handler(message, tx);
                });
    }
    static void execute(const Message& message, PostgresTransaction& tx) {
        write_effect(tx, message.id);
    }
    static void post(const Message& message, PostgresTransaction& tx) {
        tx.post("INSERT INTO effect VALUES ($1)", message.id);
    }
    template <class Call>
    unsigned trips(Call call) {
        const auto before = proxy_->trips();
        call();
        return proxy_->trips() - before;
    }
    /// Bytes of WAL of `call`: the least of several rounds, as the server writes some of its own.
    template <class Call>
    long wal(Call call) {
        long least = std::numeric_limits<long>::max();
        for (int round = 0; round < 5 && least > 0; ++round) {
            const auto before = outside().run("SELECT pg_current_wal_insert_lsn()");
            call();
            least = std::min(
                least,
                outside().number("SELECT pg_current_wal_insert_lsn() - '" + before + "'::pg_lsn"));
        }
        return least;
    }
    static std::vector<Message> batch_of(int size, const std::string& prefix) {
        std::vector<Message> messages;
        for (int n = 0; n < size; ++n) {
            messages.push_back({prefix + std::to_string(n)});
        }
        return messages;
    }
    template <class Bill>
    void expect_all(Status status, const Bill& bill, const std::vector<Message>& messages) {
        for (const auto& outcome : bill.batch(messages)) {
            EXPECT_EQ(outcome.status(), status);
        }
    }

private:
    std::optional<LinkProxy> proxy_;
    std::optional<PostgresStore> behind_;
};

TEST_F(PostgresTrips, a_message_whose_handler_executes_one_statement_is_three) {
    auto bill = handled_by(execute);
    static_cast<void>(bill({"warm"}));
    EXPECT_EQ(trips([&] { EXPECT_EQ(bill({"m-1"}).status(), Status::executed); }), 3U);
    EXPECT_EQ(effects(), 2);
}

TEST_F(PostgresTrips, a_message_whose_handler_posts_is_two) {
    auto bill = handled_by(post);
    static_cast<void>(bill({"warm"}));
    EXPECT_EQ(trips([&] { EXPECT_EQ(bill({"m-1"}).status(), Status::executed); }), 2U);
    EXPECT_EQ(effects(), 2);
}

TEST_F(PostgresTrips, a_result_costs_no_trip) {
    auto bill = IdempotentConsumer(behind(), DedupTable{})
                    .wrap(
                        "billing",
                        [](const std::string& id) { return id; },
                        [](const std::string& id, PostgresTransaction& tx) {
                            tx.post("INSERT INTO effect VALUES ($1)", id);
                            return id;
                        });
    static_cast<void>(bill("warm"));
    EXPECT_EQ(trips([&] { EXPECT_EQ(bill("m-1").value(), "m-1"); }), 2U);
    EXPECT_EQ(trips([&] { EXPECT_EQ(bill("m-1").value(), "m-1"); }), 2U) << "a duplicate";
}

TEST_F(PostgresTrips, a_duplicate_that_is_claimed_first_is_two) {
    auto bill = handled_by(post);
    static_cast<void>(bill({"m-1"}));
    static_cast<void>(bill({"m-1"}));
    EXPECT_EQ(trips([&] { EXPECT_EQ(bill({"m-1"}).status(), Status::replayed); }), 2U)
        << "[BEGIN, record], [ROLLBACK, read]";
    EXPECT_EQ(effects(), 1);
}

TEST_F(PostgresTrips, a_duplicate_of_a_message_in_progress_is_two) {
    auto bill = handled_by(post);
    static_cast<void>(bill({"m-0"}));
    static_cast<void>(bill({"m-0"}));
    auto owner = store().begin();
    ASSERT_TRUE(is_claimed(owner.claim(request())));
    EXPECT_EQ(trips([&] { EXPECT_EQ(bill.handle({"m-1"}, {}).status(), Status::in_progress); }),
              2U);
}

TEST_F(PostgresTrips, r3_3_a_redelivered_duplicate_is_one) {
    auto bill = handled_by(post);
    static_cast<void>(bill({"m-1"}));
    static_cast<void>(bill({"m-1", true}));
    EXPECT_EQ(trips([&] { EXPECT_EQ(bill({"m-1", true}).status(), Status::replayed); }), 1U);
    EXPECT_EQ(effects(), 1);
}

TEST_F(PostgresTrips, r3_3_a_redelivered_message_that_was_not_done_is_seven) {
    auto bill = handled_by(post, {.max_attempts = 5});
    static_cast<void>(bill({"m-0", true}));
    EXPECT_EQ(trips([&] {
                  EXPECT_EQ(bill({"m-1", true}).status(), Status::executed);
              }),
              7U)
        << "look, charge, [BEGIN, record], [ROLLBACK, read], [BEGIN, lock, read], [take], [COMMIT]";
}

TEST_F(PostgresTrips, a_handler_that_fails_is_two_more_than_its_own) {
    auto bill = handled_by([](const Message& message, PostgresTransaction& tx) {
        execute(message, tx);
        throw std::runtime_error("no");
    });
    EXPECT_THROW(static_cast<void>(bill({"m-0"})), std::runtime_error);
    EXPECT_EQ(trips([&] { EXPECT_THROW(static_cast<void>(bill({"m-1"})), std::runtime_error); }),
              4U)
        << "claim, statement, rollback, charge";
    EXPECT_EQ(effects(), 0);
}

TEST_F(PostgresTrips, r6_7_a_batch_of_64_is_two_and_those_of_its_handlers) {
    auto bill = handled_by(execute);
    expect_all(Status::executed, bill, batch_of(64, "warm-"));
    EXPECT_EQ(trips([&] { expect_all(Status::executed, bill, batch_of(64, "m-")); }), 66U);
    EXPECT_EQ(trips([&] { expect_all(Status::replayed, bill, batch_of(64, "m-")); }), 2U)
        << "of duplicates: [BEGIN, locks, read], [COMMIT]";
    EXPECT_EQ(effects(), 128);
}

TEST_F(PostgresTrips, r6_7_a_batch_of_64_that_posts_is_one_for_each_and_one) {
    // Each message's statement is sent before the next one's savepoint, so that its failure is its
    // own; the last one's travels with the records and the COMMIT.
    auto bill = handled_by(post);
    expect_all(Status::executed, bill, batch_of(64, "warm-"));
    EXPECT_EQ(trips([&] { expect_all(Status::executed, bill, batch_of(64, "m-")); }), 65U);
    EXPECT_EQ(effects(), 128);
}

TEST_F(PostgresTrips, within_a_users_transaction_the_claim_and_the_release_are_two) {
    auto bill = handled_by(execute);
    const auto conninfo = PostgresServer::with_database("user=postgres host=" + proxy_host(),
                                                        outside().run("SELECT current_database()"));
    PostgresSession users(conninfo);
    users.run("BEGIN");
    EXPECT_EQ(
        trips([&] { EXPECT_EQ(bill.within(users.native(), {"m-1"}).status(), Status::executed); }),
        3U);
    users.run("COMMIT");
    EXPECT_EQ(effects(), 1);
}

TEST_F(PostgresTrips, duplicates_of_a_completed_key_write_no_wal) {
    auto bill = handled_by(post);
    static_cast<void>(bill({"m-1"}));
    EXPECT_GT(wal([&] { static_cast<void>(bill({"m-" + std::to_string(effects() + 1)})); }), 0)
        << "it is measured";
    EXPECT_EQ(wal([&] {
                  for (int n = 0; n < 100; ++n) {
                      EXPECT_EQ(bill({"m-1"}).status(), Status::replayed);
                  }
              }),
              0);
    EXPECT_EQ(wal([&] {
                  for (int n = 0; n < 100; ++n) {
                      EXPECT_EQ(bill({"m-1", true}).status(), Status::replayed);
                  }
              }),
              0)
        << "redelivered";
    const auto batch = batch_of(64, "b-");
    expect_all(Status::executed, bill, batch);
    EXPECT_EQ(wal([&] { expect_all(Status::replayed, bill, batch); }), 0) << "a batch";
}

} // namespace idem::postgres_test
