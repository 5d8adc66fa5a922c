// SPDX-License-Identifier: MIT
// Fence rows in SQLite: moved with the effect, never back (semantics.md 6.3).

#include <idem/broker/offset_keeper.hpp>
#include <idem/consumer.hpp>
#include <idem/store/sqlite.hpp>
#include <idem/strategy/offset_fence.hpp>

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>

#include "sqlite/database.hpp"
#include "sqlite/faulty_vfs.hpp"

namespace {

using idem::Fault;
using idem::Status;
using idem::testing_support::Faults;

constexpr const char* partition = "cluster/orders/0";

struct Delivered {
    std::uint64_t offset = 0;
    bool redelivered = false;
};
idem::Identity identity_of(const Delivered& message) {
    return {.id = message.offset,
            .position = idem::Position{partition, message.offset},
            .redelivered = message.redelivered};
}
idem::Position at(std::uint64_t offset) {
    return {.partition = partition, .offset = offset};
}

class SqliteFence : public ::testing::Test {
protected:
    using Handle = std::function<void(idem::SqliteTransaction&)>;

    SqliteFence() {
        idem::testing_support::register_faulty_vfs();
        Faults::none();
        store.emplace("file:" + database.path() + "?vfs=faulty",
                      idem::SqliteOptions{.busy = idem::milliseconds{200}});
        store->migrate();
    }
    void TearDown() override { Faults::none(); }

    auto wrapped(const Handle& handle = {}) {
        return idem::IdempotentConsumer(*store, idem::OffsetFence{}, consuming)
            .wrap("billing",
                  identity_of,
                  [&, handle](const Delivered& message, idem::SqliteTransaction& tx) {
                      ++runs;
                      tx.execute("INSERT INTO effect VALUES (?)", message.offset);
                      if (handle) {
                          handle(tx);
                      }
                  });
    }
    idem::Verdict deliver(const Delivered& message, const Handle& handle = {}) {
        return wrapped(handle).handle(message).verdict();
    }
    Status status_of(const Delivered& message, const Handle& handle = {}) {
        return deliver(message, handle).status;
    }
    std::string row() {
        return database.plain().text("SELECT handled || ' ' || attempts FROM idem_record_offset");
    }

    idem::testing_support::TestDatabase database;
    std::optional<idem::SqliteStore> store;
    idem::ConsumerOptions consuming{};
    unsigned runs = 0;
};

const auto fails = [](idem::SqliteTransaction&) { throw std::runtime_error("no stock"); };

TEST_F(SqliteFence, r6_3_accepts_only_what_is_past_the_row_and_allows_gaps) {
    EXPECT_EQ(store->next("billing", partition), std::nullopt);
    EXPECT_EQ(status_of({5}), Status::executed);
    EXPECT_EQ(store->next("billing", partition), 6U);
    EXPECT_EQ(status_of({5}), Status::skipped);
    EXPECT_EQ(status_of({4}), Status::skipped);
    EXPECT_EQ(status_of({9}), Status::executed);
    EXPECT_EQ(row(), "9 0");
    EXPECT_EQ(database.effects(), 2);
    EXPECT_EQ(database.records(), 0);
    EXPECT_EQ(store->next("shipping", partition), std::nullopt);
}

TEST_F(SqliteFence, row_and_effect_commit_together_or_not_at_all) {
    {
        auto tx = store->begin();
        static_cast<void>(tx.advance("billing", at(5)));
        tx.execute("INSERT INTO effect VALUES (5)");
    }
    EXPECT_EQ(store->next("billing", partition), std::nullopt);
    EXPECT_EQ(database.effects(), 0);
}

TEST_F(SqliteFence, r3_4_failures_are_counted_in_the_row_and_end_in_dead) {
    consuming.max_attempts = 2;
    ASSERT_EQ(status_of({4}), Status::executed);
    EXPECT_EQ(status_of({5}, fails), Status::failed);
    EXPECT_EQ(row(), "4 1");
    EXPECT_EQ(status_of({5}, fails), Status::failed);
    EXPECT_EQ(status_of({5}, fails), Status::dead);
    EXPECT_EQ(runs, 3U);
    EXPECT_EQ(database.effects(), 1);
    idem::FenceKeeper keeper(*store, "billing");
    keeper.passed(at(5));
    keeper.passed(at(5));
    keeper.passed(at(3));
    EXPECT_EQ(keeper.next(partition), 6U);
    EXPECT_EQ(status_of({6}), Status::executed);
}

TEST_F(SqliteFence, a_row_with_failures_only_says_nothing_of_where_to_start) {
    store->record_failure("billing", at(5), "no stock");
    EXPECT_EQ(row(), "-1 1");
    EXPECT_EQ(store->next("billing", partition), std::nullopt);
}

TEST_F(SqliteFence, r3_3_suspects_are_charged_and_refunded) {
    consuming.max_attempts = 2;
    EXPECT_EQ(status_of({5, true}), Status::executed);
    EXPECT_EQ(status_of({5, true}), Status::skipped);
    EXPECT_EQ(
        status_of({6, true},
                  [](idem::SqliteTransaction&) { throw idem::RetryLater(idem::milliseconds{1}); }),
        Status::failed);
    EXPECT_EQ(row(), "5 0");
    for (int crash = 0; crash < 2; ++crash) {
        store->record_failure("billing", at(6), "delivered again");
    }
    EXPECT_EQ(status_of({6, true}), Status::dead);
    EXPECT_EQ(row(), "5 2");
}

TEST_F(SqliteFence, r1_9_a_busy_writer_is_unavailable_and_nothing_is_counted) {
    auto other = database.plain();
    other.run("BEGIN IMMEDIATE");
    EXPECT_EQ(deliver({5}).fault, Fault::unavailable);
    other.run("COMMIT");
    EXPECT_EQ(runs, 0U);
    EXPECT_EQ(status_of({5}), Status::executed);
    EXPECT_EQ(row(), "5 0");
}

TEST_F(SqliteFence, r2_1_a_commit_that_fails_is_decided_by_the_row) {
    ASSERT_EQ(status_of({4}), Status::executed);
    const auto other = database.plain(); // its log stays
    const auto full = deliver({5}, [](idem::SqliteTransaction&) { Faults::log_write = 1'000; });
    Faults::none();
    EXPECT_EQ(full.fault, Fault::unavailable);
    EXPECT_EQ(row(), "4 0");
    const auto absent = deliver({5}, [](idem::SqliteTransaction&) { Faults::log_sync = 1; });
    EXPECT_EQ(absent.fault, Fault::unavailable) << "absence was proved by a write";
    const auto doubt = deliver({5}, [](idem::SqliteTransaction&) { Faults::log_sync = 1'000; });
    Faults::none();
    EXPECT_EQ(doubt.fault, Fault::in_doubt);
    EXPECT_EQ(status_of({5}), Status::executed) << "the retry";
    EXPECT_EQ(status_of({5}), Status::skipped);
    EXPECT_EQ(database.effects(), 2);
}

TEST_F(SqliteFence, r1_6_joined_to_the_users_transaction_it_is_theirs_to_commit) {
    auto user = database.plain();
    user.run("BEGIN");
    auto bill = wrapped();
    EXPECT_EQ(bill.within(user.native(), {5}).status(), Status::executed);
    EXPECT_EQ(bill.within(user.native(), {5}).status(), Status::skipped);
    EXPECT_EQ(bill.within(user.native(), {6}).status(), Status::executed);
    EXPECT_EQ(database.effects(), 0);
    user.run("COMMIT");
    EXPECT_EQ(database.effects(), 2);
    EXPECT_EQ(row(), "6 0");
}

TEST_F(SqliteFence, verify_and_migrate_know_the_table) {
    database.plain().run("DROP TABLE idem_record_offset");
    try {
        store->verify();
        ADD_FAILURE();
    } catch (const idem::StoreError& error) {
        EXPECT_NE(std::string(error.what()).find("idem_record_offset is missing"),
                  std::string::npos);
    }
    EXPECT_EQ(deliver({5}).fault, Fault::rejected);
    store->migrate();
    store->verify();
    EXPECT_EQ(status_of({5}), Status::executed);
}

} // namespace
