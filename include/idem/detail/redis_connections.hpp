// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_CONNECTIONS_HPP
#define IDEM_DETAIL_REDIS_CONNECTIONS_HPP

// The connections of a Redis store, and the rule for a link that breaks while an answer is due.

#include <idem/detail/connection_pool.hpp>
#include <idem/detail/hiredis.hpp>

#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace idem::inline v0 {

struct RedisOptions {
    std::string prefix = "idem";  ///< of every key; any bytes but { and }
    std::size_t connections = 8;  ///< at most; one more renews leases
    milliseconds deadline{2'000}; ///< of every call, the wait for a connection included
};

namespace detail {

/// Connects to nothing before the first call.
/// Concurrency: any number of threads.
class RedisConnections {
public:
    /// Throws: std::invalid_argument naming what is wrong with the address or the options.
    RedisConnections(std::string_view address, const RedisOptions& options)
        : deadline_(checked(options))
        , many_(Connect{parse_redis_address(address)},
                options.connections,
                options.deadline,
                "RedisOptions::connections")
        , one_(Connect{parse_redis_address(address)}, 1, options.deadline, "renewing connections") {
    }

    /// Runs `call(connection, deadline)`, which must be harmless to repeat: while the deadline
    /// lasts it is run again where the link broke with an answer due.
    /// Throws: StoreError unavailable where nothing was sent, in_doubt where the answer never came;
    /// what `call` throws.
    template <class Call>
    auto run(const Call& call) {
        return run_on(many_, call);
    }
    /// The same on the connection that nobody but the heartbeat uses.
    template <class Call>
    auto run_renewal(const Call& call) {
        return run_on(one_, call);
    }

private:
    struct Connect {
        RedisAddress address;
        RedisConnection operator()(Deadline deadline) const { return {address, deadline}; }
    };
    using Pool = ConnectionPool<Connect>;

    static milliseconds checked(const RedisOptions& options) {
        if (options.deadline <= milliseconds{0}) {
            throw std::invalid_argument("idem: RedisOptions::deadline must be greater than 0");
        }
        if (options.prefix.find_first_of("{}") != std::string::npos) {
            throw std::invalid_argument("idem: RedisOptions::prefix must not contain { or }: they "
                                        "tell a cluster what to hash");
        }
        return options.deadline;
    }

    template <class Call>
    auto run_on(Pool& pool, const Call& call)
        -> decltype(call(std::declval<RedisConnection&>(), Deadline{})) {
        const Deadline deadline = std::chrono::steady_clock::now() + deadline_;
        bool in_doubt = false;
        for (milliseconds pause{5};; pause = pause < milliseconds{100} ? pause * 2 : pause) {
            try {
                auto lent = pool.take(deadline);
                return call(*lent, deadline);
            } catch (const StoreError& error) {
                in_doubt = in_doubt || error.fault() == Fault::in_doubt;
                if (!in_doubt || error.fault() == Fault::rejected) {
                    throw;
                }
                if (std::chrono::steady_clock::now() + pause >= deadline) {
                    throw StoreError(Fault::in_doubt, error.what());
                }
            }
            std::this_thread::sleep_for(pause);
        }
    }

    milliseconds deadline_;
    Pool many_, one_;
};

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_DETAIL_REDIS_CONNECTIONS_HPP
