// SPDX-License-Identifier: MIT
// Handlers under READ COMMITTED, REPEATABLE READ and SERIALIZABLE: what the server refuses is run
// again, and what comes out is what the level promises.

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>
#include <idem/testing/harness.hpp>

#include <algorithm>
#include <atomic>
#include <functional>
#include <latch>
#include <ostream>
#include <string>
#include <vector>

#include "postgres_test.hpp"

namespace idem::postgres_test {

struct Level {
    PostgresIsolation isolation;
    const char* name; ///< of the test
    const char* sql;

    friend std::ostream& operator<<(std::ostream& out, const Level& level) {
        return out << level.name;
    }
};
inline constexpr Level read_committed{
    PostgresIsolation::read_committed, "read_committed", "read committed"};
inline constexpr Level repeatable_read{
    PostgresIsolation::repeatable_read, "repeatable_read", "repeatable read"};
inline constexpr Level serializable{
    PostgresIsolation::serializable, "serializable", "serializable"};

class PostgresIsolationTest : public PostgresTest, public ::testing::WithParamInterface<Level> {
protected:
    using Handler = std::function<void(const std::string&, PostgresTransaction&)>;
    static constexpr unsigned consumers = 8;

    PostgresIsolationTest() { options_.isolation = GetParam().isolation; }

    auto handled_by(Handler handler, unsigned reruns = DedupTable{}.reruns) {
        return IdempotentConsumer(store(), DedupTable{.reruns = reruns})
            .wrap(
                "billing",
                [](const std::string& id) { return id; },
                [handler = std::move(handler)](const std::string& id, PostgresTransaction& tx) {
                    handler(id, tx);
                });
    }
    static long number(PostgresTransaction& tx, std::string_view sql) {
        return std::stol(tx.execute(sql).text(0, 0).value());
    }
    /// What a delivery may come to while others handle the same message.
    static bool as_specified(const Verdict& verdict) {
        return verdict.status == Status::executed || verdict.status == Status::replayed ||
               verdict.status == Status::in_progress ||
               (verdict.status == Status::failed && verdict.fault == Fault::unavailable);
    }
    void expect_uncharged() {
        EXPECT_EQ(outside().number("SELECT max(attempts) FROM idem_record"), 1);
    }
};

TEST_P(PostgresIsolationTest, r1_1_the_handler_runs_at_the_level_that_was_asked_for) {
    std::string level;
    auto bill = handled_by([&](const std::string&, PostgresTransaction& tx) {
        level = tx.execute("SHOW transaction_isolation").text(0, 0).value();
    });
    EXPECT_EQ(bill("m-1").status(), Status::executed);
    EXPECT_EQ(level, GetParam().sql);
    EXPECT_EQ(bill("m-1").status(), Status::replayed);
    auto tx = store().begin(); // also where the handler's statement comes first
    EXPECT_EQ(tx.execute("SHOW transaction_isolation").text(0, 0), GetParam().sql);
}

TEST_P(PostgresIsolationTest, of_racing_duplicates_one_takes_effect) {
    constexpr int keys = 20;
    auto bill =
        handled_by([](const std::string& id, PostgresTransaction& tx) { write_effect(tx, id); });
    for (int key = 0; key < keys; ++key) {
        const auto id = "m-" + std::to_string(key);
        std::atomic<unsigned> executed{0}, unspecified{0};
        testing::in_parallel(consumers, [&](unsigned) {
            const auto outcome = bill.handle(id, {});
            executed += outcome.status() == Status::executed ? 1 : 0;
            unspecified += as_specified(outcome.verdict()) ? 0 : 1;
        });
        EXPECT_EQ(unspecified, 0U);
        EXPECT_EQ(executed, 1U);
        EXPECT_EQ(bill(id).status(), Status::replayed);
    }
    EXPECT_EQ(effects(), keys);
    expect_uncharged();
}

TEST_P(PostgresIsolationTest, r1_1_a_duplicate_whose_snapshot_is_older_than_the_winners_commit) {
    // The loser's first statement finds the lock taken; the winner commits before its next one.
    auto winner = store().begin();
    ASSERT_TRUE(is_claimed(winner.claim(request())));
    write_effect(winner);
    winner.complete(request(), "\1done");
    PostgresStore other(conninfo(), options_);
    auto loser = other.begin();
    EXPECT_EQ(number(loser, "SELECT count(*) FROM effect"), 0); // takes the snapshot
    winner.commit();
    if (GetParam().isolation == PostgresIsolation::read_committed) {
        EXPECT_EQ(std::get<Completed>(loser.claim(request())).result, "\1done");
    } else { // it cannot see the record, and must not take the key for free
        EXPECT_EQ(fault_thrown([&] { static_cast<void>(loser.claim(request())); }),
                  Fault::unavailable);
        EXPECT_TRUE(loser.conflicted());
    }
    loser.rollback();
    auto again = other.begin();
    EXPECT_EQ(std::get<Completed>(again.claim(request())).result, "\1done");
    EXPECT_EQ(effects(), 1);
}

TEST_P(PostgresIsolationTest, r6_7_overlapping_batches_take_effect_once_for_each_message) {
    std::vector<std::string> ids;
    for (int n = 0; n < 16; ++n) {
        ids.push_back("m-" + std::to_string(n));
    }
    auto bill =
        handled_by([](const std::string& id, PostgresTransaction& tx) { write_effect(tx, id); });
    std::atomic<unsigned> executed{0}, unspecified{0};
    testing::in_parallel(4, [&](unsigned thread) {
        std::vector<std::string> mine = ids; // each in another order
        std::rotate(mine.begin(), mine.begin() + 4L * thread, mine.end());
        if (thread % 2 == 1) {
            std::reverse(mine.begin(), mine.end());
        }
        const bool ended = eventually([&] {
            std::size_t acked = 0;
            try {
                for (const auto& outcome : bill.batch(mine)) {
                    executed += outcome.status() == Status::executed ? 1 : 0;
                    unspecified += as_specified(outcome.verdict()) ? 0 : 1;
                    acked += outcome.settlement().action == Settlement::ack ? 1 : 0;
                }
            } catch (const StoreError& error) {
                unspecified += error.fault() == Fault::unavailable ? 0 : 1;
            }
            return acked == mine.size();
        });
        EXPECT_TRUE(ended);
    });
    EXPECT_EQ(unspecified, 0U);
    EXPECT_EQ(executed, 16U);
    EXPECT_EQ(effects(), 16);
    EXPECT_EQ(outside().number("SELECT count(DISTINCT id) FROM effect"), 16);
    expect_uncharged();
}

TEST_P(PostgresIsolationTest, a_failed_attempt_is_charged_at_every_level) {
    auto bill =
        handled_by([](const std::string&, PostgresTransaction& tx) { tx.execute("SELECT 1 / 0"); });
    EXPECT_THROW(static_cast<void>(bill("m-1")), PostgresError);
    EXPECT_THROW(static_cast<void>(bill("m-1")), PostgresError);
    EXPECT_EQ(outside().number("SELECT attempts FROM idem_record"), 2);
}

INSTANTIATE_TEST_SUITE_P(,
                         PostgresIsolationTest,
                         ::testing::Values(read_committed, repeatable_read, serializable),
                         [](const auto& tested) { return std::string(tested.param.name); });

/// Above READ COMMITTED.
class PostgresSnapshotTest : public PostgresIsolationTest {};

TEST_P(PostgresSnapshotTest, r1_5_r3_4_a_counter_read_and_written_counts_every_message_once) {
    outside().run("CREATE TABLE counter (n integer NOT NULL)");
    outside().run("INSERT INTO counter VALUES (0)");
    std::latch all_have_read(consumers);
    std::atomic<unsigned> runs{0}, executed{0}, attempts{0};
    auto count = handled_by(
        [&](const std::string&, PostgresTransaction& tx) {
            const auto n = number(tx, "SELECT n FROM counter");
            if (++runs <= consumers) { // so that of the first runs one can win
                all_have_read.arrive_and_wait();
            }
            tx.execute("UPDATE counter SET n = $1", n + 1);
        },
        1'000);
    testing::in_parallel(consumers, [&](unsigned thread) {
        const auto outcome = count("m-" + std::to_string(thread));
        executed += outcome.status() == Status::executed ? 1 : 0;
        attempts += outcome.attempts();
    });
    EXPECT_EQ(executed, consumers);
    EXPECT_EQ(outside().number("SELECT n FROM counter"), consumers);
    EXPECT_GE(runs, 2 * consumers - 1) << "all but one ran again";
    EXPECT_EQ(attempts, consumers) << "a rerun is no attempt";
    expect_uncharged();
}

TEST_P(PostgresSnapshotTest, r1_5_a_conflict_in_every_rerun_is_unavailable_and_uncharged) {
    outside().run("CREATE TABLE counter (n integer NOT NULL)");
    outside().run("INSERT INTO counter VALUES (0)");
    unsigned runs = 0;
    auto count = handled_by([&](const std::string&, PostgresTransaction& tx) {
        ++runs;
        const auto n = number(tx, "SELECT n FROM counter");
        outside().run("UPDATE counter SET n = n + 100"); // somebody is always faster
        tx.execute("UPDATE counter SET n = $1", n + 1);
    });
    EXPECT_EQ(fault_thrown([&] { static_cast<void>(count("m-1")); }), Fault::unavailable);
    EXPECT_EQ(runs, 1 + DedupTable{}.reruns);
    EXPECT_EQ(outside().number("SELECT n FROM counter"), 100 * static_cast<long>(runs));
    EXPECT_EQ(records(), 0) << "neither done nor charged";
}

TEST_P(PostgresSnapshotTest, write_skew_is_what_serializable_alone_prevents) {
    outside().run("CREATE TABLE on_call (doctor text NOT NULL)");
    outside().run("INSERT INTO on_call VALUES ('a'), ('b')");
    std::latch both_have_read(2);
    std::atomic<unsigned> runs{0};
    auto leave = handled_by(
        [&](const std::string& doctor, PostgresTransaction& tx) {
            const auto others = number(tx, "SELECT count(*) FROM on_call") - 1;
            if (++runs <= 2) {
                both_have_read.arrive_and_wait();
            }
            if (others > 0) {
                tx.execute("DELETE FROM on_call WHERE doctor = $1", doctor);
            }
        },
        1'000);
    testing::in_parallel(2, [&](unsigned thread) {
        EXPECT_EQ(leave(thread == 0 ? "a" : "b").status(), Status::executed);
    });
    const bool prevented = GetParam().isolation == PostgresIsolation::serializable;
    EXPECT_EQ(outside().number("SELECT count(*) FROM on_call"), prevented ? 1 : 0);
    if (prevented) {
        EXPECT_GE(runs, 3U);
    }
    expect_uncharged();
}

TEST_P(PostgresSnapshotTest, r1_5_a_batch_that_conflicts_runs_again_and_counts_exactly) {
    outside().run("CREATE TABLE counter (n integer NOT NULL)");
    outside().run("INSERT INTO counter VALUES (0)");
    std::latch both_have_read(2);
    std::atomic<unsigned> runs{0};
    auto count = handled_by(
        [&](const std::string& id, PostgresTransaction& tx) {
            const auto n = number(tx, "SELECT n FROM counter");
            if (id.ends_with("-0") && ++runs <= 2) {
                both_have_read.arrive_and_wait();
            }
            tx.execute("UPDATE counter SET n = $1", n + 1);
        },
        1'000);
    testing::in_parallel(2, [&](unsigned thread) {
        std::vector<std::string> mine;
        for (int n = 0; n < 8; ++n) {
            mine.push_back("m-" + std::to_string(thread) + "-" + std::to_string(n));
        }
        for (const auto& outcome : count.batch(mine)) {
            EXPECT_EQ(outcome.status(), Status::executed);
        }
    });
    EXPECT_GE(runs, 3U) << "one of them ran again";
    EXPECT_EQ(outside().number("SELECT n FROM counter"), 16);
    expect_uncharged();
}

TEST_P(PostgresSnapshotTest, r1_5_joined_behind_the_winner_asks_for_a_new_transaction) {
    PostgresSession users(conninfo());
    unsigned runs = 0;
    auto bill = handled_by([&](const std::string& id, PostgresTransaction& tx) {
        ++runs;
        write_effect(tx, id);
    });
    const auto begin = std::string("BEGIN ISOLATION LEVEL ") + GetParam().sql;
    users.run(begin);
    users.run("SELECT count(*) FROM effect"); // takes the snapshot
    EXPECT_EQ(bill("m-1").status(), Status::executed);
    const auto error =
        thrown<StoreError>([&] { static_cast<void>(bill.within(users.native(), "m-1")); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->fault(), Fault::unavailable);
    EXPECT_NE(std::string(error->what()).find("retry in a new transaction"), std::string::npos);
    EXPECT_EQ(runs, 1U) << "not run again in it";
    // The user's transaction is as it was, for another message too.
    EXPECT_EQ(bill.within(users.native(), "m-2").status(), Status::executed);
    users.run("INSERT INTO effect VALUES ('own')");
    users.run("COMMIT");
    EXPECT_EQ(outside().run("SELECT string_agg(id, ' ' ORDER BY id) FROM effect"), "m-1 m-2 own");
    users.run(begin);
    EXPECT_EQ(bill.within(users.native(), "m-1").status(), Status::replayed);
    users.run("COMMIT");
    EXPECT_EQ(effects(), 3);
    expect_uncharged();
}

TEST_P(PostgresSnapshotTest, r1_5_a_joined_handler_that_conflicts_is_not_run_again) {
    outside().run("CREATE TABLE counter (n integer NOT NULL)");
    outside().run("INSERT INTO counter VALUES (0)");
    PostgresSession users(conninfo());
    users.run(std::string("BEGIN ISOLATION LEVEL ") + GetParam().sql);
    users.run("SELECT count(*) FROM effect"); // takes the snapshot
    outside().run("UPDATE counter SET n = 100");
    unsigned runs = 0;
    auto count = handled_by([&](const std::string&, PostgresTransaction& tx) {
        ++runs;
        tx.execute("UPDATE counter SET n = n + 1");
    });
    EXPECT_EQ(fault_thrown([&] { static_cast<void>(count.within(users.native(), "m-1")); }),
              Fault::unavailable);
    EXPECT_EQ(runs, 1U);
    EXPECT_EQ(users.number("SELECT n FROM counter"), 0) << "the transaction goes on";
    users.run("COMMIT");
    EXPECT_EQ(records(), 0) << "neither done nor charged";
    EXPECT_EQ(count("m-1").status(), Status::executed);
    EXPECT_EQ(outside().number("SELECT n FROM counter"), 101);
}

INSTANTIATE_TEST_SUITE_P(,
                         PostgresSnapshotTest,
                         ::testing::Values(repeatable_read, serializable),
                         [](const auto& tested) { return std::string(tested.param.name); });

} // namespace idem::postgres_test
