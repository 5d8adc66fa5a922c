// SPDX-License-Identifier: MIT
// Handlers wrapped over Redis: DistributedLock and OneTimeToken as a user writes them.

#include <idem/consumer.hpp>
#include <idem/store/redis_lock.hpp>
#include <idem/store/redis_token.hpp>
#include <idem/strategy/distributed_lock.hpp>
#include <idem/strategy/one_time_token.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/needs.hpp"
#include "support/redis_server.hpp"

namespace {

using namespace idem;
using testing_support::RedisServer;
using testing_support::shared_redis;

struct Charge {
    std::string id;
    int cents = 0;
    std::string token{};
};

std::string fresh_scope() {
    static const auto run = std::to_string(std::random_device{}());
    static std::atomic<int> number{0};
    return "consumer-" + run + "-" + std::to_string(++number);
}

TEST(RedisConsumer, a_lock_handler_runs_once_for_many_deliveries_on_many_threads) {
    IDEM_TEST_NEEDS(RedisServer::missing());
    RedisLockStore store{shared_redis().address(), {.deadline = seconds{20}}};
    const IdempotentConsumer consumer{store, DistributedLock{}};
    std::atomic<int> ran{0};
    const auto charge = consumer.wrap(fresh_scope(), &Charge::id, [&](const Charge& message) {
        ++ran;
        return message.cents;
    });
    static_assert(decltype(charge)::guarantee == Guarantee::at_least_once);
    std::atomic<int> wrong{0};
    {
        std::vector<std::jthread> threads;
        threads.reserve(8);
        for (int thread = 0; thread < 8; ++thread) {
            threads.emplace_back([&] {
                for (int number = 0; number < 50; ++number) {
                    for (;;) {
                        const auto outcome = charge(Charge{std::to_string(number), number});
                        if (outcome.status() == Status::in_progress) {
                            std::this_thread::yield();
                            continue;
                        }
                        wrong +=
                            outcome.settlement().action != Action::ack || outcome.value() != number;
                        break;
                    }
                }
            });
        }
    }
    EXPECT_EQ(ran, 50);
    EXPECT_EQ(wrong, 0);
}

TEST(RedisConsumer, a_batch_claims_and_completes_in_one_pipeline_each) {
    IDEM_TEST_NEEDS(RedisServer::missing());
    RedisLockStore store{shared_redis().address(), {.deadline = seconds{20}}};
    const IdempotentConsumer consumer{store, DistributedLock{}};
    int ran = 0;
    const auto charge = consumer.wrap(fresh_scope(), &Charge::id, [&](const Charge& message) {
        ++ran;
        if (message.cents < 0) {
            throw std::runtime_error("refused");
        }
        return message.cents;
    });
    const std::vector<Charge> charges{{"a", 1}, {"b", -1}, {"c", 3}, {"a", 1}};
    const auto first = charge.batch(charges);
    ASSERT_EQ(first.size(), 4U);
    EXPECT_EQ(first[0].status(), Status::executed);
    EXPECT_EQ(first[1].status(), Status::failed);
    EXPECT_EQ(first[2].value(), 3);
    EXPECT_EQ(first[3].value(), 1);
    EXPECT_EQ(ran, 3);
    const auto second = charge.batch(charges);
    EXPECT_EQ(second[0].status(), Status::replayed);
    EXPECT_EQ(second[1].status(), Status::failed) << "given back, so it ran again";
    EXPECT_EQ(second[1].attempts(), 2U);
    EXPECT_EQ(second[2].value(), 3);
    EXPECT_EQ(ran, 4);
}

TEST(RedisConsumer, a_token_pays_once_and_tells_spent_from_unknown) {
    IDEM_TEST_NEEDS(RedisServer::missing());
    RedisTokenStore store{shared_redis().address(), {.deadline = seconds{20}}};
    const IdempotentConsumer consumer{store, OneTimeToken{}};
    const auto scope = fresh_scope();
    int paid = 0;
    const auto pay = consumer.wrap(
        scope,
        [](const Charge& message) { return Identity{.id = message.id, .token = message.token}; },
        [&](const Charge& message) {
            paid += message.cents;
            return message.cents;
        });
    const auto token = store.issue(scope, seconds{60});
    EXPECT_EQ(pay(Charge{"order", 5, token}).status(), Status::executed);
    EXPECT_EQ(pay(Charge{"order", 5, token}).value(), 5);
    EXPECT_EQ(pay(Charge{"another", 5, token}).settlement().reason, reason::token_spent);
    EXPECT_EQ(pay(Charge{"third", 5, "made up"}).settlement().reason, reason::token_unknown);
    EXPECT_EQ(paid, 5);
}

TEST(RedisConsumer, a_server_that_is_down_runs_no_handler_and_asks_for_a_retry) {
    IDEM_TEST_NEEDS(RedisServer::missing_program());
    RedisServer server{{.own = true}};
    RedisLockStore store{server.address(), {.deadline = milliseconds{500}}};
    const IdempotentConsumer consumer{store, DistributedLock{}};
    int ran = 0;
    const auto charge = consumer.wrap("down", &Charge::id, [&](const Charge&) { ++ran; });
    server.kill();
    const auto outcome = charge.handle(Charge{"m"});
    EXPECT_EQ(outcome.settlement().action, Action::retry);
    EXPECT_EQ(outcome.settlement().reason, reason::store_unavailable);
    EXPECT_EQ(ran, 0);
    server.start();
    EXPECT_EQ(charge(Charge{"m"}).status(), Status::executed);
    EXPECT_EQ(ran, 1);
}

TEST(RedisConsumer, r2_3_a_server_that_hangs_during_complete_neither_loses_nor_doubles) {
    IDEM_TEST_NEEDS(RedisServer::missing_program());
    RedisServer server{{.own = true}};
    RedisLockStore store{server.address(), {.deadline = milliseconds{200}}};
    const IdempotentConsumer consumer{store, DistributedLock{.lease = seconds{60}}};
    int ran = 0;
    const auto charge = consumer.wrap("hang", &Charge::id, [&](const Charge&) {
        ++ran;
        server.pause();
    });
    std::jthread helper([&](const std::stop_token& stop) {
        const auto until = std::chrono::steady_clock::now() + milliseconds{800};
        while (std::chrono::steady_clock::now() < until && !stop.stop_requested()) {
            std::this_thread::sleep_for(milliseconds{5});
        }
        server.resume();
    });
    EXPECT_EQ(charge(Charge{"m"}).status(), Status::executed) << "repeated while the lease lasts";
    helper = {};
    const auto again = consumer.wrap("hang", &Charge::id, [&](const Charge&) { ++ran; });
    EXPECT_EQ(again(Charge{"m"}).settlement().action, Action::ack);
    EXPECT_EQ(ran, 1);
}

} // namespace
