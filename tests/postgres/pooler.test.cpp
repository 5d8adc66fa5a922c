// SPDX-License-Identifier: MIT
// PgBouncer in transaction mode between the store and its server: every transaction may meet another
// session than the last, and prepared statements of others (semantics.md 8).

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>
#include <idem/testing/store_contract.hpp>

#include <atomic>
#include <fstream>
#include <string>

#include "postgres_test.hpp"
#include "support/pgbouncer.hpp"

namespace idem::postgres_test {

using testing_support::PgBouncer;

inline std::string pooler_missing() {
    if (auto missing = PgBouncer::missing(); !missing.empty()) {
        return missing;
    }
    return shared_postgres().owned() ? ""
                                     : "PgBouncer stands before a server of the test's own only";
}

/// Of the contract: more server sessions than transactions are open at once, and each transaction in
/// another than the last.
inline PgBouncer& shared_pooler() {
    static PgBouncer pooler(shared_postgres());
    return pooler;
}

/// One database for all tests of a kind: their scopes and effects have names of their own.
template <bool prepared>
struct PooledHarness : testing::Differences {
    using Store = PostgresStore;
    static constexpr bool survives_restart = true;

    static std::string missing() { return pooler_missing(); }

    PooledHarness() {
        outside_->run("CREATE TABLE IF NOT EXISTS effect (id text NOT NULL)");
        store_.migrate();
    }
    Store& store() { return store_; }
    void write_effect(PostgresTransaction& tx, const std::string& id) {
        tx.execute("INSERT INTO effect VALUES ($1)", id);
    }
    std::size_t count_effects(const std::string& id) {
        return static_cast<std::size_t>(
            outside_->number("SELECT count(*) FROM effect WHERE id = '" + id + "'"));
    }
    void restart() {
        outside_.reset();
        shared_postgres().restart();
        outside_.emplace(conninfo());
        const auto pooled = shared_pooler().conninfo(outside_->run("SELECT current_database()"));
        const bool back = eventually([&] { // it waits before it tries again
            try {
                return PostgresSession(pooled).run("SELECT 1") == "1";
            } catch (const std::runtime_error&) {
                return false;
            }
        });
        if (!back) {
            throw std::runtime_error("the pooler does not find the server again");
        }
    }

private:
    static const std::string& conninfo() {
        static const std::string direct = shared_postgres().create_database();
        return direct;
    }

    std::optional<PostgresSession> outside_{conninfo()};
    PostgresStore store_{shared_pooler().conninfo(outside_->run("SELECT current_database()")),
                         PostgresOptions{.prepared = prepared}};
};

class PostgresPooler : public PostgresTest {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(pooler_missing());
        PostgresTest::SetUp();
    }
    /// The fixture's database as the pooler passes it on.
    std::string pooled(const PgBouncer& pooler) {
        return pooler.conninfo(outside().run("SELECT current_database()"));
    }
    /// How often the server refused a prepared statement: not there (26000), there already (42P05).
    static long refused() {
        std::ifstream log(shared_postgres().log());
        long count = 0;
        for (std::string line; std::getline(log, line);) {
            const bool missing = line.find("\" does not exist") != std::string::npos;
            const bool doubled = line.find("\" already exists") != std::string::npos;
            count += line.find("prepared statement \"") != std::string::npos && (missing || doubled)
                         ? 1
                         : 0;
        }
        return count;
    }
};

TEST_F(PostgresPooler, the_statements_of_a_session_are_not_there_in_the_next_one) {
    const PgBouncer pooler(shared_postgres(), {.pool_size = 2, .kept_open = 2});
    PostgresSession session(pooled(pooler));
    ASSERT_TRUE(eventually([&] { // the second session is opened in the background
        return session.run("SELECT pg_backend_pid()") != session.run("SELECT pg_backend_pid()");
    }));
    EXPECT_EQ(session.run("PREPARE mine AS SELECT 1"), "");
    EXPECT_ANY_THROW(session.run("EXECUTE mine"));
}

TEST_F(PostgresPooler, r8_prepared_statements_that_a_pooler_loses_cost_no_message) {
    // Eight connections of the store's over three of the server's.
    const PgBouncer pooler(shared_postgres(), {.pool_size = 3, .kept_open = 3});
    PostgresStore behind(pooled(pooler));
    const auto before = refused();
    IdempotentConsumer consumer(behind, DedupTable{});
    auto bill = consumer.wrap(
        "billing",
        [](const std::string& id) { return id; },
        [](const std::string& id, PostgresTransaction& tx) {
            write_effect(tx, id);
            return id;
        });
    std::atomic<unsigned> executed{0}, replayed{0};
    testing::in_parallel(8, [&](unsigned thread) {
        for (int n = 0; n < 25; ++n) {
            const auto id = "m-" + std::to_string(thread) + "-" + std::to_string(n);
            executed += bill(id).status() == Status::executed ? 1 : 0;
            replayed += bill(id).value() == id ? 1 : 0;
        }
    });
    EXPECT_EQ(executed, 200U);
    EXPECT_EQ(replayed, 200U);
    EXPECT_EQ(effects(), 200);
    EXPECT_EQ(outside().number("SELECT count(DISTINCT id) FROM effect"), 200);
    EXPECT_EQ(outside().number("SELECT max(attempts) FROM idem_record"), 1)
        << "a rerun is no attempt";
    EXPECT_GT(refused(), before) << "the way back was taken";
    EXPECT_LE(outside().number("SELECT count(*) FROM pg_stat_activity WHERE datname = "
                               "current_database() AND application_name = 'idem'"),
              3 + 8)
        << "of the fixture's own store too";
}

TEST_F(PostgresPooler, r8_without_prepared_statements_nothing_is_refused) {
    const PgBouncer pooler(shared_postgres(), {.pool_size = 3, .kept_open = 3});
    PostgresStore behind(pooled(pooler), {.prepared = false});
    const auto before = refused();
    testing::in_parallel(8, [&](unsigned thread) {
        for (int n = 0; n < 25; ++n) {
            const auto id = "m-" + std::to_string(thread) + "-" + std::to_string(n);
            auto tx = behind.begin();
            ASSERT_TRUE(is_claimed(tx.claim(request(id))));
            write_effect(tx, id);
            tx.complete(request(id), "\1x");
            tx.commit();
        }
    });
    EXPECT_EQ(effects(), 200);
    EXPECT_EQ(refused(), before);
}

TEST_F(PostgresPooler, r1_1_a_key_is_held_across_the_sessions_of_the_pooler) {
    const PgBouncer pooler(shared_postgres(), {.pool_size = 3, .kept_open = 3});
    PostgresStore behind(pooled(pooler));
    auto owner = behind.begin();
    ASSERT_TRUE(is_claimed(owner.claim(request())));
    write_effect(owner);
    EXPECT_TRUE(is<InProgress>(look(request()))) << "not through the pooler";
    auto other = behind.begin();
    EXPECT_TRUE(is<InProgress>(other.claim(request())));
    other.rollback();
    owner.complete(request(), "");
    owner.commit();
    EXPECT_TRUE(is<Completed>(behind.peek(request())));
    EXPECT_EQ(effects(), 1);
    EXPECT_EQ(outside().number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), 0);
}

TEST_F(PostgresPooler, r1_10_what_transactions_set_is_gone_with_them) {
    const PgBouncer pooler(shared_postgres(), {.pool_size = 1, .kept_open = 1});
    {
        PostgresStore behind(pooled(pooler), {.connections = 2});
        auto tx = behind.begin();
        ASSERT_TRUE(is_claimed(tx.claim(request())));
        write_effect(tx);
        tx.complete(request(), "");
        tx.commit();
        behind.record_failure(request("m-2"), "failed"); // sets a lock_timeout
    }
    PostgresSession next(pooled(pooler)); // in the same session of the server's
    EXPECT_EQ(next.run("SHOW idle_in_transaction_session_timeout"), "0");
    EXPECT_EQ(next.run("SHOW lock_timeout"), "0");
    EXPECT_EQ(next.run("SELECT current_setting('idem.claim', true)"), "");
}

} // namespace idem::postgres_test

namespace idem::testing {

using Prepared = postgres_test::PooledHarness<true>;
INSTANTIATE_TYPED_TEST_SUITE_P(PgBouncer, RecordContract, Prepared);
INSTANTIATE_TYPED_TEST_SUITE_P(PgBouncer, TransactionalStoreContract, Prepared);
INSTANTIATE_TYPED_TEST_SUITE_P(PgBouncer, BatchTransactionContract, Prepared);
INSTANTIATE_TYPED_TEST_SUITE_P(PgBouncer, PeekingStoreContract, Prepared);

using Unprepared = postgres_test::PooledHarness<false>;
INSTANTIATE_TYPED_TEST_SUITE_P(PgBouncerUnprepared, RecordContract, Unprepared);
INSTANTIATE_TYPED_TEST_SUITE_P(PgBouncerUnprepared, TransactionalStoreContract, Unprepared);
INSTANTIATE_TYPED_TEST_SUITE_P(PgBouncerUnprepared, BatchTransactionContract, Unprepared);
INSTANTIATE_TYPED_TEST_SUITE_P(PgBouncerUnprepared, PeekingStoreContract, Unprepared);

// The leased mode over the same table belongs here, twice, as in contract.test.cpp: its suites take
// a harness of their own, with the stores of PooledHarness.

} // namespace idem::testing
