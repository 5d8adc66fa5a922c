// SPDX-License-Identifier: MIT
// The README's fence in the user's own Redis script: a late owner's write changes nothing.

#include <idem/consumer.hpp>
#include <idem/store/redis_lock.hpp>
#include <idem/strategy/distributed_lock.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include "support/needs.hpp"
#include "support/redis_server.hpp"

namespace {

using namespace idem;
using testing_support::RedisServer;
using testing_support::RedisSession;
using testing_support::shared_redis;

std::string readme_script() {
    std::ifstream readme(IDEM_README);
    std::string script;
    bool inside = false;
    for (std::string line; std::getline(readme, line);) {
        if (inside && line == "```") {
            return script;
        }
        if (inside) {
            script += line + '\n';
        }
        inside = inside || line == "```lua";
    }
    throw std::runtime_error("README.md has no block of Lua");
}

class RedisFenceSnippet : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(RedisServer::missing());
        session_.emplace(shared_redis().address());
    }
    [[nodiscard]] const std::string& shipment() const { return shipment_; }
    long long write(const std::string& label, std::uint64_t fence) {
        return session_->number({"EVAL", script_, "1", shipment_, label, std::to_string(fence)});
    }
    std::string label() { return session_->text({"HGET", shipment_, "label"}); }

private:
    std::string script_ = readme_script();
    std::string shipment_ = "shipment:" + idem::testing::fresh_scope();
    std::optional<RedisSession> session_;
};

TEST_F(RedisFenceSnippet, r4_3_an_older_fence_writes_nothing_and_an_equal_or_greater_one_does) {
    const struct {
        std::uint64_t fence;
        long long written;
    } writes[] = {{7, 1}, {7, 1}, {6, 0}, {8, 1}, {7, 0}, {8, 1}};
    int number = 0;
    std::string stands;
    for (const auto& each : writes) {
        const auto text = std::to_string(++number);
        EXPECT_EQ(write(text, each.fence), each.written) << "write " << number;
        stands = each.written == 1 ? text : stands;
        EXPECT_EQ(label(), stands) << "write " << number;
    }
}

TEST_F(RedisFenceSnippet, r4_3_fences_of_real_leases_are_told_apart) {
    RedisLockStore store(shared_redis().address());
    const ClaimRequest asked{.key = {shipment(), "order-7"}, .lease = milliseconds{50}};
    const auto late = std::get<0>(store.claim(asked));
    auto again = store.claim(asked);
    while (!std::holds_alternative<Claimed<RedisLockStore::Ticket>>(again)) {
        std::this_thread::sleep_for(milliseconds{5}); // until the lease is over
        again = store.claim(asked);
    }
    const auto& newer = std::get<0>(again);
    EXPECT_EQ(write("newer", newer.fence), 1);
    EXPECT_EQ(write("late", late.fence), 0);
    EXPECT_EQ(label(), "newer");
    EXPECT_EQ(store.complete(late.ticket, "late"), TicketState::outdated);
    EXPECT_EQ(store.complete(newer.ticket, "newer"), TicketState::valid);
}

} // namespace
