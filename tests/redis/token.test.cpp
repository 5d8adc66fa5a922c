// SPDX-License-Identifier: MIT
// One-time tokens in Redis, beyond the laws that every token store keeps.

#include <idem/store/redis_token.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <variant>

#include "support/needs.hpp"
#include "support/redis_server.hpp"

namespace {

using namespace idem;
using testing_support::RedisServer;
using testing_support::RedisSession;
using testing_support::shared_redis;

class RedisToken : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(RedisServer::missing());
        store_.emplace(shared_redis().address(), RedisOptions{.deadline = seconds{20}});
        session_.emplace(shared_redis().address());
    }
    [[nodiscard]] ClaimRequest redeem(std::string_view token, std::string_view id = "m") const {
        return {.key = {scope_, id}, .token = token};
    }
    [[nodiscard]] std::string key(std::string_view token) const {
        return detail::redis_key("idem", {scope_, token});
    }
    [[nodiscard]] milliseconds life(std::string_view token) {
        return milliseconds(session_->number({"PTTL", key(token)}));
    }
    [[nodiscard]] std::string_view reason_of(const Claim<RedisTokenStore::Ticket>& claim) {
        return std::get<Refused>(claim).reason;
    }

    std::string scope_ = idem::testing::fresh_scope();
    std::optional<RedisTokenStore> store_;
    std::optional<RedisSession> session_;
};

TEST_F(RedisToken, r6_1_redeem_replaces_the_ttl_by_the_retention) {
    const auto token = store_->issue(scope_, seconds{5});
    EXPECT_LE(life(token), seconds{604'800 + 5});
    EXPECT_GT(life(token), seconds{604'800 - 60}) << "remembered as expired for a week";
    auto asked = redeem(token);
    asked.lease = seconds{60};
    asked.retention = seconds{3'600};
    const auto mine = std::get<0>(store_->claim(asked));
    EXPECT_LE(life(token), seconds{3'660});
    EXPECT_EQ(store_->complete(mine.ticket, "paid"), TicketState::valid);
    EXPECT_LE(life(token), seconds{3'600});
    EXPECT_GT(life(token), seconds{3'500});
}

TEST_F(RedisToken, r6_1_an_expired_token_is_told_from_an_unknown_and_a_spent_one) {
    const auto expired = store_->issue(scope_, seconds{1});
    const auto spent = store_->issue(scope_, seconds{60});
    static_cast<void>(std::get<0>(store_->claim(redeem(spent, "first"))));
    session_->run(
        {"PEXPIRE", key(expired), std::to_string(milliseconds(seconds{604'800}).count())});
    EXPECT_EQ(reason_of(store_->claim(redeem(expired))), reason::token_expired);
    EXPECT_EQ(reason_of(store_->claim(redeem(spent))), reason::token_spent);
    EXPECT_EQ(reason_of(store_->claim(redeem("never issued"))), reason::token_unknown);
    EXPECT_EQ(session_->number({"EXISTS", key("never issued")}), 0) << "a guess makes no record";
}

TEST_F(RedisToken, r6_1_spent_wins_over_conflict_and_over_in_progress) {
    const Fingerprint intent{.high = 1, .low = 1, .algorithm = 1};
    const auto token = store_->issue(scope_, seconds{60}, intent);
    auto mine = redeem(token, "mine");
    mine.fingerprint = intent;
    const auto held = std::get<0>(store_->claim(mine));
    auto stranger = redeem(token, "stranger");
    stranger.fingerprint = {.high = 2, .low = 2, .algorithm = 1};
    EXPECT_EQ(reason_of(store_->claim(stranger)), reason::token_spent);
    EXPECT_EQ(store_->complete(held.ticket, "paid"), TicketState::valid);
    EXPECT_EQ(reason_of(store_->claim(stranger)), reason::token_spent);
    stranger.token_may_be_new = true;
    EXPECT_EQ(reason_of(store_->claim(stranger)), reason::token_spent) << "on the fast path too";
    store_->abandon(held.ticket, "too late");
    EXPECT_EQ(std::get<Completed>(store_->claim(mine)).result, "paid");
}

TEST_F(RedisToken, r6_1_a_token_given_back_stays_its_holders) {
    const auto token = store_->issue(scope_, seconds{60});
    const auto first = std::get<0>(store_->claim(redeem(token, "mine")));
    store_->abandon(first.ticket, "failed");
    EXPECT_EQ(reason_of(store_->claim(redeem(token, "stranger"))), reason::token_spent);
    const auto second = std::get<0>(store_->claim(redeem(token, "mine")));
    EXPECT_EQ(second.attempt, 2U);
    EXPECT_FALSE(second.takeover);
    EXPECT_EQ(store_->park(second.ticket, "unknown"), TicketState::valid);
    EXPECT_TRUE(std::holds_alternative<Parked>(store_->claim(redeem(token, "mine"))));
    EXPECT_EQ(reason_of(store_->claim(redeem(token, "stranger"))), reason::token_spent);
}

TEST_F(RedisToken, plain_claims_live_beside_tokens) {
    const auto plain = std::get<0>(store_->claim({.key = {scope_, "m"}}));
    EXPECT_EQ(store_->complete(plain.ticket, "done"), TicketState::valid);
    EXPECT_EQ(std::get<Completed>(store_->claim({.key = {scope_, "m"}})).result, "done");
    EXPECT_EQ(session_->number({"STRLEN", key("m")}), 14 + 4) << "no holder";
}

TEST_F(RedisToken, issue_refuses_what_is_past_the_limits_before_anything_is_written) {
    EXPECT_THROW(static_cast<void>(store_->issue("", seconds{60})), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(store_->issue(std::string(129, 's'), seconds{60})),
                 std::invalid_argument);
    EXPECT_THROW(static_cast<void>(store_->issue(scope_, seconds{0})), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(store_->issue(scope_, seconds{-1})), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(store_->issue(scope_, seconds{2'000'000'000})),
                 std::invalid_argument);
}

} // namespace
