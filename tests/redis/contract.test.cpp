// SPDX-License-Identifier: MIT
// RedisLockStore and RedisTokenStore keep every law that they claim, on a real server.

#include <idem/store/redis_lock.hpp>
#include <idem/store/redis_token.hpp>
#include <idem/testing/store_contract.hpp>

#include <chrono>
#include <string>
#include <thread>

#include "support/needs.hpp"
#include "support/redis_server.hpp"

namespace {

using idem::testing_support::RedisServer;
using idem::testing_support::RedisSession;
using idem::testing_support::shared_redis;

std::string missing(const std::string& why) {
    if (!why.empty() && idem::testing_support::servers_required()) {
        ADD_FAILURE() << why;
    }
    return why;
}

template <class S>
class RedisHarness : public idem::testing::Differences {
public:
    using Store = S;
    static std::string missing() { return ::missing(RedisServer::missing()); }

    explicit RedisHarness(const RedisServer& server = shared_redis())
        : address_(server.address()) {}
    S& store() { return store_; }
    /// Returns when the server, by its own clock, has forgotten a key of such a lease.
    void let_lease_pass(idem::milliseconds lease) {
        RedisSession session(address_);
        const auto key = "lease:" + idem::testing::fresh_scope();
        session.run({"SET", key, "", "PX", std::to_string(lease.count() + 1)});
        while (session.number({"EXISTS", key}) == 1) {
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }

private:
    std::string address_;
    S store_{address_, {.deadline = idem::milliseconds{20'000}}};
};

struct LoggingServer {
    RedisServer server{{.arguments = {"--appendonly", "yes", "--appendfsync", "always"}}};
};

/// With an append-only file the records outlive the server.
class DurableHarness : LoggingServer, public RedisHarness<idem::RedisLockStore> {
public:
    static constexpr bool survives_restart = true;
    static std::string missing() { return ::missing(RedisServer::missing_program()); }
    DurableHarness() : RedisHarness(server) {}
    void restart() { server.restart(); }
};

using LockHarness = RedisHarness<idem::RedisLockStore>;
using TokenHarness = RedisHarness<idem::RedisTokenStore>;

} // namespace

namespace idem::testing {

INSTANTIATE_TYPED_TEST_SUITE_P(RedisLockStore, RecordContract, LockHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisLockStore, LeaseStoreContract, LockHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisLockStore, RenewableStoreContract, LockHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisLockStore, RefundingStoreContract, LockHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisLockStore, ParkingStoreContract, LockHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisLockStore, BatchStoreContract, LockHarness);

INSTANTIATE_TYPED_TEST_SUITE_P(RedisTokenStore, RecordContract, TokenHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisTokenStore, LeaseStoreContract, TokenHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisTokenStore, RenewableStoreContract, TokenHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisTokenStore, RefundingStoreContract, TokenHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisTokenStore, ParkingStoreContract, TokenHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisTokenStore, BatchStoreContract, TokenHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisTokenStore, TokenStoreContract, TokenHarness);

INSTANTIATE_TYPED_TEST_SUITE_P(RedisLockStoreWithLog, RecordContract, DurableHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(RedisLockStoreWithLog, LeaseStoreContract, DurableHarness);

} // namespace idem::testing
