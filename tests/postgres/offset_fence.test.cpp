// SPDX-License-Identifier: MIT
// Fence rows in PostgreSQL: moved with the effect, never back, never waited for (semantics.md 6.3).

#include <idem/broker/offset_keeper.hpp>
#include <idem/consumer.hpp>
#include <idem/strategy/offset_fence.hpp>

#include <atomic>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "behind_proxy.hpp"

namespace idem::postgres_test {

constexpr const char* partition = "cluster/orders/0";
const Position at_5{.partition = partition, .offset = 5};
const Position at_6{.partition = partition, .offset = 6};

struct Delivered {
    std::uint64_t offset = 0;
    bool redelivered = false;
};
inline Identity identity_of(const Delivered& message) {
    return {.id = message.offset,
            .position = Position{partition, message.offset},
            .redelivered = message.redelivered};
}

class PostgresFence : public PostgresBehindProxy {
protected:
    using Handle = std::function<void(PostgresTransaction&)>;

    Verdict deliver(PostgresStore& to, const Delivered& message, const Handle& handle = {}) {
        return IdempotentConsumer(to, OffsetFence{}, consuming_)
            .wrap("billing",
                  identity_of,
                  [&](const Delivered& delivered, PostgresTransaction& tx) {
                      ++runs_;
                      write_effect(tx, std::to_string(delivered.offset));
                      if (handle) {
                          handle(tx);
                      }
                  })
            .handle(message)
            .verdict();
    }
    Status status_of(const Delivered& message, const Handle& handle = {}) {
        return deliver(store(), message, handle).status;
    }
    /// The row, as others see it.
    std::string row() {
        return outside().run("SELECT handled || ' ' || attempts FROM idem_record_offset");
    }
    static void on_connection(PostgresTransaction& tx, const std::string& sql) {
        PQclear(PQexec(tx.native(), sql.c_str()));
    }

    ConsumerOptions consuming_{};
    unsigned runs_ = 0;
};

TEST_F(PostgresFence, r6_3_accepts_only_what_is_past_the_row_and_allows_gaps) {
    EXPECT_EQ(store().next("billing", partition), std::nullopt);
    EXPECT_EQ(status_of({5}), Status::executed);
    EXPECT_EQ(store().next("billing", partition), 6U);
    EXPECT_EQ(status_of({5}), Status::skipped);
    EXPECT_EQ(status_of({4}), Status::skipped);
    EXPECT_EQ(status_of({9}), Status::executed);
    EXPECT_EQ(row(), "9 0");
    EXPECT_EQ(effects(), 2);
    EXPECT_EQ(records(), 0);
    EXPECT_EQ(store().next("shipping", partition), std::nullopt) << "scopes never interact";
}

TEST_F(PostgresFence, row_and_effect_commit_together_or_not_at_all) {
    auto tx = store().begin();
    ASSERT_TRUE(is_claimed(tx.advance("billing", at_5)));
    write_effect(tx);
    EXPECT_EQ(effects(), 0);
    EXPECT_EQ(store().next("billing", partition), std::nullopt);
    tx.rollback();
    EXPECT_EQ(outside().number("SELECT count(*) FROM idem_record_offset"), 0);
    EXPECT_EQ(effects(), 0);
}

TEST_F(PostgresFence, an_uncommitted_row_of_another_session_is_in_progress_at_once) {
    for (const bool there : {false, true}) { // the row is made, or moved
        auto first = store().begin();
        ASSERT_TRUE(is_claimed(first.advance("billing", there ? at_6 : at_5)));
        auto second = store().begin();
        EXPECT_TRUE(is<InProgress>(second.advance("billing", at_6)));
        EXPECT_TRUE(
            is<InProgress>(second.advance("billing", {.partition = partition, .offset = 7})));
        EXPECT_TRUE(
            is_claimed(second.advance("billing", {.partition = "cluster/orders/1", .offset = 5})));
        second.rollback();
        first.commit();
    }
    EXPECT_EQ(row(), "6 0");
}

TEST_F(PostgresFence, what_is_handled_is_so_also_while_another_session_is_at_the_row) {
    ASSERT_EQ(status_of({5}), Status::executed);
    auto first = store().begin();
    ASSERT_TRUE(is_claimed(first.advance("billing", at_6)));
    EXPECT_EQ(status_of({5}), Status::skipped);
}

TEST_F(PostgresFence, threads_that_race_for_one_offset_are_one_effect) {
    for (std::uint64_t offset = 0; offset < 20; ++offset) {
        std::atomic<unsigned> executed = 0;
        std::vector<std::thread> threads;
        for (int thread = 0; thread < 4; ++thread) {
            threads.emplace_back([&] {
                auto tx = store().begin();
                if (is_claimed(tx.advance("billing", {.partition = partition, .offset = offset}))) {
                    write_effect(tx);
                    tx.commit();
                    ++executed;
                }
            });
        }
        for (auto& thread : threads) {
            thread.join();
        }
        EXPECT_EQ(executed, 1U);
    }
    EXPECT_EQ(effects(), 20);
    EXPECT_EQ(row(), "19 0");
}

TEST_F(PostgresFence, r3_4_failures_are_counted_in_the_row_and_end_in_dead) {
    consuming_.max_attempts = 2;
    const Handle fails = [](PostgresTransaction&) { throw std::runtime_error("no stock"); };
    ASSERT_EQ(status_of({4}), Status::executed);
    EXPECT_EQ(status_of({5}, fails), Status::failed);
    EXPECT_EQ(row(), "4 1");
    EXPECT_EQ(status_of({5}, fails), Status::failed);
    EXPECT_EQ(status_of({5}, fails), Status::dead);
    EXPECT_EQ(runs_, 3U);
    EXPECT_EQ(effects(), 1);
    FenceKeeper keeper(store(), "billing");
    EXPECT_EQ(keeper.next(partition), 5U);
    keeper.passed(at_5);
    keeper.passed(at_5);
    EXPECT_EQ(keeper.next(partition), 6U);
    keeper.passed({.partition = partition, .offset = 3}); // never backwards
    EXPECT_EQ(row(), "5 0");
    EXPECT_EQ(status_of({6}), Status::executed);
}

TEST_F(PostgresFence, a_first_message_that_dies_starts_nothing_before_it_was_passed) {
    consuming_.max_attempts = 1;
    const Handle fails = [](PostgresTransaction&) { throw std::runtime_error("no stock"); };
    EXPECT_EQ(status_of({5}, fails), Status::failed);
    EXPECT_EQ(store().next("billing", partition), std::nullopt) << "a row, and nothing handled";
    EXPECT_EQ(status_of({5}), Status::dead);
}

TEST_F(PostgresFence, r3_3_suspects_are_charged_and_refunded) {
    consuming_.max_attempts = 2;
    EXPECT_EQ(status_of({5, true}, [this](PostgresTransaction&) { EXPECT_EQ(row(), "-1 1"); }),
              Status::executed);
    EXPECT_EQ(status_of({5, true}), Status::skipped);
    EXPECT_EQ(status_of({6, true}, [](PostgresTransaction&) { throw RetryLater(milliseconds{1}); }),
              Status::failed);
    EXPECT_EQ(row(), "5 0");
    for (int crash = 0; crash < 2; ++crash) {
        store().record_failure("billing", at_6, "delivered again");
    }
    EXPECT_EQ(status_of({6, true}), Status::dead);
    EXPECT_EQ(row(), "5 2");
}

TEST_F(PostgresFence, r1_2_a_handler_that_commits_by_the_connection_is_found_out) {
    ASSERT_EQ(status_of({4}), Status::executed);
    EXPECT_EQ(status_of({5}, [](PostgresTransaction& tx) { on_connection(tx, "COMMIT; BEGIN"); }),
              Status::failed);
    EXPECT_EQ(row(), "4 1") << "what it committed stands without the row";
    EXPECT_EQ(status_of({5}, [](PostgresTransaction& tx) { on_connection(tx, "SELECT 1"); }),
              Status::executed);
    EXPECT_EQ(row(), "5 1");
    EXPECT_EQ(status_of({5}), Status::skipped);
}

TEST_F(PostgresFence, r1_5_above_read_committed_the_loser_runs_again) {
    options_.isolation = PostgresIsolation::serializable;
    PostgresStore strict(conninfo(), options_);
    ASSERT_EQ(deliver(strict, {4}).status, Status::executed);
    ASSERT_EQ(deliver(strict, {5}).status, Status::executed);
    EXPECT_EQ(deliver(strict, {5}).status, Status::skipped);
    EXPECT_EQ(effects(), 2);
}

TEST_F(PostgresFence, r1_6_joined_to_the_users_transaction_it_is_theirs_to_commit) {
    PGconn* user = PQconnectdb(conninfo().c_str());
    PQclear(PQexec(user, "BEGIN"));
    auto bill = IdempotentConsumer(store(), OffsetFence{})
                    .wrap("billing", identity_of, [](const Delivered&, PostgresTransaction& tx) {
                        write_effect(tx);
                    });
    EXPECT_EQ(bill.within(user, {5}).status(), Status::executed);
    EXPECT_EQ(bill.within(user, {5}).status(), Status::skipped);
    EXPECT_EQ(bill.within(user, {6}).status(), Status::executed);
    EXPECT_EQ(effects(), 0);
    PQclear(PQexec(user, "COMMIT"));
    PQfinish(user);
    EXPECT_EQ(effects(), 2);
    EXPECT_EQ(row(), "6 0");
}

TEST_F(PostgresFence, r2_1_a_link_cut_in_the_commit_is_read_back_from_the_row) {
    const auto deliver_behind = [&](std::uint64_t offset, std::optional<std::size_t> cut) {
        return deliver(behind(), {offset}, [&](PostgresTransaction& tx) {
            tx.execute("SELECT 1");
            if (cut) {
                proxy().arm(LinkProxy::Towards::client, *cut);
            }
        });
    };
    ASSERT_EQ(deliver_behind(1, std::nullopt).status, Status::executed);
    for (const std::size_t bytes : {0U, 3U, 11U}) {
        const auto offset = 2 + bytes;
        const auto verdict = deliver_behind(offset, bytes);
        EXPECT_TRUE(proxy().done());
        EXPECT_EQ(verdict.status, Status::executed) << "it committed, and the row says so";
        EXPECT_EQ(deliver_behind(offset, std::nullopt).status, Status::skipped);
    }
    EXPECT_EQ(effects(), 4);
    for (const std::size_t bytes : {0U, 7U}) { // the request did not arrive: it is run again
        const auto offset = 20 + bytes;
        const auto verdict =
            deliver(behind(), {offset}, [&, cut = false](PostgresTransaction& tx) mutable {
                tx.execute("SELECT 1");
                if (!std::exchange(cut, true)) {
                    proxy().arm(LinkProxy::Towards::server, bytes);
                }
            });
        EXPECT_EQ(verdict.status, Status::executed);
        EXPECT_EQ(outside().number("SELECT count(*) FROM effect WHERE id = '" +
                                   std::to_string(offset) + "'"),
                  1);
    }
}

TEST_F(PostgresFence, verify_and_migrate_know_the_table) {
    outside().run("DROP TABLE idem_record_offset");
    const auto missing = thrown<StoreError>([&] { store().verify(); });
    ASSERT_TRUE(missing);
    EXPECT_NE(std::string(missing->what()).find("idem_record_offset is missing"),
              std::string::npos);
    const auto refused = thrown<StoreError>([&] {
        auto tx = store().begin();
        static_cast<void>(tx.advance("billing", at_5));
    });
    ASSERT_TRUE(refused);
    EXPECT_EQ(refused->fault(), Fault::rejected);
    store().migrate();
    store().verify();
    outside().run("ALTER TABLE idem_record_offset ALTER handled TYPE numeric");
    const auto wrong = thrown<StoreError>([&] { store().verify(); });
    ASSERT_TRUE(wrong);
    EXPECT_NE(std::string(wrong->what()).find("handled must be bigint, is numeric"),
              std::string::npos);
}

TEST_F(PostgresFence, a_message_costs_two_trips_and_a_duplicate_two) {
    const auto trips_of = [&](std::uint64_t offset) {
        const auto before = proxy().trips();
        auto tx = behind().begin();
        if (is_claimed(tx.advance("billing", {.partition = partition, .offset = offset}))) {
            tx.commit();
        }
        tx.rollback();
        return proxy().trips() - before;
    };
    trips_of(1);
    EXPECT_EQ(trips_of(2), 2U);
    EXPECT_EQ(trips_of(2), 2U);
    EXPECT_EQ(trips_of(3), 2U);
}

} // namespace idem::postgres_test
