// SPDX-License-Identifier: MIT
// The redis component compiles and links; where no server listens the store says so.

#include <idem/idem.hpp>
#include <idem/store/redis_lock.hpp>

#include <cstdio>

int main() {
    idem::RedisLockStore store{"unix:///nonexistent/redis.sock"};
    idem::IdempotentConsumer consumer{store, idem::DistributedLock{}};
    int ran = 0;
    try {
        (void)consumer("billing", "order-1", [&] { ++ran; });
    } catch (const idem::StoreError& error) {
        std::printf("%s\n", error.what());
        return error.fault() == idem::Fault::unavailable && ran == 0 ? 0 : 1;
    }
    return 1;
}
