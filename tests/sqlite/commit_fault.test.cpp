// SPDX-License-Identifier: MIT
// A COMMIT that fails: what is known of it, and what a crash right after it leaves.

#include <idem/store/sqlite.hpp>

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>

#include "sqlite/database.hpp"
#include "sqlite/faulty_vfs.hpp"

namespace {

using idem::Fault;
using idem::testing_support::Faults;

constexpr idem::Key key{"billing", "m-1"};

class SqliteCommit : public ::testing::Test {
protected:
    SqliteCommit() {
        idem::testing_support::register_faulty_vfs();
        Faults::none();
        store.emplace("file:" + database.path() + "?vfs=faulty",
                      idem::SqliteOptions{.busy = idem::milliseconds{200}});
        store->migrate();
        // Another process has the file open and has written: there is a log, and it stays when a
        // connection of the store is closed.
        other.run("CREATE TABLE others (x)");
    }
    void TearDown() override { Faults::none(); }

    /// An effect and its record, up to the COMMIT, where `faults` are switched on.
    template <class Switch>
    std::optional<Fault> handle(const Switch& faults) {
        auto tx = store->begin();
        static_cast<void>(tx.claim({.key = key}));
        tx.execute("INSERT INTO effect VALUES ('m-1')");
        tx.complete({.key = key}, "done");
        faults();
        try {
            tx.commit();
            return std::nullopt;
        } catch (const idem::StoreError& error) {
            what = error.what();
            EXPECT_FALSE(tx.conflicted());
            return error.fault();
        }
    }
    /// Effects and records that recovery finds if the machine crashes now: the index of the log is
    /// lost, and all that was written is on the disk.
    std::string after_crash(const std::string& name) {
        namespace fs = std::filesystem;
        const auto copy = database.beside(name);
        fs::copy_file(database.path(), copy);
        fs::copy_file(database.path() + "-wal", copy + "-wal");
        idem::testing_support::PlainConnection recovered(copy);
        return recovered.text("SELECT (SELECT count(*) FROM effect) || ' effects, ' || "
                              "(SELECT count(*) FROM idem_record) || ' records'");
    }

    idem::testing_support::TestDatabase database;
    std::optional<idem::SqliteStore> store;
    idem::testing_support::PlainConnection other{database.path()};
    std::string what;
};

TEST_F(SqliteCommit, a_full_disk_at_commit_is_unavailable_and_nothing_happened) {
    EXPECT_EQ(handle([] { Faults::log_write = 1'000; }), Fault::unavailable);
    EXPECT_NE(what.find("free some space"), std::string::npos) << what;
    Faults::none();
    EXPECT_EQ(database.effects() + database.records(), 0);
    EXPECT_EQ(after_crash("copy.db"), "0 effects, 0 records");
    EXPECT_EQ(handle([] {}), std::nullopt);
    EXPECT_EQ(database.effects(), 1);
}

TEST_F(SqliteCommit, r2_1_absence_after_a_failed_sync_is_proved_by_a_write) {
    EXPECT_EQ(handle([] { Faults::log_sync = 1; }), Fault::unavailable);
    EXPECT_NE(what.find("nothing of it happened"), std::string::npos) << what;
    EXPECT_EQ(database.effects() + database.records(), 0);
    EXPECT_EQ(after_crash("copy.db"), "0 effects, 0 records")
        << "the frames of the failed COMMIT came back";
    EXPECT_EQ(handle([] {}), std::nullopt);
    EXPECT_EQ(database.effects(), 1);
}

TEST_F(SqliteCommit, r2_1_where_that_write_fails_too_it_is_in_doubt) {
    EXPECT_EQ(handle([] { Faults::log_sync = 1'000; }), Fault::in_doubt);
    Faults::none();
    EXPECT_EQ(handle([] {}), std::nullopt) << "the retry";
    EXPECT_EQ(database.effects(), 1);
    EXPECT_EQ(after_crash("copy.db"), "1 effects, 1 records");
}

TEST_F(SqliteCommit, r2_1_where_reading_back_fails_it_is_in_doubt) {
    EXPECT_EQ(handle([] {
                  Faults::log_sync = 1;
                  Faults::open = 1'000;
              }),
              Fault::in_doubt);
    Faults::none();
    EXPECT_EQ(database.effects() + database.records(), 0) << "and yet:";
    EXPECT_EQ(after_crash("copy.db"), "1 effects, 1 records") << "the doubt is real";
    EXPECT_EQ(handle([] {}), std::nullopt) << "the retry";
    EXPECT_EQ(database.effects(), 1);
    EXPECT_EQ(after_crash("again.db"), "1 effects, 1 records");
}

TEST_F(SqliteCommit, r2_1_without_a_record_of_its_own_it_is_in_doubt) {
    auto tx = store->begin();
    tx.execute("INSERT INTO effect VALUES ('m-1')");
    Faults::log_sync = 1;
    try {
        tx.commit();
        ADD_FAILURE();
    } catch (const idem::StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::in_doubt);
    }
}

TEST_F(SqliteCommit, a_failed_write_is_unavailable_and_nothing_happened) {
    Faults::write_code = SQLITE_IOERR_WRITE;
    EXPECT_EQ(handle([] { Faults::log_write = 1; }), Fault::unavailable);
    Faults::write_code = SQLITE_FULL;
    EXPECT_EQ(database.effects() + database.records(), 0);
    EXPECT_EQ(after_crash("copy.db"), "0 effects, 0 records");
    EXPECT_EQ(handle([] {}), std::nullopt);
    EXPECT_EQ(database.effects(), 1);
}

TEST_F(SqliteCommit, record_failure_is_best_effort) {
    Faults::log_sync = 1'000;
    store->record_failure({.key = key}, "failed");
    Faults::none();
    EXPECT_EQ(database.records(), 0);
    store->record_failure({.key = key}, "failed");
    EXPECT_EQ(database.records(), 1);
}

} // namespace
