// SPDX-License-Identifier: MIT
// What operators do with the records of SqliteStore, beyond the laws: several processes that prune
// at once, and the write lock. The test program is its own helper: `inspection.test pruner …`.

#include <idem/store/sqlite.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "sqlite/database.hpp"
#include "sqlite/shifted_clock.hpp"
#include "support/child_process.hpp"

namespace {

using idem::ClaimRequest;
using idem::Intervention;
using idem::milliseconds;
using idem::State;
using idem::testing_support::ChildOptions;
using idem::testing_support::ChildProcess;
using idem::testing_support::TestDatabase;

using Store = idem::BasicSqliteStore<ShiftedClock>;

const idem::SqliteOptions patient{.busy = milliseconds{120'000}};
const Intervention by{"ada", "ticket 4711"};

/// Prunes in steps of `limit` until a call removes nothing; prints how many it removed.
int pruner(const std::string& path, std::size_t limit) {
    idem::SqliteStore store(path, patient);
    std::size_t removed = 0;
    while (const auto now = store.prune(limit)) {
        if (now > limit) {
            std::cerr << now << " removed, " << limit << " allowed\n";
            return 1;
        }
        removed += now;
    }
    std::cout << removed << '\n';
    return 0;
}

class SqliteInspection : public ::testing::Test {
protected:
    SqliteInspection() { store.migrate(); }
    static ClaimRequest request(std::string_view id = "m-1", unsigned max_attempts = 0) {
        return {.key = {"billing", id}, .max_attempts = max_attempts};
    }
    void finish(const ClaimRequest& asked) {
        auto tx = store.begin();
        static_cast<void>(tx.claim(asked));
        tx.complete(asked, "done");
        tx.commit();
    }
    /// `past` records that expired, and `live` ones that did not, mixed.
    void fill(unsigned past, unsigned live) {
        auto plain = database.plain();
        plain.run("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < " +
                  std::to_string(past + live) +
                  ") INSERT INTO idem_record (scope, id, format, state, fingerprint, algorithm, "
                  "attempts, result, note, changed, expires) SELECT CAST('billing' AS BLOB), "
                  "CAST(i * 7919 % 100003 AS BLOB), 1, 2, zeroblob(16), 0, 1, x'', '', 0, "
                  "CASE WHEN i <= " +
                  std::to_string(past) + " THEN 1 ELSE 99999999999999 END FROM n");
    }
    std::int64_t records(const std::string& which) const {
        return database.plain().number("SELECT count(*) FROM idem_record WHERE " + which);
    }
    bool claimable(const ClaimRequest& asked) {
        return std::holds_alternative<idem::Claimed<std::monostate>>(store.peek(asked));
    }

    TestDatabase database;
    Store store{database.path(), patient};
};

TEST_F(SqliteInspection, r3_4_a_failure_that_uses_the_attempts_up_makes_a_dead_record) {
    store.record_failure(request("m-1", 2), "first");
    EXPECT_EQ(store.list(State::dead, 10).size(), 0U);
    store.record_failure(request("m-1", 2), "second");
    store.record_failure(request("m-2", 1), "only");
    const auto dead = store.list(State::dead, 10);
    ASSERT_EQ(dead.size(), 2U);
    EXPECT_EQ(dead[0].id, "m-1");
    EXPECT_EQ(dead[0].attempts, 2U);
    EXPECT_EQ(dead[0].note, "second");
    EXPECT_EQ(dead[1].attempts, 1U);
}

TEST_F(SqliteInspection, r3_4_a_raised_limit_lets_a_dead_key_run_again) {
    store.record_failure(request("m-1", 1), "first");
    EXPECT_FALSE(claimable(request("m-1", 1)));
    ASSERT_TRUE(claimable(request("m-1", 3)));
    store.record_failure(request("m-1", 3), "second");
    EXPECT_EQ(store.find(request().key)->state, State::in_progress);
    store.record_failure(request("m-1", 3), "third");
    EXPECT_EQ(store.find(request().key)->state, State::dead);
    EXPECT_EQ(store.find(request().key)->attempts, 3U);
}

TEST_F(SqliteInspection, r3_4_an_expired_dead_record_begins_anew) {
    auto brief = request("m-1", 2);
    brief.retention = idem::seconds{3'600};
    store.record_failure(brief, "first");
    store.record_failure(brief, "second");
    ShiftedClock::advance(brief.retention);
    store.record_failure(brief, "of another life");
    const auto found = store.find(brief.key);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->state, State::in_progress);
    EXPECT_EQ(found->attempts, 1U);
}

TEST_F(SqliteInspection, r3_1_a_refund_takes_one_attempt_back_and_never_goes_below_0) {
    store.record_failure(request("m-1", 2), "first");
    store.record_failure(request("m-1", 2), "second");
    ASSERT_EQ(store.find(request().key)->state, State::dead);
    store.refund_failure(request("m-1", 2));
    EXPECT_EQ(store.find(request().key)->state, State::in_progress);
    EXPECT_EQ(store.find(request().key)->attempts, 1U);
    EXPECT_TRUE(claimable(request("m-1", 2)));
    store.refund_failure(request("m-1", 2));
    store.refund_failure(request("m-1", 2));
    EXPECT_EQ(store.find(request().key)->attempts, 0U);
    store.refund_failure(request("m-2", 2));
    EXPECT_FALSE(store.find(request("m-2").key)) << "a refund makes no record";
}

TEST_F(SqliteInspection, a_refund_touches_no_completed_parked_expired_or_newer_record) {
    for (const char* set : {"state = 2", "state = 4", "expires = 1", "format = 2"}) {
        store.record_failure(request(), "first");
        database.plain().run(std::string("UPDATE idem_record SET attempts = 5, ") + set);
        const auto changes = "SELECT attempts || ' ' || state || ' ' || expires FROM idem_record";
        const auto before = database.plain().text(changes);
        store.refund_failure(request());
        EXPECT_EQ(database.plain().text(changes), before) << set;
        database.plain().run("DELETE FROM idem_record");
    }
}

TEST_F(SqliteInspection, r5_5_a_record_of_a_newer_format_is_left_alone) {
    store.record_failure(request("m-1", 1), "first");
    database.plain().run("UPDATE idem_record SET format = 2");
    EXPECT_THROW(static_cast<void>(store.find(request().key)), idem::StoreError);
    EXPECT_EQ(store.list(State::dead, 10).size(), 0U);
    EXPECT_FALSE(store.revive(request().key, by));
    EXPECT_FALSE(store.force_complete(request().key, "forced", by));
    EXPECT_FALSE(store.erase(request().key, by));
    database.plain().run("UPDATE idem_record SET expires = 1");
    EXPECT_EQ(store.prune(10), 0U);
    EXPECT_EQ(records("format = 2 AND state = 3 AND attempts = 1"), 1);
}

TEST_F(SqliteInspection, r5_6_an_intervention_lets_the_retention_begin_anew) {
    auto hour = request("m-1", 1);
    hour.retention = idem::seconds{3'600};
    store.record_failure(hour, "first");
    for (int step = 0; step < 2; ++step) {
        ShiftedClock::advance(idem::seconds{3'000});
        const bool done =
            step == 0 ? store.revive(hour.key, by) : store.force_complete(hour.key, "forced", by);
        ASSERT_TRUE(done) << "step " << step;
    }
    EXPECT_EQ(records("expires - changed = 3600000"), 1);
    ShiftedClock::advance(idem::seconds{3'000});
    ASSERT_TRUE(store.find(hour.key));
    EXPECT_EQ(store.find(hour.key)->result, "forced");
    ShiftedClock::advance(idem::seconds{601});
    EXPECT_FALSE(store.find(hour.key));
}

TEST_F(SqliteInspection, what_was_erased_is_not_erased_again) {
    finish(request());
    EXPECT_TRUE(store.erase(request().key, by));
    EXPECT_FALSE(store.erase(request().key, {"bob", "again"}));
    EXPECT_EQ(store.find(request().key)->note, "erased by ada: ticket 4711");
}

TEST_F(SqliteInspection, keys_past_the_limits_are_refused) {
    const idem::Key empty{"billing", ""};
    EXPECT_THROW(static_cast<void>(store.find(empty)), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(store.revive(empty, by)), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(store.force_complete(empty, "", by)), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(store.erase(empty, by)), std::invalid_argument);
}

TEST_F(SqliteInspection, prune_goes_on_from_where_it_ended_and_misses_nothing_behind_it) {
    fill(700, 300);
    EXPECT_EQ(store.prune(100), 100U);
    database.plain().run( // before the place where the scan stands
        "INSERT INTO idem_record SELECT CAST('a' AS BLOB), id, format, state, fingerprint, "
        "algorithm, attempts, changed, 1, lease_until, fence, owner, holder, note, result "
        "FROM idem_record WHERE expires > 1 LIMIT 5");
    EXPECT_EQ(store.prune(600), 600U);
    EXPECT_EQ(store.prune(600), 5U) << "the scan begins again at the start";
    EXPECT_EQ(store.prune(600), 0U);
    EXPECT_EQ(records("expires > 1"), 300);
    EXPECT_EQ(records("1"), 300);
}

TEST_F(SqliteInspection, prune_by_several_processes_and_threads_removes_each_record_once) {
    constexpr unsigned past = 6'000, live = 500;
    fill(past, live);
    std::vector<ChildProcess> children;
    children.reserve(3);
    std::vector<std::string> outputs;
    for (int number = 0; number < 3; ++number) {
        outputs.push_back(database.beside("removed-" + std::to_string(number)));
        ChildOptions options;
        options.output = outputs.back();
        children.emplace_back(
            std::vector<std::string>{"/proc/self/exe", "pruner", database.path(), "333"}, options);
    }
    for (auto& child : children) {
        const auto ended = child.wait(std::chrono::seconds(240));
        ASSERT_TRUE(ended.has_value()) << "a pruner hangs";
        EXPECT_TRUE(ended->cleanly()) << "exit " << ended->code << ", signal " << ended->signal;
    }
    unsigned removed = 0;
    for (const auto& output : outputs) {
        unsigned one = 0;
        std::ifstream(output) >> one;
        removed += one;
    }
    EXPECT_EQ(removed, past);
    EXPECT_EQ(records("1"), live);
    EXPECT_EQ(database.plain().text("PRAGMA integrity_check"), "ok");
}

TEST_F(SqliteInspection, prune_and_claims_of_the_same_keys_at_once_lose_no_completed_record) {
    for (unsigned number = 0; number < 300; ++number) {
        const auto id = "m-" + std::to_string(number);
        auto brief = request(id);
        brief.retention = idem::seconds{60};
        store.record_failure(brief, "long ago");
    }
    ShiftedClock::advance(idem::seconds{60});
    std::size_t removed = 0;
    std::jthread pruning([&] {
        while (const auto now = store.prune(10)) {
            removed += now;
        }
    });
    for (unsigned number = 0; number < 300; ++number) {
        finish(request("m-" + std::to_string(299 - number)));
    }
    pruning.join();
    EXPECT_LE(removed, 300U);
    EXPECT_EQ(records("state = 2"), 300);
    EXPECT_EQ(records("1"), 300);
}

TEST_F(SqliteInspection, r1_9_prune_beside_an_open_writer_waits_at_most_busy) {
    fill(10, 0);
    Store impatient(database.path(), {.busy = milliseconds{200}});
    auto writer = store.begin();
    const auto start = std::chrono::steady_clock::now();
    try {
        static_cast<void>(impatient.prune(10));
        ADD_FAILURE() << "pruned beside a writer";
    } catch (const idem::StoreError& error) {
        EXPECT_EQ(error.fault(), idem::Fault::unavailable);
    }
    const auto waited = std::chrono::steady_clock::now() - start;
    EXPECT_GE(waited, milliseconds{200});
    EXPECT_LT(waited, std::chrono::seconds(60)) << "and not for ever";
    EXPECT_THROW(static_cast<void>(store.prune(10)), std::logic_error)
        << "this thread has the turn";
    EXPECT_EQ(records("1"), 10);
    writer.rollback();
    EXPECT_EQ(impatient.prune(10), 10U);
}

TEST_F(SqliteInspection, r1_9_find_list_and_a_prune_of_nothing_need_no_write_lock) {
    finish(request());
    Store impatient(database.path(), {.busy = milliseconds{0}});
    auto writer = store.begin();
    EXPECT_TRUE(impatient.find(request().key));
    EXPECT_EQ(impatient.list(State::completed, 10).size(), 1U);
    EXPECT_EQ(impatient.prune(10), 0U);
    EXPECT_THROW(static_cast<void>(impatient.erase(request().key, by)), idem::StoreError);
}

TEST_F(SqliteInspection, without_a_table_it_is_rejected_and_says_what_to_do) {
    database.plain().run("DROP TABLE idem_record");
    const auto rejected = [](auto call) {
        try {
            call();
        } catch (const idem::StoreError& error) {
            return error.fault() == idem::Fault::rejected &&
                   std::string(error.what()).find("migrate()") != std::string::npos;
        }
        return false;
    };
    EXPECT_TRUE(rejected([&] { static_cast<void>(store.find(request().key)); }));
    EXPECT_TRUE(rejected([&] { static_cast<void>(store.list(State::dead, 1)); }));
    EXPECT_TRUE(rejected([&] { static_cast<void>(store.erase(request().key, by)); }));
    EXPECT_TRUE(rejected([&] { static_cast<void>(store.prune(1)); }));
    store.refund_failure(request()); // best effort
}

} // namespace

int main(int count, char** values) {
    const std::vector<std::string> arguments(values, values + count);
    try {
        if (arguments.size() == 4 && arguments[1] == "pruner") {
            return pruner(arguments[2], std::stoul(arguments[3]));
        }
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    ::testing::InitGoogleTest(&count, values);
    return RUN_ALL_TESTS();
}
