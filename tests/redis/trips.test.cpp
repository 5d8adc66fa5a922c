// SPDX-License-Identifier: MIT
// The cost lines of the Redis stores are true: round trips counted between store and server,
// scripts counted by the server.

#include <idem/store/redis_lock.hpp>
#include <idem/store/redis_token.hpp>

#include <gtest/gtest.h>

#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "support/link_proxy.hpp"
#include "support/needs.hpp"
#include "support/redis_server.hpp"

namespace {

using namespace idem;
using testing_support::LinkProxy;
using testing_support::RedisServer;
using testing_support::RedisSession;

class RedisTrips : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(RedisServer::missing_program());
        server_.emplace(RedisServer::Options{.own = true});
        proxy_.emplace(server_->socket());
        lock_.emplace("unix:" + proxy_->socket());
        tokens_.emplace("unix:" + proxy_->socket());
        static_cast<void>(claim("the connection is made")); // and the scripts are loaded
        static_cast<void>(claim("the connection is made"));
        lock_->abandon(won("the scripts are loaded"), "");
        static_cast<void>(lock_->renew(won("renewed"), seconds{30}));
        const std::vector<RedisLockStore::Ticket> two{won("one"), won("two")};
        static_cast<void>(lock_->complete(std::span(two), std::vector<std::string>(2)));
    }
    [[nodiscard]] Claim<RedisLockStore::Ticket> claim(const std::string& id) {
        return lock_->claim({.key = {"trips", id}});
    }
    [[nodiscard]] RedisLockStore::Ticket won(const std::string& id) {
        return std::get<0>(claim(id)).ticket;
    }
    /// Round trips that `work` takes.
    template <class Work>
    unsigned trips(const Work& work) {
        const auto before = proxy_->trips();
        work();
        return proxy_->trips() - before;
    }
    long long scripts() { return RedisSession(server_->address()).calls("evalsha"); }

    std::optional<RedisServer> server_;
    std::optional<LinkProxy> proxy_;
    std::optional<RedisLockStore> lock_;
    std::optional<RedisTokenStore> tokens_;
};

TEST_F(RedisTrips, claim_and_complete_are_two) {
    EXPECT_EQ(trips([&] { static_cast<void>(lock_->complete(won("m"), "result")); }), 2U);
}

TEST_F(RedisTrips, the_duplicate_of_a_completed_key_is_one_without_a_script) {
    ASSERT_EQ(lock_->complete(won("m"), "result"), TicketState::valid);
    const auto before = scripts();
    EXPECT_EQ(trips([&] { EXPECT_TRUE(std::holds_alternative<Completed>(claim("m"))); }), 1U);
    EXPECT_EQ(scripts(), before);
}

TEST_F(RedisTrips, a_fresh_claim_takes_no_script) {
    const auto before = scripts();
    EXPECT_EQ(trips([&] { static_cast<void>(won("m")); }), 1U);
    EXPECT_EQ(scripts(), before);
}

TEST_F(RedisTrips, a_key_in_progress_is_two) {
    const auto mine = won("m");
    EXPECT_EQ(trips([&] { EXPECT_TRUE(std::holds_alternative<InProgress>(claim("m"))); }), 2U);
}

TEST_F(RedisTrips, renew_abandon_refund_and_park_are_one_each) {
    const auto mine = won("m");
    EXPECT_EQ(trips([&] { static_cast<void>(lock_->renew(mine, seconds{30})); }), 1U);
    EXPECT_EQ(trips([&] { lock_->abandon(mine, "why"); }), 1U);
    EXPECT_EQ(trips([&] { lock_->refund(mine); }), 1U);
    EXPECT_EQ(trips([&] { static_cast<void>(lock_->park(mine, "why")); }), 1U);
}

TEST_F(RedisTrips, a_batch_of_free_keys_is_one_and_its_completion_one) {
    std::vector<std::string> ids;
    std::vector<ClaimRequest> asked;
    ids.reserve(100);
    asked.reserve(100);
    for (int i = 0; i < 100; ++i) {
        ids.push_back("m-" + std::to_string(i));
    }
    for (const auto& id : ids) {
        asked.push_back({.key = {"trips", id}});
    }
    std::vector<RedisLockStore::Ticket> tickets;
    EXPECT_EQ(trips([&] {
                  for (auto& claim : lock_->claim(std::span<const ClaimRequest>(asked))) {
                      tickets.push_back(std::get<0>(claim).ticket);
                  }
              }),
              1U);
    const std::vector<std::string> results(tickets.size(), "result");
    EXPECT_EQ(trips([&] {
                  const auto states = lock_->complete(
                      std::span<const RedisLockStore::Ticket>(tickets), std::span(results));
                  EXPECT_EQ(states, std::vector(100, TicketState::valid));
              }),
              1U);
    EXPECT_EQ(trips([&] { static_cast<void>(lock_->claim(std::span<const ClaimRequest>(asked))); }),
              1U)
        << "all are duplicates of completed keys";
}

TEST_F(RedisTrips, a_batch_with_keys_in_progress_is_two) {
    const auto mine = won("busy");
    const std::vector<ClaimRequest> asked{{.key = {"trips", "free"}}, {.key = {"trips", "busy"}}};
    EXPECT_EQ(trips([&] {
                  const auto claims = lock_->claim(std::span<const ClaimRequest>(asked));
                  EXPECT_EQ(claims[0].index(), 0U);
                  EXPECT_TRUE(std::holds_alternative<InProgress>(claims[1]));
              }),
              2U);
}

TEST_F(RedisTrips, issue_and_redeem_are_one_each) {
    static_cast<void>(tokens_->issue("trips", seconds{60})); // makes the connection
    std::string token;
    EXPECT_EQ(trips([&] { token = tokens_->issue("trips", seconds{60}); }), 1U);
    const ClaimRequest asked{.key = {"trips", "m"}, .token = token};
    EXPECT_EQ(trips([&] { EXPECT_EQ(tokens_->claim(asked).index(), 0U); }), 1U);
    EXPECT_EQ(
        trips([&] { EXPECT_TRUE(std::holds_alternative<InProgress>(tokens_->claim(asked))); }), 1U);
}

TEST_F(RedisTrips, a_server_that_forgot_the_scripts_costs_one_more_and_nothing_else) {
    const auto mine = won("m");
    RedisSession(server_->address()).run({"SCRIPT", "FLUSH"});
    EXPECT_EQ(trips([&] { EXPECT_EQ(lock_->renew(mine, seconds{30}), TicketState::valid); }), 2U);
    EXPECT_EQ(trips([&] { EXPECT_EQ(claim("m").index(), 2U); }), 3U);
    EXPECT_EQ(trips([&] { EXPECT_EQ(lock_->complete(mine, "r"), TicketState::valid); }), 2U);
    EXPECT_EQ(trips([&] { EXPECT_EQ(lock_->complete(mine, "r"), TicketState::valid); }), 1U);
}

} // namespace
