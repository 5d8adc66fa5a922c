// SPDX-License-Identifier: MIT
#ifndef IDEM_STORE_REDIS_TOKEN_HPP
#define IDEM_STORE_REDIS_TOKEN_HPP

// One-time tokens in Redis, for OneTimeToken.

#include <idem/detail/redis_lease_store.hpp>

#include <stdexcept>
#include <string>
#include <string_view>

namespace idem::inline v0 {

/// RedisLockStore, and tokens: the same records, the same scripts. What is said there holds here.
class RedisTokenStore : public detail::RedisLeaseStore<RedisTokenStore> {
public:
    /// As RedisLockStore.
    explicit RedisTokenStore(std::string_view address, const RedisOptions& options = {})
        : RedisLeaseStore(address, options) {}

    /// A token of 32 hexadecimal digits, 128 random bits, good for a first redeem within `ttl`. It
    /// is remembered as expired for seven days more. `intent` is the fingerprint that a redeem must
    /// not contradict; without one the first redeem binds it.
    /// Cost: one round trip. Where it throws, no token is out that anybody could know.
    /// Throws: StoreError; std::invalid_argument for a scope or a ttl past the limits.
    [[nodiscard]] std::string
    issue(std::string_view scope, seconds ttl, const Fingerprint& intent = {}) {
        require_valid({scope, "token"});
        detail::require_ttl(ttl);
        detail::require_redis_times(ttl, remembered, "ttl");
        const auto record = detail::pack_redis_record({.state = detail::RedisState::issued,
                                                       .fingerprint = intent,
                                                       .grace = remembered,
                                                       .attempts = 0});
        const auto px = std::to_string((milliseconds(ttl) + remembered).count());
        return connections().run([&](detail::RedisLanes& lanes, detail::Deadline deadline) {
            auto token = detail::fresh_token();
            const auto key = detail::redis_key(prefix(), {scope, token});
            detail::RedisPipeline asked;
            asked.append({"SET", key, record, "NX", "PX", px});
            const auto made = std::move(lanes.exchange(asked, deadline)[0]);
            if (made.value().is_error()) {
                throw detail::redis_error(lanes.where() + " (key " +
                                              detail::printable_redis_key(key) + ")",
                                          made.value().text());
            }
            if (made.value().is_nil()) {
                throw StoreError(Fault::unavailable, "idem: the token drawn exists already");
            }
            return token;
        });
    }

private:
    static constexpr milliseconds remembered = std::chrono::hours{24 * 7};
};

static_assert(TokenStore<RedisTokenStore> && BeatingStore<RedisTokenStore> &&
              BatchStore<RedisTokenStore> && RefundingStore<RedisTokenStore> &&
              ParkingStore<RedisTokenStore>);

} // namespace idem::inline v0

#endif // IDEM_STORE_REDIS_TOKEN_HPP
