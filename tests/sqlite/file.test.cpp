// SPDX-License-Identifier: MIT
// What can be wrong with the file, the table and the records in it: each an error that says what to
// do.

#include <idem/store/sqlite.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <variant>
#include <vector>

#include "sqlite/database.hpp"

namespace {

using idem::Fault;
using idem::SqliteStore;
using idem::StoreError;
using idem::testing_support::TestDatabase;

constexpr idem::Key key{"billing", "m-1"};

/// Whether `work` throws a StoreError of that fault whose text names `what`.
template <class Work>
void expect_fault(Fault fault, const std::string& what, const Work& work) {
    try {
        work();
        ADD_FAILURE() << "no StoreError that says: " << what;
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), fault) << error.what();
        EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
}

void execute_one(SqliteStore& store) {
    auto tx = store.begin();
    static_cast<void>(tx.claim({.key = key}));
    tx.execute("INSERT INTO effect VALUES ('m-1')");
    tx.complete({.key = key}, "done");
    tx.commit();
}

TEST(SqliteFile, a_path_without_a_file_of_its_own_and_a_bad_table_name_are_refused) {
    EXPECT_THROW(SqliteStore(":memory:"), std::invalid_argument);
    EXPECT_THROW(SqliteStore(""), std::invalid_argument);
    for (const char* table :
         {"", "1st", "idem record", "a\"; DROP TABLE effect; --", "main.idem"}) {
        EXPECT_THROW(SqliteStore("shop.db", {.table = table}), std::invalid_argument) << table;
        EXPECT_THROW(static_cast<void>(SqliteStore::schema_sql({.table = table})),
                     std::invalid_argument)
            << table;
    }
}

TEST(SqliteFile, a_missing_file_is_rejected_and_not_made) {
    const TestDatabase database;
    for (const auto& path : {database.beside("typo.db"), database.beside("no/such/folder.db")}) {
        SqliteStore store{path};
        expect_fault(Fault::rejected, "migrate()", [&] { static_cast<void>(store.begin()); });
        expect_fault(Fault::rejected, path, [&] { store.verify(); });
        EXPECT_FALSE(std::filesystem::exists(path));
    }
    SqliteStore store{database.beside("made.db")};
    store.migrate();
    EXPECT_NO_THROW(store.verify());
}

TEST(SqliteFile, a_folder_is_rejected) {
    const TestDatabase database;
    std::filesystem::create_directory(database.beside("folder"));
    SqliteStore store{database.beside("folder")};
    expect_fault(Fault::rejected, "folder", [&] { static_cast<void>(store.begin()); });
}

TEST(SqliteFile, a_missing_table_is_rejected_by_every_call_that_needs_it) {
    const TestDatabase database;
    SqliteStore store{database.path()};
    expect_fault(Fault::rejected, "migrate()", [&] { execute_one(store); });
    expect_fault(
        Fault::rejected, "migrate()", [&] { static_cast<void>(store.peek({.key = key})); });
    expect_fault(Fault::rejected, "idem_record", [&] { store.verify(); });
    EXPECT_EQ(database.effects(), 0);
    store.migrate();
    execute_one(store);
    EXPECT_EQ(database.effects(), 1);
}

TEST(SqliteFile, a_foreign_table_of_the_name_is_rejected_and_kept) {
    const TestDatabase database;
    database.plain().run("CREATE TABLE idem_record (scope TEXT, id TEXT, mine INTEGER)");
    SqliteStore store{database.path()};
    store.migrate();
    expect_fault(Fault::rejected, "fingerprint", [&] { store.verify(); });
    expect_fault(Fault::rejected, "verify()", [&] { execute_one(store); });
    EXPECT_EQ(database.effects(), 0);
    EXPECT_EQ(database.plain().number("SELECT count(mine) FROM idem_record"), 0);
}

TEST(SqliteFile, what_is_no_database_is_rejected_and_not_overwritten) {
    const TestDatabase database;
    const auto path = database.beside("letter.txt");
    const std::string text(5'000, 'x');
    std::ofstream(path) << text;
    SqliteStore store{path};
    expect_fault(Fault::rejected, "no SQLite database", [&] { static_cast<void>(store.begin()); });
    expect_fault(Fault::rejected, "no SQLite database", [&] { store.migrate(); });
    std::ifstream file(path);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), text);
}

TEST(SqliteFile, a_damaged_file_is_rejected) {
    const TestDatabase database;
    SqliteStore(database.path()).migrate();
    const auto page = database.plain().number("SELECT rootpage FROM sqlite_schema WHERE name = "
                                              "'idem_record'");
    database.plain().run("PRAGMA wal_checkpoint(TRUNCATE)");
    {
        std::fstream file(database.path(), std::ios::in | std::ios::out | std::ios::binary);
        file.seekp((page - 1) * 4'096);
        file << std::string(4'096, 'x');
    }
    SqliteStore store{database.path()};
    expect_fault(Fault::rejected, "damaged", [&] { execute_one(store); });
}

/// Whoever is root may write everywhere: another user for as long as this lives.
class PlainUser {
public:
    PlainUser() { change(65'534); }
    ~PlainUser() { change(0); }
    PlainUser(PlainUser&&) = delete;
    PlainUser(const PlainUser&) = delete;
    PlainUser& operator=(PlainUser&&) = delete;
    PlainUser& operator=(const PlainUser&) = delete;

private:
    bool root_ = ::getuid() == 0;
    void change(uid_t user) const {
        if (root_ && ::seteuid(user) != 0) {
            std::abort();
        }
    }
};

TEST(SqliteFile, a_read_only_file_is_rejected_before_the_handler_runs) {
    const TestDatabase database;
    SqliteStore(database.path()).migrate();
    namespace fs = std::filesystem;
    const auto folder = fs::path(database.path()).parent_path();
    fs::permissions(database.path(), fs::perms::owner_read | fs::perms::others_read);
    fs::permissions(folder,
                    fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read |
                        fs::perms::others_exec);
    {
        const PlainUser user;
        SqliteStore store{database.path()};
        expect_fault(
            Fault::rejected, "write permission", [&] { static_cast<void>(store.begin()); });
        expect_fault(Fault::rejected, "", [&] { store.verify(); });
        store.record_failure({.key = key}, "not counted, and no exception");
    }
    fs::permissions(folder, fs::perms::owner_all);
    fs::permissions(database.path(), fs::perms::owner_read | fs::perms::owner_write);
    EXPECT_EQ(database.records(), 0);
}

TEST(SqliteFile, a_database_opened_read_only_is_rejected_before_the_handler_runs) {
    const TestDatabase database;
    SqliteStore(database.path()).migrate();
    SqliteStore store{"file:" + database.path() + "?mode=ro"};
    expect_fault(Fault::rejected, "read-only", [&] { static_cast<void>(store.begin()); });
    expect_fault(Fault::rejected, "read-only", [&] { store.verify(); });
    EXPECT_EQ(database.records(), 0);
}

TEST(SqliteFile, a_full_database_file_is_unavailable_and_never_charged) {
    const TestDatabase database;
    SqliteStore store{database.path(), {.on_open = "PRAGMA max_page_count = 8"}};
    store.migrate();
    database.plain().run("CREATE TABLE big (x)");
    auto tx = store.begin();
    static_cast<void>(tx.claim({.key = key}));
    tx.execute("INSERT INTO effect VALUES ('m-1')");
    try {
        tx.execute("INSERT INTO big VALUES (zeroblob(1000000))");
        ADD_FAILURE() << "a million bytes went into eight pages";
    } catch (const idem::SqliteError& error) {
        EXPECT_EQ(idem::detail::primary_code(error.code()), SQLITE_FULL);
    }
    EXPECT_TRUE(tx.conflicted()) << "the disk's fault, not the handler's";
    tx.rollback();
    auto other = store.begin();
    static_cast<void>(other.claim({.key = key}));
    expect_fault(Fault::unavailable, "full", [&] {
        other.complete({.key = key}, std::string(1'000'000, 'x'));
    });
    other.rollback();
    EXPECT_EQ(database.effects() + database.records(), 0);
    execute_one(store);
    EXPECT_EQ(database.effects(), 1);
}

TEST(SqliteFile, migrate_by_ten_threads_with_a_store_each) {
    const TestDatabase database;
    const auto path = database.beside("new.db");
    std::atomic<int> failed{0};
    {
        std::vector<std::jthread> threads;
        threads.reserve(10);
        for (int number = 0; number < 10; ++number) {
            threads.emplace_back([&] {
                try {
                    SqliteStore store{path, {.busy = idem::milliseconds{60'000}}};
                    store.migrate();
                    store.migrate();
                    store.verify();
                } catch (const std::exception& error) {
                    ++failed;
                    ADD_FAILURE() << error.what();
                }
            });
        }
    }
    EXPECT_EQ(failed, 0);
}

TEST(SqliteFile, schema_sql_is_what_migrate_runs) {
    const TestDatabase database;
    database.plain().run(SqliteStore::schema_sql({.table = "mine"}));
    SqliteStore store{database.path(), {.table = "mine"}};
    EXPECT_NO_THROW(store.verify());
    execute_one(store);
    EXPECT_EQ(database.plain().number("SELECT count(*) FROM mine"), 1);
}

TEST(SqliteFile, r1_9_verify_names_a_journal_mode_other_than_wal) {
    const TestDatabase database;
    SqliteStore store{database.path()};
    store.migrate();
    EXPECT_EQ(database.plain().text("PRAGMA journal_mode"), "wal");
    database.plain().run("PRAGMA journal_mode = DELETE");
    expect_fault(Fault::rejected, "delete", [&] { store.verify(); });
    execute_one(store);
    EXPECT_EQ(database.effects(), 1) << "slower, and right all the same";
}

TEST(SqliteFile, r5_5_a_record_of_a_newer_format_is_unavailable_and_never_overwritten) {
    const TestDatabase database;
    SqliteStore store{database.path()};
    store.migrate();
    execute_one(store);
    database.plain().run("UPDATE idem_record SET format = 2, state = 77, expires = 0");
    expect_fault(Fault::unavailable, "upgrade", [&] { execute_one(store); });
    expect_fault(
        Fault::unavailable, "upgrade", [&] { static_cast<void>(store.peek({.key = key})); });
    store.record_failure({.key = key}, "not counted");
    EXPECT_EQ(database.effects(), 1);
    EXPECT_EQ(database.plain().text("SELECT format || state || attempts FROM idem_record"), "2771");
}

struct TestClock {
    static inline std::atomic<std::int64_t> seconds{1'000'000};
    static std::chrono::sys_time<std::chrono::seconds> now() {
        return std::chrono::sys_time<std::chrono::seconds>(std::chrono::seconds(seconds.load()));
    }
};

TEST(SqliteFile, r5_6_retention_counts_from_completion_then_the_record_is_absent) {
    const TestDatabase database;
    idem::BasicSqliteStore<TestClock> store{database.path()};
    store.migrate();
    const idem::Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    const idem::Fingerprint other{.high = 3, .low = 4, .algorithm = 1};
    const idem::ClaimRequest asked{
        .key = key, .fingerprint = print, .retention = idem::seconds{100}, .max_attempts = 2};
    store.record_failure(asked, "failed");
    TestClock::seconds += 99;
    {
        auto tx = store.begin();
        EXPECT_EQ(std::get<0>(tx.claim(asked)).attempt, 2U);
        tx.complete(asked, "done");
        tx.commit();
    }
    TestClock::seconds += 99;
    const auto done = std::get<idem::Completed>(store.peek(asked));
    EXPECT_EQ(done.result, "done");
    EXPECT_EQ(done.age, idem::seconds{99});
    TestClock::seconds += 1;
    auto changed = asked;
    changed.fingerprint = other;
    EXPECT_EQ(std::get<0>(store.peek(changed)).attempt, 1U) << "attempts and fingerprint went too";
    store.record_failure(changed, "failed");
    EXPECT_EQ(std::get<0>(store.peek(changed)).attempt, 2U);
    EXPECT_TRUE(std::holds_alternative<idem::Conflict>(store.peek(asked)));
    EXPECT_EQ(database.records(), 1) << "replaced, not added";
    TestClock::seconds -= 1'000;
    EXPECT_EQ(std::get<0>(store.peek(changed)).attempt, 2U) << "a clock set back forgets nothing";
}

TEST(SqliteFile, a_retention_without_end_is_a_long_one) {
    const TestDatabase database;
    SqliteStore store{database.path()};
    store.migrate();
    auto tx = store.begin();
    const idem::ClaimRequest asked{.key = key, .retention = idem::seconds::max()};
    static_cast<void>(tx.claim(asked));
    tx.complete(asked, "done");
    tx.commit();
    EXPECT_TRUE(std::holds_alternative<idem::Completed>(store.peek(asked)));
}

TEST(SqliteFile, record_failure_keeps_the_reason) {
    const TestDatabase database;
    SqliteStore store{database.path()};
    store.migrate();
    store.record_failure({.key = key}, "card \xff declined");
    store.record_failure({.key = key}, std::string(100'000, 'x'));
    auto plain = database.plain();
    EXPECT_EQ(plain.number("SELECT attempts FROM idem_record"), 2);
    EXPECT_EQ(plain.number("SELECT length(note) FROM idem_record"), 1'024);
}

TEST(SqliteFile, a_store_used_after_fork_in_the_child_is_a_logic_error) {
    const TestDatabase database;
    SqliteStore store{database.path()};
    store.migrate();
    execute_one(store);
    auto open = store.begin();
    open.execute("INSERT INTO effect VALUES ('m-2')");
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        int refused = 0;
        const auto refuse = [&](auto&& work) {
            try {
                work();
            } catch (const std::logic_error&) {
                ++refused;
            }
        };
        refuse([&] { static_cast<void>(store.begin()); });
        refuse([&] { static_cast<void>(store.peek({.key = key})); });
        refuse([&] { open.commit(); });
        refuse([&] { open.execute("SELECT 1"); });
        refuse([&] { store.verify(); });
        { const auto dropped = std::move(open); }
        ::_exit(refused == 5 ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
    open.commit();
    EXPECT_EQ(database.effects(), 2) << "the parent's transaction is untouched";
}

} // namespace
