// SPDX-License-Identifier: MIT
// Leases over the table of records: links that break, owners that were overtaken, batches, and
// DistributedLock on top.

#include <idem/consumer.hpp>
#include <idem/strategy/distributed_lock.hpp>
#include <idem/testing/harness.hpp>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "behind_proxy.hpp"

namespace idem::postgres_test {

using idem::testing::in_parallel;
using idem::testing::must_be;
using idem::testing::must_claim;

class PostgresLease : public PostgresBehindProxy {
protected:
    using Next = LinkProxy::Next;

    static ClaimRequest leased(std::string_view id = "m-1",
                               milliseconds lease = milliseconds{60'000}) {
        return {.key = {"billing", id}, .lease = lease};
    }
    /// By the server's clock.
    void let_lease_end(std::string_view id = "m-1") {
        outside().run("UPDATE idem_record SET lease_until = clock_timestamp() - interval '1 ms' "
                      "WHERE id = '" +
                      std::string(id) + "'::bytea");
    }
    long deadlocks() {
        return outside().number("SELECT deadlocks FROM pg_stat_database WHERE datname = "
                                "current_database()");
    }
    static std::vector<std::string> ids(std::size_t count) {
        std::vector<std::string> all;
        for (std::size_t number = 0; number < count; ++number) {
            all.push_back("m-" + std::to_string(number));
        }
        return all;
    }
};

TEST_F(PostgresLease, r2_2_a_claim_whose_answer_is_lost_is_found_by_its_nonce) {
    proxy().at("nextval", Next::lose_answer);
    const auto mine = must_claim(behind().claim(leased()));
    EXPECT_TRUE(proxy().done());
    EXPECT_EQ(mine.attempt, 1U);
    EXPECT_FALSE(mine.takeover);
    EXPECT_EQ(behind().complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_EQ(must_be<Completed>(store().claim(leased())).result, "done");
}

TEST_F(PostgresLease, r2_2_a_claim_that_never_arrived_is_sent_again) {
    proxy().at("nextval", Next::lose_request);
    const auto mine = must_claim(behind().claim(leased()));
    EXPECT_TRUE(proxy().done());
    EXPECT_EQ(mine.attempt, 1U);
    EXPECT_EQ(behind().complete(mine.ticket, ""), TicketState::valid);
}

TEST_F(PostgresLease, r2_2_a_batch_whose_answer_is_lost_is_found_whole) {
    const auto others = must_claim(store().claim(leased("m-1")));
    proxy().at("nextval", Next::lose_answer);
    const std::vector<ClaimRequest> asked{leased("m-0"), leased("m-1"), leased("m-2")};
    const auto answers = behind().claim(std::span(asked));
    EXPECT_TRUE(proxy().done());
    EXPECT_TRUE(std::holds_alternative<InProgress>(answers[1]));
    EXPECT_EQ(store().complete(others.ticket, ""), TicketState::valid);
    for (const auto at : {0U, 2U}) {
        const auto mine = must_claim(answers[at]);
        EXPECT_EQ(mine.attempt, 1U);
        EXPECT_EQ(behind().complete(mine.ticket, ""), TicketState::valid);
    }
}

TEST_F(PostgresLease, r2_2_a_takeover_whose_answer_is_lost_is_found_by_its_nonce) {
    const auto old = must_claim(store().claim(leased()));
    let_lease_end();
    proxy().at("greatest(fence + 1", Next::lose_answer);
    const auto mine = must_claim(behind().claim(leased()));
    EXPECT_TRUE(proxy().done());
    EXPECT_EQ(mine.attempt, 2U);
    EXPECT_TRUE(mine.takeover);
    EXPECT_GT(mine.fence, old.fence);
    EXPECT_EQ(store().complete(old.ticket, "late"), TicketState::outdated);
    EXPECT_EQ(behind().complete(mine.ticket, "done"), TicketState::valid);
}

TEST_F(PostgresLease, r2_3_a_completion_whose_answer_is_lost_is_in_doubt_and_harmless_to_repeat) {
    const auto mine = must_claim(behind().claim(leased()));
    proxy().at("done.result", Next::lose_answer);
    EXPECT_EQ(fault_thrown([&] { static_cast<void>(behind().complete(mine.ticket, "done")); }),
              Fault::in_doubt);
    EXPECT_EQ(behind().complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_EQ(must_be<Completed>(store().claim(leased())).result, "done");
}

TEST_F(PostgresLease, r2_3_distributed_lock_repeats_a_completion_in_doubt) {
    for (const auto next : {Next::lose_answer, Next::lose_request}) {
        const std::string id = next == Next::lose_answer ? "answer" : "request";
        const IdempotentConsumer consumer(behind(), DistributedLock{});
        unsigned runs = 0;
        const auto charge = consumer.wrap(
            "billing",
            [](const std::string& order) { return order; },
            [&](const std::string&) {
                ++runs;
                return 7;
            });
        proxy().at("done.result", next);
        const auto outcome = charge(id);
        EXPECT_TRUE(proxy().done());
        EXPECT_EQ(outcome.status(), Status::executed);
        const auto again = charge(id);
        EXPECT_EQ(again.status(), Status::replayed);
        EXPECT_EQ(again.value(), 7);
        EXPECT_EQ(runs, 1U);
    }
}

TEST_F(PostgresLease, r1_3_a_claim_that_fails_at_its_implicit_commit_is_not_won) {
    outside().run("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                  "$$BEGIN RAISE EXCEPTION 'not today'; END$$");
    outside().run("CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON idem_record DEFERRABLE "
                  "INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()");
    const auto error = thrown<StoreError>([&] { static_cast<void>(store().claim(leased())); });
    ASSERT_TRUE(error);
    EXPECT_NE(std::string(error->what()).find("P0001"), std::string::npos) << error->what();
    EXPECT_EQ(records(), 0);
    outside().run("DROP TRIGGER at_commit ON idem_record");
    EXPECT_EQ(must_claim(store().claim(leased())).attempt, 1U);
    EXPECT_EQ(outside().number("SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                               "'idem' AND datname = current_database()"),
              1)
        << "the connection was kept";
}

TEST_F(PostgresLease, r4_6_an_owner_does_not_wait_for_the_transaction_that_takes_over) {
    PostgresStore hasty(conninfo(), {.deadline = milliseconds{400}});
    const auto old = must_claim(hasty.claim(leased()));
    let_lease_end();
    auto tx = store().begin();
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    EXPECT_EQ(fault_thrown([&] { static_cast<void>(hasty.complete(old.ticket, "late")); }),
              Fault::unavailable);
    EXPECT_EQ(fault_thrown([&] { static_cast<void>(hasty.renew(old.ticket, seconds{60})); }),
              Fault::unavailable);
    tx.complete(request(), "joined");
    tx.commit();
    EXPECT_EQ(hasty.complete(old.ticket, "late"), TicketState::outdated);
    EXPECT_EQ(hasty.renew(old.ticket, seconds{60}), TicketState::outdated);
    EXPECT_EQ(must_be<Completed>(store().claim(leased())).result, "joined");
}

TEST_F(PostgresLease, r4_5_a_lease_is_renewed_while_every_connection_is_lent) {
    PostgresStore narrow(conninfo(), {.connections = 1});
    const auto mine = must_claim(narrow.claim(leased()));
    auto tx = narrow.begin();
    ASSERT_TRUE(is_claimed(tx.claim(request("m-2"))));
    EXPECT_EQ(narrow.renew(mine.ticket, seconds{90}), TicketState::valid);
}

TEST_F(PostgresLease, r4_5_a_handler_longer_than_its_lease_keeps_it) {
    const IdempotentConsumer consumer(store(), DistributedLock{.lease = milliseconds{1'500}});
    unsigned runs = 0;
    const auto charge = consumer.wrap(
        "billing",
        [](const std::string& id) { return id; },
        [&](const std::string&, Lease& lease) {
            ++runs;
            const auto until = outside().run("SELECT lease_until FROM idem_record");
            EXPECT_TRUE(eventually([&] {
                return outside().run("SELECT lease_until > '" + until + "' FROM idem_record") ==
                       "t";
            }));
            lease.ensure_held();
        });
    EXPECT_EQ(charge("m-1").status(), Status::executed);
    EXPECT_EQ(charge("m-1").status(), Status::replayed);
    EXPECT_EQ(runs, 1U);
}

TEST_F(PostgresLease, r4_3_the_fence_grows_across_expiry_pruning_and_restart) {
    std::vector<std::uint64_t> fences;
    fences.push_back(must_claim(store().claim(leased())).fence);
    let_lease_end();
    fences.push_back(must_claim(store().claim(leased())).fence);
    outside().run("UPDATE idem_record SET expires = now() - interval '1 s', lease_until = NULL");
    EXPECT_EQ(store().prune(10), 1U);
    EXPECT_EQ(records(), 0);
    fences.push_back(must_claim(store().claim(leased())).fence);
    let_lease_end();
    fences.push_back(must_claim(store().claim(leased())).fence);
    EXPECT_TRUE(std::is_sorted(fences.begin(), fences.end()));
    EXPECT_TRUE(std::adjacent_find(fences.begin(), fences.end()) == fences.end());
}

TEST_F(PostgresLease, r3_4_attempts_used_up_by_crashes_bury_the_record_where_operators_see_it) {
    auto asked = leased();
    asked.max_attempts = 2;
    for (unsigned attempt = 1; attempt <= 2; ++attempt) {
        EXPECT_EQ(must_claim(store().claim(asked)).attempt, attempt);
        let_lease_end(); // the owner was killed
    }
    EXPECT_EQ(must_be<Dead>(store().claim(asked)).attempts, 2U);
    const auto dead = store().list(State::dead, 10);
    ASSERT_EQ(dead.size(), 1U);
    EXPECT_EQ(dead[0].id, "m-1");
    EXPECT_EQ(dead[0].attempts, 2U);
    EXPECT_TRUE(store().revive(asked.key, {"ann", "the gateway is back"}));
    EXPECT_EQ(must_claim(store().claim(asked)).attempt, 1U);
}

TEST_F(PostgresLease, r6_7_a_batch_past_500_keys_is_claimed_and_completed_whole) {
    const auto names = ids(1'100);
    std::vector<ClaimRequest> asked;
    for (const auto& name : names) {
        asked.push_back(leased(name));
    }
    std::vector<PostgresTicket> tickets;
    std::vector<std::string> results;
    for (auto& answer : store().claim(std::span(asked))) {
        tickets.push_back(must_claim(std::move(answer)).ticket);
        results.push_back("of " + tickets.back().id);
    }
    for (const auto state : store().complete(std::span(tickets), std::span(results))) {
        EXPECT_EQ(state, TicketState::valid);
    }
    const auto again = store().claim(std::span(asked));
    for (std::size_t at = 0; at < names.size(); ++at) {
        EXPECT_EQ(must_be<Completed>(again[at]).result, "of " + names[at]);
    }
}

TEST_F(PostgresLease,
       r6_7_overlapping_batches_in_any_order_claim_each_key_once_and_never_deadlock) {
    const auto names = ids(300);
    std::vector<std::atomic<unsigned>> won(names.size());
    std::atomic<unsigned> invalid{0};
    in_parallel(4, [&](unsigned thread) {
        std::mt19937 random(thread);
        for (int round = 0; round < 5; ++round) {
            std::vector<std::size_t> order(names.size());
            std::iota(order.begin(), order.end(), std::size_t{0});
            std::shuffle(order.begin(), order.end(), random);
            order.resize(200);
            std::vector<ClaimRequest> asked;
            for (const auto at : order) {
                asked.push_back(leased(names[at]));
            }
            std::vector<PostgresTicket> tickets;
            const auto answers = store().claim(std::span(asked));
            for (std::size_t at = 0; at < answers.size(); ++at) {
                if (const auto* mine = std::get_if<0>(&answers[at])) {
                    ++won[order[at]];
                    tickets.push_back(mine->ticket);
                }
            }
            const std::vector<std::string> results(tickets.size());
            for (const auto state : store().complete(std::span(tickets), std::span(results))) {
                invalid += state != TicketState::valid;
            }
        }
    });
    for (std::size_t at = 0; at < names.size(); ++at) {
        const bool completed = std::holds_alternative<Completed>(store().claim(leased(names[at])));
        EXPECT_EQ(won[at], completed ? 1U : 0U) << names[at];
    }
    EXPECT_EQ(invalid, 0U);
    EXPECT_EQ(deadlocks(), 0);
}

TEST_F(PostgresLease, a_role_whose_default_is_serializable_gets_the_same_answers) {
    PostgresStore strict(conninfo() + " options='-c default_transaction_isolation=serializable'",
                         {.deadline = milliseconds{30'000}});
    for (int round = 0; round < 20; ++round) {
        const auto id = "m-" + std::to_string(round);
        const auto asked = leased(id);
        std::atomic<unsigned> won{0};
        in_parallel(4, [&](unsigned) {
            const auto claim = strict.claim(asked);
            if (const auto* mine = std::get_if<0>(&claim)) {
                ++won;
                EXPECT_EQ(strict.complete(mine->ticket, ""), TicketState::valid);
            }
        });
        EXPECT_EQ(won, 1U);
    }
}

TEST_F(PostgresLease, equal_keys_of_a_batch_are_refused_before_anything_is_written) {
    const std::vector<ClaimRequest> twice{leased(), leased("m-2"), leased()};
    thrown<std::logic_error>([&] { static_cast<void>(store().claim(std::span(twice))); });
    EXPECT_EQ(records(), 0);
}

TEST_F(PostgresLease, r9_11_a_server_that_is_down_is_unavailable_and_runs_no_handler) {
    PostgresStore nowhere("host=" + proxy().host() + "/none user=postgres dbname=x",
                          {.deadline = milliseconds{300}});
    const IdempotentConsumer consumer(nowhere, DistributedLock{});
    unsigned runs = 0;
    const auto charge = consumer.wrap(
        "billing", [](const std::string& id) { return id; }, [&](const std::string&) { ++runs; });
    EXPECT_EQ(fault_thrown([&] { static_cast<void>(charge("m-1")); }), Fault::unavailable);
    EXPECT_EQ(runs, 0U);
}

TEST_F(PostgresLease, prune_is_one_instance_at_a_time_and_passes_over_what_is_at_work) {
    for (const auto* id : {"m-1", "m-2", "m-3"}) {
        handle(request(id));
    }
    outside().run("UPDATE idem_record SET expires = now() - interval '1 s'");
    auto tx = store().begin();
    ASSERT_TRUE(is_claimed(tx.claim(request("m-2")))); // it takes the expired record
    EXPECT_EQ(store().prune(100), 2U);
    EXPECT_EQ(store().prune(100), 0U);
    tx.complete(request("m-2"), "anew");
    tx.commit();
    EXPECT_EQ(records(), 1);

    outside().run("UPDATE idem_record SET expires = now() - interval '1 s'");
    const auto turn = detail::advisory_lock_of("idem_record", {"", "prune"});
    outside().run("BEGIN");
    outside().run("SELECT pg_advisory_xact_lock(" + std::to_string(turn) + ")");
    EXPECT_EQ(store().prune(100), 0U) << "another instance is at it";
    outside().run("COMMIT");
    EXPECT_EQ(store().prune(100), 1U);
    EXPECT_EQ(records(), 0);
}

TEST_F(PostgresLease, r4_4_a_record_under_a_lease_outlives_a_shorter_retention) {
    auto asked = leased();
    asked.retention = seconds{0};
    const auto mine = must_claim(store().claim(asked));
    EXPECT_EQ(store().prune(10), 0U);
    EXPECT_TRUE(std::holds_alternative<InProgress>(store().claim(asked)));
    EXPECT_EQ(store().renew(mine.ticket, seconds{120}), TicketState::valid);
    EXPECT_EQ(store().complete(mine.ticket, ""), TicketState::valid);
}

TEST_F(PostgresLease, an_intervention_waits_for_no_handler_and_is_refused_meanwhile) {
    auto asked = request();
    asked.max_attempts = 1;
    store().record_failure(asked, "failed");
    ASSERT_EQ(store().find(asked.key)->state, State::dead);
    PostgresStore hasty(conninfo(), {.deadline = milliseconds{400}});
    auto tx = store().begin();
    ASSERT_TRUE(is_claimed(tx.claim(request()))); // without a limit: it is not dead for this one
    EXPECT_FALSE(hasty.revive(asked.key, {"ann", "why not"}));
    EXPECT_FALSE(hasty.erase(asked.key, {"ann", "why not"}));
    tx.rollback();
    EXPECT_TRUE(hasty.revive(asked.key, {"ann", "why not"}));
    EXPECT_EQ(store().find(asked.key)->note, "revived by ann: why not");
}

} // namespace idem::postgres_test
