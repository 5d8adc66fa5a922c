// SPDX-License-Identifier: MIT
#ifndef IDEM_STORE_REDIS_LOCK_HPP
#define IDEM_STORE_REDIS_LOCK_HPP

// Records in Redis under a lease, for DistributedLock and its like.

#include <idem/detail/redis_lease_store.hpp>

#include <string_view>

namespace idem::inline v0 {

/// A lease store in Redis 7.0 or later (Valkey too): one packed string per key, one atomic step per
/// transition, the server's expiry as the lease's clock. A key of another type or with a foreign
/// value is refused, never written over. The fence is the server's time in microseconds: a server's
/// clock that is set back while no record of a key is kept can repeat an older fence.
/// Concurrency: every member from any number of threads. Their commands share a few connections,
/// and travel together where many call at once. Not across fork(): make a store in each process.
/// Cost: claim and complete one round trip each; the duplicate of a completed key one, without a
/// script.
class RedisLockStore : public detail::RedisLeaseStore<RedisLockStore> {
public:
    /// `address` is redis://user:password@host:port/database, unix:/path?db=database, host:port or
    /// a path. Connects to nothing before the first call.
    /// Throws: std::invalid_argument naming what is wrong, never the password.
    explicit RedisLockStore(std::string_view address, const RedisOptions& options = {})
        : RedisLeaseStore(address, options) {}
};

static_assert(BeatingStore<RedisLockStore> && BatchStore<RedisLockStore> &&
              RefundingStore<RedisLockStore> && ParkingStore<RedisLockStore>);

} // namespace idem::inline v0

#endif // IDEM_STORE_REDIS_LOCK_HPP
