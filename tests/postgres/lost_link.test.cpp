// SPDX-License-Identifier: MIT
// Links that break, servers that die, answers that do not come: what the caller learns, and that
// nothing is lost, doubled or left behind.

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>

#include <sys/wait.h>
#include <thread>
#include <vector>

#include "behind_proxy.hpp"

namespace idem::postgres_test {

class PostgresLostLink : public PostgresBehindProxy {
protected:
    /// Up to, and without, the commit.
    PostgresTransaction handled(PostgresStore& store, std::string_view result = "\1done") {
        auto tx = store.begin();
        if (!is_claimed(tx.claim(request()))) {
            throw std::runtime_error("the key is not free");
        }
        write_effect(tx);
        tx.complete(request(), result);
        return tx;
    }
    /// Sessions of this database other than the test's own.
    long sessions(const std::string& which = "true") {
        return outside().number("SELECT count(*) FROM pg_stat_activity WHERE datname = "
                                "current_database() AND pid <> pg_backend_pid() AND " +
                                which);
    }
    long locks() {
        return outside().number(
            "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = "
            "database WHERE datname = current_database() AND locktype = 'advisory'");
    }
    void end_other_sessions() {
        outside().run(
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE datname = "
            "current_database() AND pid <> pg_backend_pid()");
    }
};

TEST_F(PostgresLostLink, r2_1_a_commit_whose_answer_is_lost_is_found_committed) {
    for (const auto* result : {"\1done", ""}) {
        outside().run("TRUNCATE idem_record, effect");
        auto tx = handled(behind(), result);
        proxy().at("COMMIT", LinkProxy::Next::lose_answer);
        tx.commit();
        ASSERT_TRUE(proxy().done());
        EXPECT_FALSE(tx.conflicted());
        EXPECT_EQ(effects(), 1);
        EXPECT_EQ(std::get<Completed>(look(request())).result, result);
    }
}

TEST_F(PostgresLostLink, r2_1_a_commit_that_never_arrived_did_not_happen_and_is_run_again) {
    auto tx = handled(behind());
    proxy().at("COMMIT", LinkProxy::Next::lose_request);
    EXPECT_EQ(fault_thrown([&] { tx.commit(); }), Fault::unavailable);
    EXPECT_TRUE(tx.conflicted());
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    EXPECT_TRUE(is_claimed(look(request())));
}

TEST_F(PostgresLostLink, r2_1_absence_while_the_old_session_may_still_commit_is_in_doubt) {
    // The commit hangs in a deferred trigger; the link breaks; a plain read would find no record.
    outside().run("CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
                  "$$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$");
    outside().run("CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON effect DEFERRABLE INITIALLY "
                  "DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()");
    outside().run("SELECT pg_advisory_lock(4711)");
    PostgresStore impatient(conninfo(), {.deadline = milliseconds{1'500}});
    auto tx = handled(impatient);
    EXPECT_EQ(fault_thrown([&] { tx.commit(); }), Fault::in_doubt);
    EXPECT_FALSE(tx.conflicted());
    EXPECT_EQ(effects(), 0);
    EXPECT_TRUE(is<InProgress>(look(request())));
    outside().run("SELECT pg_advisory_unlock(4711)");
    ASSERT_TRUE(eventually([&] { return sessions("state = 'active'") <= 0; }));
    EXPECT_EQ(effects(), 1) << "it committed after all";
    EXPECT_EQ(std::get<Completed>(look(request())).result, "\1done");
}

TEST_F(PostgresLostLink, r2_1_the_read_back_waits_for_the_old_session) {
    outside().run("CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
                  "$$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$");
    outside().run("CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON effect DEFERRABLE INITIALLY "
                  "DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()");
    outside().run("SELECT pg_advisory_lock(4711)");
    auto tx = handled(behind());
    proxy().at("COMMIT", LinkProxy::Next::lose_answer);
    std::jthread release([this] {
        // Once the question waits for the key's lock, the old session may commit.
        PostgresSession watcher(conninfo());
        EXPECT_TRUE(eventually([&] {
            return watcher.number("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = "
                                  "'advisory'") == 2;
        }));
        outside().run("SELECT pg_advisory_unlock(4711)");
    });
    tx.commit();
    release.join();
    EXPECT_EQ(effects(), 1);
    EXPECT_FALSE(tx.conflicted());
}

TEST_F(PostgresLostLink,
       r3_2_a_link_lost_before_the_commit_is_conflicted_and_nothing_is_left_behind) {
    auto tx = handled(behind());
    end_other_sessions();
    EXPECT_EQ(fault_thrown([&] { tx.commit(); }), Fault::unavailable);
    EXPECT_TRUE(tx.conflicted());
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    EXPECT_EQ(locks(), 0);
    auto again = handled(behind());
    again.commit();
    EXPECT_EQ(effects(), 1);
}

TEST_F(PostgresLostLink, r3_2_a_link_lost_in_a_statement_of_the_handler_is_conflicted) {
    auto tx = behind().begin();
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    proxy().at("INSERT INTO effect", LinkProxy::Next::lose_answer);
    EXPECT_THROW(write_effect(tx), PostgresError);
    EXPECT_TRUE(tx.conflicted());
    tx.rollback();
    ASSERT_TRUE(eventually([&] { return locks() <= 0; })); // of the session that was cut off
    EXPECT_EQ(effects(), 0);
    EXPECT_TRUE(is_claimed(look(request())));
}

TEST_F(PostgresLostLink, r3_2_a_link_lost_in_the_claim_is_unavailable_and_conflicted) {
    for (const auto next : {LinkProxy::Next::lose_answer, LinkProxy::Next::lose_request}) {
        auto tx = behind().begin();
        proxy().at("ON CONFLICT", next);
        EXPECT_EQ(fault_thrown([&] { static_cast<void>(tx.claim(request())); }),
                  Fault::unavailable);
        EXPECT_TRUE(tx.conflicted());
    }
    ASSERT_TRUE(eventually([&] { return locks() <= 0; })); // of the session that was cut off
    EXPECT_TRUE(is_claimed(look(request())));
}

TEST_F(PostgresLostLink, a_server_that_dies_in_mid_transaction_leaves_neither_record_nor_effect) {
    auto tx = handled(store());
    shared_postgres().restart();
    EXPECT_EQ(fault_thrown([&] { tx.commit(); }), Fault::unavailable);
    EXPECT_TRUE(tx.conflicted());
    tx.rollback();
    PostgresSession after(conninfo());
    EXPECT_EQ(after.number("SELECT count(*) FROM effect") +
                  after.number("SELECT count(*) FROM idem_record"),
              0);
    handle(request());
    EXPECT_EQ(after.number("SELECT count(*) FROM effect"), 1);
}

TEST_F(PostgresLostLink, idle_connections_that_a_restart_closed_are_not_lent) {
    {
        std::vector<PostgresTransaction> all;
        for (int i = 0; i < 8; ++i) {
            all.push_back(store().begin());
            ASSERT_TRUE(is_claimed(all.back().claim(request("m-" + std::to_string(i)))));
        }
    }
    shared_postgres().restart();
    handle(request()); // the first try succeeds, whichever connection was lent last
    PostgresSession after(conninfo());
    EXPECT_EQ(after.number("SELECT count(*) FROM effect"), 1);
}

TEST_F(PostgresLostLink, r9_11_a_server_that_is_down_is_unavailable_and_runs_no_handler) {
    unsigned ran = 0;
    IdempotentConsumer consumer(store(), DedupTable{});
    auto bill = consumer.wrap(
        "billing",
        [](const std::string& id) { return id; },
        [&](const std::string&, PostgresTransaction&) { ++ran; });
    shared_postgres().stop();
    const auto fault = fault_thrown([&] { static_cast<void>(bill("m-1")); });
    const auto outcome = bill.handle("m-1", {});
    shared_postgres().start();
    EXPECT_EQ(fault, Fault::unavailable);
    EXPECT_EQ(outcome.settlement().action, Settlement::retry);
    EXPECT_EQ(ran, 0U);
    EXPECT_EQ(bill("m-1").status(), Status::executed);
    EXPECT_EQ(ran, 1U);
}

TEST_F(PostgresLostLink, r9_15_a_frozen_server_makes_no_call_outlive_its_deadline) {
    PostgresStore impatient(conninfo(), {.deadline = milliseconds{1'000}});
    auto tx = impatient.begin();
    ASSERT_TRUE(is_claimed(tx.claim(request("m-0"))));
    const auto pid = static_cast<pid_t>(
        outside().number("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND "
                         "state = 'idle in transaction'"));
    if (::kill(pid, SIGSTOP) != 0) {
        GTEST_SKIP() << "the test may not stop a process of the server's";
    }
    const auto error = thrown<StoreError>([&] { static_cast<void>(tx.claim(request())); });
    ::kill(pid, SIGCONT);
    ASSERT_TRUE(error);
    EXPECT_EQ(error->fault(), Fault::unavailable);
    EXPECT_NE(std::string(error->what()).find("deadline"), std::string::npos) << error->what();
    EXPECT_FALSE(tx.conflicted()) << "a server that does not answer is not asked three times more";
    tx.rollback();
}

TEST_F(PostgresLostLink, r9_15_a_statement_of_the_handler_has_the_handlers_time) {
    PostgresStore impatient(
        conninfo(), {.deadline = milliseconds{5'000}, .max_handler_time = milliseconds{1'000}});
    auto tx = impatient.begin();
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    EXPECT_THROW(tx.execute("SELECT pg_sleep(60)"), PostgresError);
    EXPECT_FALSE(tx.conflicted()) << "the handler's own failure: charged";
    tx.rollback();
    end_other_sessions();
}

TEST_F(PostgresLostLink, r1_4_a_transaction_that_idles_too_long_is_ended_by_the_server) {
    PostgresStore impatient(conninfo(), {.max_handler_time = milliseconds{1'000}});
    auto tx = handled(impatient);
    ASSERT_TRUE(eventually([&] { return sessions("state LIKE 'idle in transaction%'") <= 0; }));
    EXPECT_EQ(fault_thrown([&] { tx.commit(); }), Fault::lease_lost);
    EXPECT_FALSE(tx.conflicted());
    tx.rollback();
    EXPECT_EQ(effects(), 0);
    EXPECT_TRUE(is_claimed(look(request())));
}

TEST_F(PostgresLostLink, r8_an_exhausted_pool_is_unavailable_and_names_the_option) {
    PostgresStore small(conninfo(), {.connections = 1, .deadline = milliseconds{500}});
    auto tx = small.begin();
    const auto error = thrown<StoreError>([&] { static_cast<void>(small.begin()); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->fault(), Fault::unavailable);
    EXPECT_NE(std::string(error->what()).find("PostgresOptions::connections"), std::string::npos);
    small.record_failure(request(), "no connection: not counted, and no exception");
    tx.rollback();
    auto next = small.begin();
    EXPECT_TRUE(is_claimed(next.claim(request())));
}

TEST_F(PostgresLostLink, a_child_of_fork_is_refused_and_leaves_the_parents_session_alone) {
    auto tx = handled(store());
    const pid_t child = ::fork();
    if (child == 0) {
        int refused = 0;
        try {
            static_cast<void>(store().begin());
        } catch (const std::logic_error&) {
            ++refused;
        }
        tx.rollback();
        store().record_failure(request(), "in the child");
        ::_exit(refused == 1 ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    tx.commit();
    EXPECT_EQ(effects(), 1);
}

TEST_F(PostgresLostLink, r9_10_nothing_is_left_behind) {
    {
        PostgresStore own(conninfo());
        auto tx = handled(own);
        tx.commit();
        auto other = own.begin();
        EXPECT_TRUE(is_claimed(other.claim(request("m-2"))));
        EXPECT_EQ(locks(), 1);
    }
    ASSERT_TRUE(eventually(
        [&] { return sessions("application_name = 'idem'") <= 1; })); // that of the fixture's store
    EXPECT_EQ(locks(), 0);
    EXPECT_EQ(sessions("state LIKE 'idle in transaction%'"), 0);
}

} // namespace idem::postgres_test
