// SPDX-License-Identifier: MIT
// Leases over the table of records, beyond the laws: DistributedLock and OneTimeToken on top, the
// write lock, operators, and transactions beside them.

#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "sqlite/database.hpp"
#include "sqlite/shifted_clock.hpp"

namespace {

using idem::ClaimRequest;
using idem::Completed;
using idem::Fault;
using idem::InProgress;
using idem::Intervention;
using idem::milliseconds;
using idem::Refused;
using idem::seconds;
using idem::State;
using idem::Status;
using idem::TicketState;
using idem::testing::must_be;
using idem::testing::must_claim;
using idem::testing_support::TestDatabase;

using Store = idem::BasicSqliteStore<ShiftedClock>;

const Intervention by{"ada", "ticket 4711"};
constexpr seconds lease{600};

struct Payment {
    std::string id, token;
    idem::Fingerprint intent{};
};

class SqliteLease : public ::testing::Test {
protected:
    SqliteLease() { store.migrate(); }
    static ClaimRequest leased(std::string_view id = "m-1") {
        return {.key = {"billing", id}, .lease = lease};
    }
    static ClaimRequest redeem(std::string_view token, std::string_view id = "m-1") {
        return {.key = {"billing", id}, .lease = lease, .token = token};
    }
    template <class Work>
    static std::optional<Fault> fault_of(const Work& work) {
        try {
            work();
            return std::nullopt;
        } catch (const idem::StoreError& error) {
            return error.fault();
        }
    }
    /// A handler under a lease whose effects lie outside the transactions of the records.
    template <class Strategy, class Handler>
    auto wrap(Strategy strategy, Handler handler, idem::ConsumerOptions options = {}) {
        return idem::IdempotentConsumer(store, strategy, options)
            .wrap(
                "billing",
                [](const Payment& payment) -> idem::Identity {
                    idem::Identity identity{.id = payment.id, .fingerprint = payment.intent};
                    if (!payment.token.empty()) {
                        identity.token = payment.token;
                    }
                    return identity;
                },
                std::move(handler));
    }
    void make_effect(const std::string& id) {
        database.plain(0).run("INSERT INTO effect VALUES ('" + id + "')");
    }
    TestDatabase database;
    Store store{database.path(), {.busy = milliseconds{20'000}}};
};

// ---- DistributedLock

TEST_F(SqliteLease, a_message_under_a_lease_takes_effect_once_and_is_replayed) {
    const auto charge = wrap(idem::DistributedLock{}, [&](const Payment& payment) {
        make_effect(payment.id);
        return 7;
    });
    EXPECT_EQ(charge({"m-1", {}}).status(), Status::executed);
    for (int again = 0; again < 2; ++again) {
        const auto outcome = charge({"m-1", {}});
        EXPECT_EQ(outcome.status(), Status::replayed);
        EXPECT_EQ(outcome.value(), 7);
    }
    EXPECT_EQ(database.effects(), 1);
}

TEST_F(SqliteLease, a_batch_under_leases_takes_effect_once_each) {
    const auto charge =
        wrap(idem::DistributedLock{}, [&](const Payment& payment) { make_effect(payment.id); });
    const std::vector<Payment> payments{{"m-1", {}}, {"m-2", {}}, {"m-1", {}}, {"m-3", {}}};
    const auto first = charge.batch(payments);
    EXPECT_EQ(first[0].status(), Status::executed);
    EXPECT_EQ(first[2].status(), Status::replayed);
    for (const auto& outcome : charge.batch(payments)) {
        EXPECT_EQ(outcome.status(), Status::replayed);
    }
    EXPECT_EQ(database.effects(), 3);
}

TEST_F(SqliteLease, a_handler_that_runs_holds_neither_the_write_lock_nor_the_turn) {
    const auto charge = wrap(idem::DistributedLock{}, [&](const Payment& payment) {
        make_effect(payment.id); // another connection, which does not wait
        auto tx = store.begin(); // of this thread
        tx.execute("INSERT INTO effect VALUES ('joined')");
        tx.commit();
    });
    EXPECT_EQ(charge({"m-1", {}}).status(), Status::executed);
    EXPECT_EQ(database.effects(), 2);
}

TEST_F(SqliteLease, r4_5_a_lease_is_renewed_while_its_handler_runs) {
    const auto charge =
        wrap(idem::DistributedLock{.lease = milliseconds{1'500}},
             [&](const Payment& payment, idem::Lease& held) {
                 const auto until = store.find({"billing", payment.id})->lease_until;
                 const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds{120};
                 while (store.find({"billing", payment.id})->lease_until == until &&
                        std::chrono::steady_clock::now() < give_up) {
                     std::this_thread::sleep_for(milliseconds{5});
                 }
                 EXPECT_GT(store.find({"billing", payment.id})->lease_until, until);
                 held.ensure_held();
                 make_effect(payment.id);
             });
    EXPECT_EQ(charge({"m-1", {}}).status(), Status::executed);
    EXPECT_EQ(charge({"m-1", {}}).status(), Status::replayed);
    EXPECT_EQ(database.effects(), 1);
}

TEST_F(SqliteLease, r4_1_owner_and_store_count_a_lease_by_one_clock) {
    const auto charge =
        wrap(idem::DistributedLock{.lease = lease}, [&](const Payment&, idem::Lease& held) {
            EXPECT_GT(held.remaining(), lease / 2);
            ShiftedClock::advance(lease); // the machine's clock is set forward
            EXPECT_THROW(held.ensure_held(), idem::StoreError);
            EXPECT_TRUE(must_claim(store.claim(leased())).takeover);
        });
    EXPECT_EQ(fault_of([&] { static_cast<void>(charge({"m-1", {}})); }), Fault::lease_lost);
}

TEST_F(SqliteLease, r3_1_an_attempt_is_charged_refunded_and_dead_at_the_limit) {
    unsigned runs = 0;
    const auto charge = wrap(idem::DistributedLock{},
                             [&](const Payment&) {
                                 if (++runs == 1) {
                                     throw idem::RetryLater(milliseconds{5});
                                 }
                                 throw std::runtime_error("card declined");
                             },
                             {.max_attempts = 2});
    for (int call = 0; call < 3; ++call) {
        EXPECT_EQ(charge.handle({"m-1", {}}).status(), Status::failed) << call;
    }
    EXPECT_EQ(charge.handle({"m-1", {}}).status(), Status::dead);
    EXPECT_EQ(runs, 3U) << "one was refunded";
    const auto dead = store.list(State::dead, 10);
    ASSERT_EQ(dead.size(), 1U);
    EXPECT_EQ(dead[0].note, "card declined");
}

// ---- OneTimeToken

TEST_F(SqliteLease, r6_1_a_token_is_redeemed_once_and_every_refusal_has_its_reason) {
    const auto pay =
        wrap(idem::OneTimeToken{}, [&](const Payment& payment) { make_effect(payment.id); });
    const auto token = store.issue("billing", seconds{60});
    EXPECT_EQ(store.list(State::issued, 10).size(), 1U);
    EXPECT_EQ(pay({"m-1", token}).status(), Status::executed);
    EXPECT_EQ(store.list(State::issued, 10).size(), 0U);
    EXPECT_EQ(pay({"m-1", token}).status(), Status::replayed);
    const auto reason_of = [&](const Payment& payment) {
        const auto outcome = pay(payment);
        EXPECT_EQ(outcome.status(), Status::refused);
        return outcome.settlement().reason;
    };
    EXPECT_EQ(reason_of({"m-2", token}), idem::reason::token_spent);
    EXPECT_EQ(reason_of({"m-2", "made up"}), idem::reason::token_unknown);
    const auto late = store.issue("billing", seconds{60});
    ShiftedClock::advance(seconds{60});
    EXPECT_EQ(reason_of({"m-3", late}), idem::reason::token_expired);
    EXPECT_EQ(database.effects(), 1);
    EXPECT_EQ(database.records(), 2) << "a guess makes no record";
}

TEST_F(SqliteLease, r6_1_an_intent_binds_and_a_client_makes_tokens) {
    const idem::Fingerprint intent{.high = 1, .low = 2, .algorithm = 1};
    const idem::Fingerprint other{.high = 3, .low = 4, .algorithm = 1};
    const auto handler = [&](const Payment& payment) { make_effect(payment.id); };
    const auto pay = wrap(idem::OneTimeToken{}, handler);
    const auto token = store.issue("billing", seconds{60}, intent);
    EXPECT_EQ(pay({"m-1", token, other}).status(), Status::conflict);
    EXPECT_EQ(pay({"m-1", token, intent}).status(), Status::executed);
    const auto order = wrap(idem::OneTimeToken{.client_generated = true}, handler);
    EXPECT_EQ(order({"m-2", "cart-1", intent}).status(), Status::executed);
    EXPECT_EQ(order({"m-2", "cart-1", intent}).status(), Status::replayed);
    EXPECT_EQ(order({"m-2", "cart-1", other}).status(), Status::conflict);
    EXPECT_EQ(order({"m-3", "cart-1", intent}).status(), Status::refused);
    EXPECT_EQ(database.effects(), 2);
}

TEST_F(SqliteLease, r6_1_a_token_given_back_stays_its_holders_past_the_ttl) {
    const auto token = store.issue("billing", seconds{60});
    const auto first = must_claim(store.claim(redeem(token, "mine")));
    store.abandon(first.ticket, "failed");
    ShiftedClock::advance(seconds{3'600});
    EXPECT_EQ(must_be<Refused>(store.claim(redeem(token, "stranger"))).reason,
              idem::reason::token_spent);
    const auto second = must_claim(store.claim(redeem(token, "mine")));
    EXPECT_EQ(second.attempt, 2U);
    EXPECT_FALSE(second.takeover);
}

TEST_F(SqliteLease, r6_1_an_issued_token_is_no_message_id_and_issue_refuses_what_is_past_limits) {
    const auto token = store.issue("billing", seconds{60});
    EXPECT_EQ(must_be<Refused>(store.claim(leased(token))).reason, idem::reason::token_unknown);
    EXPECT_EQ(must_be<Refused>(store.peek(leased(token))).reason, idem::reason::token_unknown);
    EXPECT_THROW(static_cast<void>(store.issue("", seconds{60})), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(store.issue("billing", seconds{0})), std::invalid_argument);
    EXPECT_EQ(database.records(), 1);
}

// ---- fences

TEST_F(SqliteLease, r4_3_the_fence_grows_across_expiry_pruning_deletion_clock_and_restart) {
    std::vector<std::uint64_t> fences;
    const auto claim = [&](Store& from) {
        fences.push_back(must_claim(from.claim(leased())).fence);
    };
    claim(store);
    ShiftedClock::advance(lease);
    claim(store);
    ShiftedClock::advance(seconds{2 * 604'800});
    EXPECT_EQ(store.prune(10), 1U);
    EXPECT_EQ(database.records(), 0);
    claim(store);
    database.plain().run("DELETE FROM idem_record");
    ShiftedClock::advance(-seconds{3 * 604'800});
    claim(store);
    Store restarted(database.path());
    database.plain().run("DELETE FROM idem_record");
    claim(restarted);
    ShiftedClock::advance(lease);
    database.plain().run("DELETE FROM idem_record_fence"); // the record itself still knows
    claim(restarted);
    for (std::size_t at = 1; at < fences.size(); ++at) {
        EXPECT_GT(fences[at], fences[at - 1]) << at;
    }
}

TEST_F(SqliteLease, a_joined_completion_leaves_the_fence_of_the_last_lease) {
    const auto old = must_claim(store.claim(leased()));
    ShiftedClock::advance(lease);
    auto tx = store.begin();
    EXPECT_TRUE(must_claim(tx.claim(leased())).takeover);
    tx.complete(leased(), "joined");
    tx.commit();
    EXPECT_EQ(store.find({"billing", "m-1"})->fence, old.fence);
    EXPECT_EQ(store.complete(old.ticket, "late"), TicketState::outdated);
    EXPECT_EQ(store.renew(old.ticket, lease), TicketState::outdated);
    EXPECT_EQ(store.park(old.ticket, "late"), TicketState::outdated);
}

// ---- the write lock

TEST_F(SqliteLease, r1_9_a_step_that_waits_past_the_deadline_is_unavailable) {
    Store hasty(database.path(), {.busy = milliseconds{60}});
    const auto mine = must_claim(hasty.claim(leased()));
    auto writer = store.begin();
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(fault_of([&] { static_cast<void>(hasty.renew(mine.ticket, lease)); }),
              Fault::unavailable);
    EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds{60});
    EXPECT_EQ(fault_of([&] { static_cast<void>(hasty.claim(leased("m-2"))); }), Fault::unavailable);
    EXPECT_EQ(fault_of([&] { static_cast<void>(hasty.complete(mine.ticket, "")); }),
              Fault::unavailable);
    hasty.abandon(mine.ticket, "best effort");
    writer.rollback();
    EXPECT_EQ(hasty.renew(mine.ticket, lease), TicketState::valid);
    EXPECT_EQ(hasty.complete(mine.ticket, ""), TicketState::valid);
}

TEST_F(SqliteLease, r1_9_what_a_look_decides_waits_for_nobody) {
    Store hasty(database.path(), {.busy = milliseconds{0}});
    const auto done = must_claim(store.claim(leased("done")));
    EXPECT_EQ(store.complete(done.ticket, "receipt"), TicketState::valid);
    static_cast<void>(must_claim(store.claim(leased("held"))));
    auto writer = store.begin();
    EXPECT_EQ(must_be<Completed>(hasty.claim(leased("done"))).result, "receipt");
    static_cast<void>(must_be<InProgress>(hasty.claim(leased("held"))));
    EXPECT_EQ(must_be<Refused>(hasty.claim(redeem("made up"))).reason, idem::reason::token_unknown);
}

TEST_F(SqliteLease, r4_6_a_key_of_an_open_transaction_is_in_progress_at_once_until_it_ends) {
    auto tx = store.begin();
    static_cast<void>(must_claim(tx.claim(leased())));
    static_cast<void>(must_be<InProgress>(store.claim(leased())));
    EXPECT_THROW(static_cast<void>(store.claim(leased("m-2"))), std::logic_error)
        << "it would wait for its own thread";
    tx.rollback();
    EXPECT_EQ(must_claim(store.claim(leased())).attempt, 1U);
    EXPECT_EQ(must_claim(store.claim(leased("m-2"))).attempt, 1U);
}

TEST_F(SqliteLease, r4_6_a_failure_beside_a_lease_touches_nothing) {
    const auto mine = must_claim(store.claim(leased()));
    store.record_failure(leased(), "not the owner");
    store.refund_failure(leased());
    const auto found = store.find({"billing", "m-1"});
    EXPECT_EQ(found->attempts, 1U);
    EXPECT_EQ(found->note, "");
    EXPECT_EQ(store.complete(mine.ticket, "done"), TicketState::valid);
}

TEST_F(SqliteLease, r4_6_a_claim_in_the_users_own_transaction_honours_a_lease) {
    const auto mine = must_claim(store.claim(leased()));
    auto plain = database.plain();
    plain.run("BEGIN IMMEDIATE");
    {
        auto tx = store.join(plain.native());
        static_cast<void>(must_be<InProgress>(tx.claim(leased())));
    }
    plain.run("ROLLBACK");
    EXPECT_EQ(store.complete(mine.ticket, ""), TicketState::valid);
}

// ---- operators

TEST_F(SqliteLease, a_record_shows_its_lease_and_is_not_touched_while_it_lasts) {
    const auto mine = must_claim(store.claim(leased()));
    const auto found = store.find({"billing", "m-1"});
    ASSERT_TRUE(found && found->lease_until);
    EXPECT_EQ(found->state, State::in_progress);
    EXPECT_EQ(found->fence, mine.fence);
    EXPECT_EQ(*found->lease_until - found->changed, lease);
    EXPECT_FALSE(store.revive({"billing", "m-1"}, by));
    EXPECT_FALSE(store.force_complete({"billing", "m-1"}, "forced", by));
    EXPECT_FALSE(store.erase({"billing", "m-1"}, by));
    ShiftedClock::advance(lease);
    EXPECT_TRUE(store.force_complete({"billing", "m-1"}, "forced", by));
    EXPECT_EQ(store.complete(mine.ticket, "late"), TicketState::outdated);
    EXPECT_EQ(must_be<Completed>(store.claim(leased())).result, "forced");
    EXPECT_FALSE(store.find({"billing", "m-1"})->lease_until);
}

TEST_F(SqliteLease, an_issued_token_is_listed_not_completed_and_erased_as_if_never_issued) {
    const auto token = store.issue("billing", seconds{60});
    const auto issued = store.list(State::issued, 10);
    ASSERT_EQ(issued.size(), 1U);
    EXPECT_EQ(issued[0].id, token);
    EXPECT_EQ(*issued[0].lease_until - issued[0].changed, seconds{60});
    EXPECT_FALSE(store.force_complete({"billing", token}, "forced", by));
    EXPECT_TRUE(store.erase({"billing", token}, by));
    EXPECT_FALSE(store.erase({"billing", token}, by));
    EXPECT_EQ(must_be<Refused>(store.claim(redeem(token))).reason, idem::reason::token_unknown);
    auto new_one = redeem(token);
    new_one.token_may_be_new = true;
    EXPECT_EQ(must_claim(store.claim(new_one)).attempt, 1U);
}

TEST_F(SqliteLease, r3_4_attempts_used_up_by_crashes_bury_the_record_where_operators_see_it) {
    auto asked = leased();
    asked.max_attempts = 2;
    for (unsigned attempt = 1; attempt <= 2; ++attempt) {
        EXPECT_EQ(must_claim(store.claim(asked)).attempt, attempt);
        ShiftedClock::advance(lease); // the owner was killed
    }
    EXPECT_EQ(store.list(State::dead, 10).size(), 0U);
    EXPECT_EQ(must_be<idem::Dead>(store.claim(asked)).attempts, 2U);
    EXPECT_EQ(store.list(State::dead, 10).size(), 1U);
    EXPECT_TRUE(store.revive(asked.key, by));
    const auto again = must_claim(store.claim(asked));
    EXPECT_EQ(again.attempt, 1U);
    EXPECT_FALSE(again.takeover);
}

TEST_F(SqliteLease, r4_4_a_record_under_a_lease_outlives_a_shorter_retention) {
    auto asked = leased();
    asked.retention = seconds{0};
    const auto mine = must_claim(store.claim(asked));
    EXPECT_EQ(store.prune(10), 0U);
    static_cast<void>(must_be<InProgress>(store.claim(asked)));
    EXPECT_EQ(store.renew(mine.ticket, 2 * lease), TicketState::valid);
    ShiftedClock::advance(lease);
    EXPECT_EQ(store.prune(10), 0U);
    EXPECT_EQ(store.complete(mine.ticket, ""), TicketState::valid);
    EXPECT_EQ(store.prune(10), 1U);
}

TEST_F(SqliteLease, r5_5_a_record_of_a_newer_format_is_unavailable_and_never_overwritten) {
    const auto mine = must_claim(store.claim(leased()));
    database.plain().run("UPDATE idem_record SET format = 2, expires = 1");
    EXPECT_EQ(fault_of([&] { static_cast<void>(store.claim(leased())); }), Fault::unavailable);
    EXPECT_EQ(store.complete(mine.ticket, "done"), TicketState::outdated);
    EXPECT_EQ(store.renew(mine.ticket, lease), TicketState::outdated);
    store.abandon(mine.ticket, "not given back");
    EXPECT_EQ(database.plain().text("SELECT format || state || attempts FROM idem_record"), "211");
}

TEST_F(SqliteLease, equal_keys_of_a_batch_are_refused_before_anything_is_written) {
    const std::vector<ClaimRequest> twice{leased(), leased("m-2"), leased()};
    EXPECT_THROW(static_cast<void>(store.claim(std::span(twice))), std::logic_error);
    EXPECT_EQ(database.records(), 0);
}

TEST_F(SqliteLease, a_trigger_that_swallows_the_record_is_rejected) {
    database.plain().run("CREATE TRIGGER swallow BEFORE INSERT ON idem_record "
                         "BEGIN SELECT RAISE(IGNORE); END");
    EXPECT_EQ(fault_of([&] { static_cast<void>(store.claim(leased())); }), Fault::rejected);
}

TEST_F(SqliteLease, verify_names_the_columns_and_the_table_that_a_former_schema_lacks) {
    const auto complaint = [&] {
        try {
            store.verify();
        } catch (const idem::StoreError& error) {
            EXPECT_EQ(error.fault(), Fault::rejected);
            return std::string(error.what());
        }
        return std::string();
    };
    EXPECT_EQ(complaint(), "");
    for (const char* column : {"lease_until", "fence", "owner", "holder"}) {
        database.plain().run(std::string("ALTER TABLE idem_record DROP COLUMN ") + column);
    }
    EXPECT_NE(complaint().find("lacks, or has another key in, lease_until, fence, owner, holder:"),
              std::string::npos)
        << complaint();
    EXPECT_EQ(fault_of([&] { static_cast<void>(store.claim(leased())); }), Fault::rejected);
    database.plain().run("DROP TABLE idem_record_fence; DROP TABLE idem_record");
    EXPECT_NE(complaint().find("table idem_record is missing: call migrate(); table "
                               "idem_record_fence is missing"),
              std::string::npos)
        << complaint();
    store.migrate();
    EXPECT_EQ(complaint(), "");
}

} // namespace
