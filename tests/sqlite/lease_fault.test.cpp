// SPDX-License-Identifier: MIT
// Steps of a lease whose COMMIT fails: what is known of them, and what a crash right after leaves.

#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "sqlite/database.hpp"
#include "sqlite/faulty_vfs.hpp"

namespace {

using idem::Claimed;
using idem::ClaimRequest;
using idem::Completed;
using idem::Fault;
using idem::milliseconds;
using idem::SqliteTicket;
using idem::TicketState;
using idem::testing_support::Faults;

class SqliteLeaseFault : public ::testing::Test {
protected:
    SqliteLeaseFault() {
        idem::testing_support::register_faulty_vfs();
        Faults::none();
        store.emplace("file:" + database.path() + "?vfs=faulty",
                      idem::SqliteOptions{.busy = milliseconds{200}});
        store->migrate();
        // Another process has the file open and has written: there is a log, and it stays when a
        // connection of the store is closed.
        other.run("CREATE TABLE others (x)");
    }
    void TearDown() override { Faults::none(); }

    static ClaimRequest leased(std::string_view id = "m-1") {
        return {.key = {"billing", id}, .lease = milliseconds{60'000}};
    }
    Claimed<SqliteTicket> claim(std::string_view id = "m-1") {
        return std::get<0>(store->claim(leased(id)));
    }
    template <class Work>
    std::optional<Fault> fault_of(const Work& work) {
        try {
            work();
            return std::nullopt;
        } catch (const idem::StoreError& error) {
            what = error.what();
            return error.fault();
        }
    }
    /// COMMIT happens by the removal of a journal, so that it can fail after it happened.
    void use_rollback_journal() {
        store.emplace("file:" + database.path() + "?vfs=faulty",
                      idem::SqliteOptions{.busy = milliseconds{200}});
        ASSERT_EQ(other.text("PRAGMA journal_mode = DELETE"), "delete");
    }
    std::string states(const std::string& path) {
        idem::testing_support::PlainConnection plain(path);
        return plain.text("SELECT coalesce(group_concat(id || ':' || state || ':' || attempts), "
                          "'none') FROM idem_record");
    }
    std::string states() { return states(database.path()); }
    /// What recovery finds if the machine crashes now: the index of the log is lost, and all that
    /// was written is on the disk.
    std::string after_crash(const std::string& name) {
        namespace fs = std::filesystem;
        const auto copy = database.beside(name);
        fs::copy_file(database.path(), copy);
        fs::copy_file(database.path() + "-wal", copy + "-wal");
        return states(copy);
    }

    idem::testing_support::TestDatabase database;
    std::optional<idem::SqliteStore> store;
    idem::testing_support::PlainConnection other{database.path()};
    std::string what;
};

TEST_F(SqliteLeaseFault, r2_2_a_claim_whose_commit_did_not_happen_is_unavailable_and_not_won) {
    Faults::log_sync = 1;
    EXPECT_EQ(fault_of([&] { claim(); }), Fault::unavailable);
    EXPECT_NE(what.find("nothing of it happened"), std::string::npos) << what;
    EXPECT_EQ(states(), "none");
    EXPECT_EQ(after_crash("copy.db"), "none") << "the frames of the failed COMMIT came back";
    const auto mine = claim();
    EXPECT_EQ(mine.attempt, 1U);
    EXPECT_EQ(store->complete(mine.ticket, "done"), TicketState::valid);
}

TEST_F(SqliteLeaseFault, r2_2_a_claim_whose_commit_happened_is_found_by_its_nonce) {
    use_rollback_journal();
    Faults::journal_removed = 1;
    const auto mine = claim();
    EXPECT_EQ(Faults::journal_removed, 0) << "its COMMIT was answered by an error";
    EXPECT_EQ(mine.attempt, 1U);
    EXPECT_EQ(states(), "m-1:1:1");
    EXPECT_EQ(store->complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_EQ(std::get<Completed>(store->claim(leased())).result, "done");
}

TEST_F(SqliteLeaseFault, r2_2_a_claim_in_doubt_is_unavailable_and_its_lease_ends_by_itself) {
    Faults::log_sync = 1'000;
    EXPECT_EQ(fault_of([&] { claim(); }), Fault::unavailable) << "no handler may run";
    EXPECT_NE(what.find("until its lease ends"), std::string::npos) << what;
    Faults::none();
    EXPECT_EQ(claim().attempt, 1U);
}

TEST_F(SqliteLeaseFault, r2_2_a_batch_whose_commit_did_not_happen_won_nothing) {
    const std::vector<ClaimRequest> asked{leased("m-1"), leased("m-2"), leased("m-3")};
    Faults::log_sync = 1;
    EXPECT_EQ(fault_of([&] { static_cast<void>(store->claim(std::span(asked))); }),
              Fault::unavailable);
    EXPECT_EQ(states(), "none");
    use_rollback_journal();
    Faults::journal_removed = 1;
    for (const auto& answer : store->claim(std::span(asked))) {
        EXPECT_EQ(std::get<0>(answer).attempt, 1U) << "happened: all are won";
    }
    EXPECT_EQ(states(), "m-1:1:1,m-2:1:1,m-3:1:1");
}

TEST_F(SqliteLeaseFault, r2_3_a_completion_whose_commit_did_not_happen_is_harmless_to_repeat) {
    const auto mine = claim();
    Faults::log_sync = 1;
    EXPECT_EQ(fault_of([&] { static_cast<void>(store->complete(mine.ticket, "done")); }),
              Fault::unavailable);
    EXPECT_EQ(states(), "m-1:1:1");
    EXPECT_EQ(store->complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_EQ(std::get<Completed>(store->claim(leased())).result, "done");
}

TEST_F(SqliteLeaseFault, r2_3_a_completion_whose_commit_happened_is_valid) {
    const auto mine = claim();
    use_rollback_journal();
    Faults::journal_removed = 1;
    EXPECT_EQ(store->complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_EQ(Faults::journal_removed, 0);
    EXPECT_EQ(std::get<Completed>(store->claim(leased())).result, "done");
}

TEST_F(SqliteLeaseFault, r2_3_a_completion_that_cannot_be_told_is_in_doubt_and_the_doubt_is_real) {
    const auto mine = claim();
    Faults::log_sync = 1;
    Faults::open = 1'000;
    EXPECT_EQ(fault_of([&] { static_cast<void>(store->complete(mine.ticket, "done")); }),
              Fault::in_doubt);
    Faults::none();
    EXPECT_EQ(states(), "m-1:1:1") << "and yet:";
    EXPECT_EQ(after_crash("copy.db"), "m-1:2:1");
    EXPECT_EQ(store->complete(mine.ticket, "done"), TicketState::valid) << "the repetition";
    EXPECT_EQ(after_crash("again.db"), "m-1:2:1");
}

TEST_F(SqliteLeaseFault, a_renewal_a_parking_and_an_issue_say_what_became_of_them) {
    const auto mine = claim();
    const auto renew = [&] { static_cast<void>(store->renew(mine.ticket, idem::seconds{90})); };
    Faults::log_sync = 1;
    EXPECT_EQ(fault_of(renew), Fault::unavailable);
    Faults::log_sync = 1'000;
    EXPECT_EQ(fault_of(renew), Fault::in_doubt);
    EXPECT_EQ(fault_of([&] { static_cast<void>(store->park(mine.ticket, "why")); }),
              Fault::in_doubt);
    EXPECT_EQ(fault_of([&] { static_cast<void>(store->issue("billing", idem::seconds{60})); }),
              Fault::unavailable);
    store->abandon(mine.ticket, "best effort");
    Faults::none();
    EXPECT_EQ(states(), "m-1:1:1");
    use_rollback_journal();
    Faults::journal_removed = 1;
    EXPECT_EQ(store->renew(mine.ticket, idem::seconds{90}), TicketState::valid);
    Faults::journal_removed = 1;
    EXPECT_EQ(store->park(mine.ticket, "why"), TicketState::valid);
    EXPECT_EQ(store->park(mine.ticket, "why"), TicketState::valid) << "repeated";
    Faults::journal_removed = 1;
    const auto token = store->issue("billing", idem::seconds{60});
    EXPECT_EQ(Faults::journal_removed, 0);
    EXPECT_TRUE(std::holds_alternative<Claimed<SqliteTicket>>(
        store->claim({.key = {"billing", "m-2"}, .token = token})));
}

TEST_F(SqliteLeaseFault, r2_3_distributed_lock_repeats_a_completion_and_runs_the_handler_once) {
    unsigned runs = 0;
    const auto charge = idem::IdempotentConsumer(*store, idem::DistributedLock{})
                            .wrap(
                                "billing",
                                [](const std::string& id) { return id; },
                                [&](const std::string& id) {
                                    ++runs;
                                    (id == "short" ? Faults::log_sync : Faults::open) = 1;
                                    Faults::log_sync = 1;
                                    return 7;
                                });
    for (const char* id : {"short", "in doubt"}) {
        EXPECT_EQ(charge(id).status(), idem::Status::executed) << id;
        EXPECT_EQ(Faults::log_sync, 0) << "its first COMMIT failed";
        EXPECT_EQ(charge(id).status(), idem::Status::replayed) << id;
        EXPECT_EQ(charge(id).value(), 7) << id;
    }
    EXPECT_EQ(runs, 2U);
}

} // namespace
