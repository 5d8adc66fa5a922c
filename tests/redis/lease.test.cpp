// SPDX-License-Identifier: MIT
// Leases on a real Redis: races of threads and processes, fences, what a record's life is.

#include <idem/store/redis_lock.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "support/needs.hpp"
#include "support/redis_server.hpp"

namespace {

using namespace idem;
using idem::testing::fresh_scope;
using idem::testing::in_parallel;
using testing_support::RedisServer;
using testing_support::RedisSession;
using testing_support::shared_redis;

constexpr milliseconds week = seconds{604'800};

class RedisLease : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(RedisServer::missing());
        store_.emplace(shared_redis().address(), RedisOptions{.deadline = seconds{20}});
        session_.emplace(shared_redis().address());
    }
    [[nodiscard]] ClaimRequest request(milliseconds lease = seconds{60}) const {
        return {.key = {scope_, "m"}, .lease = lease};
    }
    [[nodiscard]] Claimed<RedisLockStore::Ticket> won(milliseconds lease = seconds{60}) {
        return std::get<0>(store_->claim(request(lease)));
    }
    [[nodiscard]] std::string key() const { return detail::redis_key("idem", {scope_, "m"}); }
    [[nodiscard]] long long life() { return session_->number({"PTTL", key()}); }
    [[nodiscard]] std::string state() { return session_->text({"GETRANGE", key(), "0", "2"}); }
    /// Until the server says that at most `left` ms of the record's life are left.
    void let_life_pass_to(milliseconds left) {
        while (life() > left.count()) {
            std::this_thread::sleep_for(milliseconds{1});
        }
    }
    void expect_life(milliseconds most) {
        EXPECT_LE(life(), most.count());
        EXPECT_GT(life(), (most - seconds{30}).count());
    }

    std::string scope_ = fresh_scope();
    std::optional<RedisLockStore> store_;
    std::optional<RedisSession> session_;
};

TEST_F(RedisLease, r4_4_a_record_outlives_its_lease_by_the_retention_in_every_state) {
    const auto first = won(seconds{60});
    expect_life(week + seconds{60});
    EXPECT_EQ(state(), "I1P");
    EXPECT_EQ(store_->renew(first.ticket, seconds{600}), TicketState::valid);
    expect_life(week + seconds{600});
    store_->abandon(first.ticket, "failed");
    expect_life(week);
    EXPECT_EQ(state(), "I1F");
    const auto second = won();
    expect_life(week + seconds{60});
    EXPECT_EQ(store_->complete(second.ticket, "done"), TicketState::valid);
    expect_life(week);
    EXPECT_EQ(state(), "I1C");
}

TEST_F(RedisLease, r5_6_retention_counts_from_completion_and_then_the_key_is_new) {
    auto asked = request();
    asked.retention = seconds{1};
    const auto mine = std::get<0>(store_->claim(asked));
    EXPECT_EQ(store_->complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_LE(life(), 1'000);
    EXPECT_EQ(store_->claim(asked).index(), 1U);
    let_life_pass_to(milliseconds{-2});
    const auto next = won();
    EXPECT_EQ(next.attempt, 1U);
    EXPECT_GT(next.fence, mine.fence) << "4.3: the fence grows across pruning";
}

TEST_F(RedisLease, a_repeated_complete_does_not_lengthen_the_retention) {
    const auto mine = won();
    EXPECT_EQ(store_->complete(mine.ticket, "done"), TicketState::valid);
    session_->run({"PEXPIRE", key(), "100000"});
    EXPECT_EQ(store_->complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_LE(life(), 100'000) << "nothing changes";
}

TEST_F(RedisLease, the_age_of_a_completed_record_counts_from_its_completion) {
    EXPECT_EQ(store_->complete(won().ticket, "done"), TicketState::valid);
    session_->run({"PEXPIRE", key(), std::to_string((week - seconds{3'600}).count())});
    const auto age = std::get<Completed>(store_->claim(request())).age;
    ASSERT_TRUE(age.has_value());
    EXPECT_GE(*age, seconds{3'590});
    EXPECT_LE(*age, seconds{3'700});
}

TEST_F(RedisLease, r4_3_the_fence_grows_however_fast_a_key_goes_from_hand_to_hand) {
    std::uint64_t last = 0;
    for (int round = 0; round < 200; ++round) {
        const auto mine = won();
        EXPECT_GT(mine.fence, last) << round;
        last = mine.fence;
        if (round % 3 == 0) {
            store_->refund(mine.ticket);
        } else {
            store_->abandon(mine.ticket, "failed");
        }
    }
    session_->run({"DEL", key()});
    std::this_thread::sleep_for(milliseconds{2}); // fences of new records count in milliseconds
    EXPECT_GT(won().fence, last) << "erased by hand";
}

TEST_F(RedisLease, r4_1_a_lease_is_over_when_the_server_says_so_and_not_before) {
    const auto first = won(milliseconds{150});
    const auto expiry = [&] { return session_->number({"PEXPIRETIME", key()}); };
    const auto lease_ends = expiry() - week.count();
    for (;;) {
        const auto before = life();
        const auto claim = store_->claim(request(seconds{60}));
        if (const auto* busy = std::get_if<InProgress>(&claim)) {
            EXPECT_GT(before, week.count());
            EXPECT_LE(busy->retry_after, milliseconds{150});
            EXPECT_GT(busy->retry_after, milliseconds{0});
            continue;
        }
        const auto taken_at = expiry() - (week + seconds{60}).count();
        EXPECT_GE(taken_at, lease_ends) << "both by the server's clock";
        EXPECT_TRUE(std::get<0>(claim).takeover);
        EXPECT_EQ(std::get<0>(claim).attempt, 2U);
        EXPECT_GT(std::get<0>(claim).fence, first.fence);
        break;
    }
    EXPECT_EQ(store_->complete(first.ticket, "late"), TicketState::outdated);
}

TEST_F(RedisLease, racing_takeovers_of_leases_of_2_ms_have_one_winner_each) {
    std::mutex mutex;
    std::set<std::uint64_t> fences;
    std::set<unsigned> attempts;
    std::vector<Claimed<RedisLockStore::Ticket>> winners;
    in_parallel(8, [&](unsigned) {
        for (int round = 0; round < 150; ++round) {
            auto claim = store_->claim(request(milliseconds{2}));
            if (auto* mine = std::get_if<0>(&claim)) {
                const std::scoped_lock lock(mutex);
                fences.insert(mine->fence);
                attempts.insert(mine->attempt);
                winners.push_back(std::move(*mine));
            }
        }
    });
    ASSERT_GT(winners.size(), 10U);
    EXPECT_EQ(fences.size(), winners.size()) << "no fence twice";
    EXPECT_EQ(attempts.size(), winners.size()) << "no attempt twice";
    EXPECT_EQ(*attempts.rbegin(), winners.size()) << "and none was lost";
    std::size_t valid = 0;
    for (const auto& winner : winners) {
        const bool last = winner.attempt == winners.size();
        const auto state = store_->complete(winner.ticket, std::to_string(winner.attempt));
        valid += state == TicketState::valid;
        EXPECT_EQ(state == TicketState::valid, last) << winner.attempt;
    }
    EXPECT_EQ(valid, 1U);
    for (const auto& one : winners) {
        for (const auto& other : winners) {
            EXPECT_EQ(one.attempt < other.attempt, one.fence < other.fence);
        }
    }
}

std::string effect_key(std::string scope, int number) {
    scope += ":effect:";
    return scope += std::to_string(number);
}

/// What each of several processes does with every message: the effect once, whoever is first.
void consume_all(const std::string& scope, int messages) {
    RedisLockStore store(shared_redis().address(), {.deadline = seconds{20}});
    RedisSession effects(shared_redis().address());
    for (int number = 0; number < messages; ++number) {
        const auto id = std::to_string(number);
        const auto effect = effect_key(scope, number);
        for (bool done = false; !done;) {
            const auto claim = store.claim({.key = {scope, id}});
            if (const auto* mine = std::get_if<0>(&claim)) {
                effects.run({"INCR", effect});
                done = store.complete(mine->ticket, id) == TicketState::valid;
            } else {
                done = std::holds_alternative<Completed>(claim) &&
                       std::get<Completed>(claim).result == id;
            }
        }
    }
}

TEST_F(RedisLease, of_racing_processes_one_takes_effect) {
    constexpr int messages = 100;
    std::vector<pid_t> children;
    for (int child = 0; child < 4; ++child) {
        const pid_t pid = ::fork();
        if (pid == 0) {
            try {
                consume_all(scope_, messages);
                ::_exit(0);
            } catch (...) {
                ::_exit(1);
            }
        }
        children.push_back(pid);
    }
    for (const auto pid : children) {
        int status = -1;
        ASSERT_EQ(::waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
    }
    for (int number = 0; number < messages; ++number) {
        EXPECT_EQ(session_->text({"GET", effect_key(scope_, number)}), "1");
    }
}

TEST_F(RedisLease, an_owner_killed_in_its_handler_is_taken_over_once_its_lease_ends) {
    const pid_t pid = ::fork();
    if (pid == 0) {
        RedisLockStore store(shared_redis().address());
        static_cast<void>(store.claim(request(milliseconds{100})));
        ::kill(::getpid(), SIGKILL);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status));
    let_life_pass_to(week);
    const auto mine = won();
    EXPECT_TRUE(mine.takeover);
    EXPECT_EQ(mine.attempt, 2U) << "3.1: a crash is charged";
}

TEST_F(RedisLease, r3_4_dead_is_marked_and_the_late_owner_of_the_last_lease_may_still_complete) {
    auto asked = request(milliseconds{1});
    asked.max_attempts = 1;
    const auto mine = std::get<0>(store_->claim(asked));
    let_life_pass_to(week);
    EXPECT_EQ(std::get<Dead>(store_->claim(asked)).attempts, 1U);
    EXPECT_EQ(state(), "I1L");
    EXPECT_EQ(store_->renew(mine.ticket, seconds{60}), TicketState::outdated);
    EXPECT_EQ(store_->complete(mine.ticket, "late"), TicketState::valid);
    EXPECT_EQ(std::get<Completed>(store_->claim(asked)).result, "late");
}

TEST_F(RedisLease, r3_4_a_key_that_died_of_failures_lives_again_when_more_attempts_are_allowed) {
    auto asked = request();
    asked.max_attempts = 1;
    const auto mine = std::get<0>(store_->claim(asked));
    store_->abandon(mine.ticket, "failed");
    EXPECT_EQ(std::get<Dead>(store_->claim(asked)).attempts, 1U);
    EXPECT_EQ(state(), "I1D");
    EXPECT_EQ(store_->complete(mine.ticket, "late"), TicketState::outdated) << "it gave it back";
    asked.max_attempts = 2;
    const auto next = std::get<0>(store_->claim(asked));
    EXPECT_EQ(next.attempt, 2U);
    EXPECT_FALSE(next.takeover) << "a failure is no unknown outcome";
}

TEST_F(RedisLease, r4_2_a_key_that_died_of_a_lapsed_lease_is_a_takeover_when_it_lives_again) {
    auto asked = request(milliseconds{1});
    asked.max_attempts = 1;
    static_cast<void>(std::get<0>(store_->claim(asked)));
    let_life_pass_to(week);
    EXPECT_TRUE(std::holds_alternative<Dead>(store_->claim(asked)));
    const auto next = won();
    EXPECT_TRUE(next.takeover);
    EXPECT_EQ(next.attempt, 2U);
}

TEST_F(RedisLease, a_lock_record_pays_nothing_for_tokens) {
    const auto mine = won();
    EXPECT_EQ(session_->number({"STRLEN", key()}), 57);
    EXPECT_EQ(store_->complete(mine.ticket, "result"), TicketState::valid);
    EXPECT_EQ(session_->number({"STRLEN", key()}), 14 + 6) << "no fingerprint, no holder";
}

TEST_F(RedisLease, why_a_key_was_given_back_is_kept_and_bounded) {
    const auto mine = won();
    store_->abandon(mine.ticket, std::string(100'000, 'x'));
    EXPECT_EQ(session_->number({"STRLEN", key()}), 57 + 512);
    EXPECT_EQ(store_->claim(request()).index(), 0U);
}

TEST_F(RedisLease, r4_5_the_heartbeat_holds_a_lease_until_it_ends) {
    const auto mine = won(milliseconds{200});
    std::stop_source lost;
    std::atomic<std::chrono::nanoseconds::rep> renewed_at{0};
    {
        const auto beat = store_->heartbeat().keep(
            mine.ticket, milliseconds{200}, seconds{600}, lost, renewed_at, []() noexcept {
                return std::chrono::nanoseconds(BootClock::now().time_since_epoch());
            });
        const auto until = std::chrono::steady_clock::now() + milliseconds{600};
        while (std::chrono::steady_clock::now() < until) {
            ASSERT_EQ(store_->claim(request()).index(), 2U) << "in progress";
        }
        EXPECT_GT(renewed_at.load(), 0);
        EXPECT_FALSE(lost.stop_requested());
    }
    let_life_pass_to(week);
    EXPECT_TRUE(won().takeover);
}

TEST_F(RedisLease, r4_5_the_heartbeat_tells_the_handler_that_its_lease_is_lost) {
    const auto mine = won(milliseconds{60});
    session_->run({"DEL", key()});
    std::stop_source lost;
    std::atomic<std::chrono::nanoseconds::rep> renewed_at{0};
    const auto beat = store_->heartbeat().keep(
        mine.ticket, milliseconds{60}, seconds{600}, lost, renewed_at, []() noexcept {
            return std::chrono::nanoseconds(BootClock::now().time_since_epoch());
        });
    for (int look = 0; look < 20'000 && !lost.stop_requested(); ++look) {
        std::this_thread::sleep_for(milliseconds{1});
    }
    EXPECT_TRUE(lost.stop_requested());
}

} // namespace
