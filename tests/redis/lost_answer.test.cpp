// SPDX-License-Identifier: MIT
// A link that breaks after the server acted and before its answer came (semantics.md 2.2–2.4).

#include <idem/store/redis_lock.hpp>
#include <idem/store/redis_token.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <thread>
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

class RedisLostAnswer : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(RedisServer::missing_program());
        server_.emplace(RedisServer::Options{.own = true});
        proxy_.emplace(server_->socket());
        store_.emplace("unix:" + proxy_->socket(), RedisOptions{.deadline = milliseconds{20'000}});
        static_cast<void>(store_->claim({.key = {"lost", "makes the connection"}}));
    }
    [[nodiscard]] static ClaimRequest request(milliseconds lease = seconds{60}) {
        return {.key = {"lost", "m"}, .lease = lease};
    }
    /// Until the server says that the lease is over.
    void let_lease_pass(const Key& record) {
        RedisSession session(server_->address());
        const auto key = detail::redis_key("idem", record);
        const auto grace = milliseconds(request().retention).count();
        while (session.number({"PTTL", key}) > grace) {
            std::this_thread::sleep_for(milliseconds{1});
        }
    }
    [[nodiscard]] std::size_t records() {
        return static_cast<std::size_t>(RedisSession(server_->address()).number({"DBSIZE"}));
    }

    std::optional<RedisServer> server_;
    std::optional<LinkProxy> proxy_;
    std::optional<RedisTokenStore> store_;
};

TEST_F(RedisLostAnswer, r2_2_a_fresh_claim_recognises_its_own_record_and_is_charged_once) {
    proxy_->lose_answers(2);
    const auto mine = std::get<0>(store_->claim(request()));
    EXPECT_TRUE(proxy_->done());
    EXPECT_EQ(mine.attempt, 1U);
    EXPECT_FALSE(mine.takeover);
    EXPECT_GT(mine.fence, 0U);
    EXPECT_EQ(store_->claim(request()).index(), 2U) << "in progress for others";
    EXPECT_EQ(store_->complete(mine.ticket, "done"), TicketState::valid);
}

TEST_F(RedisLostAnswer, r2_2_a_takeover_keeps_its_attempt_its_fence_and_that_it_is_one) {
    const auto token = store_->issue("lost", seconds{60});
    auto redeem = request(milliseconds{2});
    redeem.token = token;
    const auto old = std::get<0>(store_->claim(redeem));
    let_lease_pass({redeem.key.scope, token});
    redeem.lease = seconds{60};
    proxy_->lose_answers(1); // of a token the script is the first trip: it has acted
    const auto mine = std::get<0>(store_->claim(redeem));
    EXPECT_TRUE(proxy_->done());
    EXPECT_TRUE(mine.takeover);
    EXPECT_EQ(mine.attempt, 2U);
    EXPECT_GT(mine.fence, old.fence);
    EXPECT_EQ(store_->complete(old.ticket, "old"), TicketState::outdated);
    EXPECT_EQ(store_->complete(mine.ticket, "done"), TicketState::valid);
}

TEST_F(RedisLostAnswer, r2_3_complete_is_repeated_and_valid) {
    const auto mine = std::get<0>(store_->claim(request()));
    proxy_->lose_answers(2);
    EXPECT_EQ(store_->complete(mine.ticket, "done"), TicketState::valid);
    EXPECT_TRUE(proxy_->done());
    EXPECT_EQ(std::get<Completed>(store_->claim(request())).result, "done");
}

TEST_F(RedisLostAnswer, r2_2_a_late_abandon_never_frees_a_newer_claim) {
    const auto mine = std::get<0>(store_->claim(request()));
    proxy_->lose_answers(1);
    store_->abandon(mine.ticket, "failed");
    EXPECT_TRUE(proxy_->done());
    const auto newer = std::get<0>(store_->claim(request()));
    EXPECT_EQ(newer.attempt, 2U) << "abandoned once, although sent twice";
    store_->abandon(mine.ticket, "failed");
    EXPECT_EQ(store_->renew(newer.ticket, seconds{60}), TicketState::valid);
}

TEST_F(RedisLostAnswer, renew_is_repeated_on_its_own_connection) {
    const auto mine = std::get<0>(store_->claim(request()));
    EXPECT_EQ(store_->renew(mine.ticket, seconds{60}), TicketState::valid);
    proxy_->lose_answers(1);
    EXPECT_EQ(store_->renew(mine.ticket, seconds{60}), TicketState::valid);
    EXPECT_TRUE(proxy_->done());
}

TEST_F(RedisLostAnswer, a_batch_is_repeated_as_a_whole_and_charged_once) {
    const std::vector<ClaimRequest> asked{{.key = {"lost", "a"}}, {.key = {"lost", "b"}}};
    proxy_->lose_answers(1);
    std::vector<RedisTokenStore::Ticket> tickets;
    for (auto& claim : store_->claim(std::span<const ClaimRequest>(asked))) {
        EXPECT_EQ(std::get<0>(claim).attempt, 1U);
        tickets.push_back(std::get<0>(claim).ticket);
    }
    const std::vector<std::string> results{"A", "B"};
    proxy_->lose_answers(1);
    EXPECT_EQ(store_->complete(std::span<const RedisTokenStore::Ticket>(tickets),
                               std::span<const std::string>(results)),
              std::vector(2, TicketState::valid));
    EXPECT_EQ(std::get<Completed>(store_->claim(asked[1])).result, "B");
}

TEST_F(RedisLostAnswer, issue_hands_out_one_token_and_it_is_good) {
    proxy_->lose_answers(1);
    const auto before = records();
    const auto token = store_->issue("lost", seconds{60});
    EXPECT_EQ(records(), before + 2) << "the first drawn is an orphan that nobody knows";
    EXPECT_EQ(store_->claim({.key = {"lost", "m"}, .token = token}).index(), 0U);
}

} // namespace
