// SPDX-License-Identifier: MIT
// What a failover to a replica loses: the records that were not replicated, and nothing else. It is
// counted here, and said in the README.

#include <idem/store/redis_lock.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "support/needs.hpp"
#include "support/redis_server.hpp"

namespace {

using namespace idem;
using idem::testing::in_parallel;
using testing_support::RedisServer;
using testing_support::RedisSession;

/// A primary and its replica.
class RedisFailover : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(RedisServer::missing_program());
        primary_.emplace(RedisServer::Options{
            .own = true, .tcp = true, .arguments = {"--repl-diskless-sync-delay", "0"}});
        replica_.emplace(RedisServer::Options{
            .own = true,
            .tcp = true,
            .arguments = {"--replicaof", "127.0.0.1", std::to_string(primary_->port())}});
        await_replication();
    }
    /// Until the replica has all that the primary wrote so far.
    void await_replication() {
        RedisSession primary(primary_->address()), replica(replica_->address());
        const auto field = [](RedisSession& of, std::string_view name) {
            return std::string(detail::redis_info_field(of.text({"INFO", "replication"}), name));
        };
        const auto written = std::stoll(field(primary, "master_repl_offset"));
        while (field(replica, "master_link_status") != "up" ||
               std::stoll(field(replica, "slave_repl_offset")) < written) {
            std::this_thread::sleep_for(milliseconds{1});
        }
    }
    /// The replica hears nothing of what is written from now on.
    void cut_replication() {
        RedisSession(replica_->address()).run({"REPLICAOF", "127.0.0.1", "1"});
    }
    void fail_over() {
        primary_->kill();
        RedisSession(replica_->address()).run({"REPLICAOF", "NO", "ONE"});
    }
    /// What the store would say of the id, without asking it: whether it is known as completed.
    static bool is_marked(RedisSession& session, const std::string& id) {
        return session.text({"GETRANGE", detail::redis_key("idem", {"failover", id}), "0", "2"}) ==
               "I1C";
    }
    /// As a consumer does. The handler's run is counted between claim and completion.
    void deliver(RedisLockStore& store, const std::string& id) {
        const auto claim = store.claim({.key = {"failover", id}});
        if (const auto* mine = std::get_if<0>(&claim)) {
            {
                const std::scoped_lock lock(mutex_);
                ++runs_[id];
            }
            if (store.complete(mine->ticket, id) == TicketState::valid) {
                const std::scoped_lock lock(mutex_);
                acked_.insert(id);
            }
        }
    }

    std::optional<RedisServer> primary_, replica_;
    std::mutex mutex_;
    std::map<std::string, int> runs_;
    std::set<std::string> acked_;
};

TEST_F(RedisFailover, what_was_not_replicated_runs_again_and_nothing_else_does) {
    RedisLockStore before(primary_->address(), {.deadline = seconds{20}});
    for (int number = 0; number < 200; ++number) {
        deliver(before, std::to_string(number));
    }
    const auto held = std::get<0>(before.claim({.key = {"failover", "held"}}));
    await_replication();
    cut_replication();
    for (int number = 200; number < 300; ++number) {
        deliver(before, std::to_string(number));
    }
    fail_over();

    RedisLockStore after(replica_->address(), {.deadline = seconds{20}});
    for (int number = 0; number < 300; ++number) {
        deliver(after, std::to_string(number));
    }
    int duplicates = 0;
    for (const auto& [id, runs] : runs_) {
        EXPECT_EQ(runs, std::stoi(id) < 200 ? 1 : 2) << id;
        duplicates += runs - 1;
    }
    EXPECT_EQ(duplicates, 100) << "one for each mark that was not replicated";
    EXPECT_EQ(after.claim({.key = {"failover", "held"}}).index(), 2U) << "leases go over too";
    EXPECT_EQ(after.complete(held.ticket, "done"), TicketState::valid);
    RecordProperty("duplicates", duplicates);
}

TEST_F(RedisFailover, killed_in_mid_work_every_duplicate_is_of_a_mark_that_was_not_replicated) {
    constexpr unsigned threads = 4;
    constexpr int most = 20'000;
    RedisLockStore before(primary_->address(), {.deadline = milliseconds{2'000}});
    std::atomic<int> handled{0};
    std::atomic<bool> cut{false}, dead{false};
    std::jthread failing([&] {
        while (handled < 300) {
            std::this_thread::yield();
        }
        await_replication(); // of those, while more are written
        cut_replication();
        cut = true;
        const int now = handled;
        while (handled < now + 100) {
            std::this_thread::yield();
        }
        fail_over();
        dead = true;
    });
    in_parallel(threads, [&](unsigned thread) {
        for (int number = 0; number < most && !dead; ++number) {
            try {
                deliver(before, std::to_string(thread) + "-" + std::to_string(number));
                ++handled;
            } catch (const StoreError&) { // the primary is gone: not acked, so it comes again
                return;
            }
        }
    });
    failing.join();
    ASSERT_TRUE(cut && dead);

    RedisSession session(replica_->address());
    std::set<std::string> lost;
    for (const auto& [id, runs] : runs_) {
        if (!is_marked(session, id)) {
            lost.insert(id);
        }
    }
    EXPECT_GE(lost.size(), 100U) << "what was handled after the cut";
    EXPECT_GE(runs_.size() - lost.size(), 200U) << "of 300 before it nearly all are there";
    RedisLockStore after(replica_->address(), {.deadline = seconds{20}});
    const auto known = runs_;
    for (const auto& [id, runs] : known) { // the broker gives all of it again
        deliver(after, id);
    }
    int duplicates = 0;
    for (const auto& [id, runs] : runs_) {
        EXPECT_LE(runs, lost.contains(id) ? 2 : 1) << id;
        duplicates += runs - 1;
    }
    EXPECT_LE(static_cast<std::size_t>(duplicates), lost.size());
    EXPECT_GE(duplicates, 100);
    RecordProperty("duplicates", duplicates);
    RecordProperty("lost", static_cast<int>(lost.size()));
    // What is not marked and did not run again is in progress there: its lease comes to an end.
    for (const auto& id : lost) {
        EXPECT_TRUE(runs_[id] == 2 || after.claim({.key = {"failover", id}}).index() == 2U) << id;
    }
}

} // namespace
