// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_CONNECTIONS_HPP
#define IDEM_DETAIL_REDIS_CONNECTIONS_HPP

// The connections of a Redis store, and the rule for a link that breaks while an answer is due.

#include <idem/detail/redis_address.hpp>
#include <idem/detail/redis_lanes.hpp>

#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

namespace idem::inline v0 {

struct RedisOptions {
    std::string prefix = "idem"; ///< of every key; any bytes but { and }
    /// Shared by all threads, whose commands travel together. One carries them all as long as it
    /// answers at once; each further one is taken while those before it are on their way for
    /// longer. More pay where the server is far. One besides renews leases.
    std::size_t connections = 2;
    milliseconds deadline{2'000}; ///< of every call, the wait for a connection included
    /// How often a call looks for its answer before it sleeps until it comes. 0: never; saves
    /// processor time, and costs up to half of the throughput of a server that is near. Where it
    /// is in vain, because the server is far, it stops by itself.
    unsigned looks = 60;
};

namespace detail {

/// Connects to nothing before the first call.
/// Concurrency: any number of threads.
class RedisConnections {
public:
    /// Throws: std::invalid_argument naming what is wrong with the address or the options.
    RedisConnections(std::string_view address, const RedisOptions& options)
        : deadline_(checked(options))
        , shared_(parse_redis_address(address), options.connections, options.looks)
        , renewing_(parse_redis_address(address), 1, options.looks) {}

    /// Runs `call(lanes, deadline)`, which must be harmless to repeat: while the deadline
    /// lasts it is run again where the link broke with an answer due.
    /// Throws: StoreError unavailable where nothing was sent, in_doubt where the answer never came;
    /// what `call` throws.
    template <class Call>
    auto run(const Call& call) {
        return run_on(shared_, call);
    }
    /// The same on the connection that nobody but the heartbeat uses.
    template <class Call>
    auto run_renewal(const Call& call) {
        return run_on(renewing_, call);
    }

private:
    static milliseconds checked(const RedisOptions& options) {
        if (options.deadline <= milliseconds{0}) {
            throw std::invalid_argument("idem: RedisOptions::deadline must be greater than 0");
        }
        if (options.connections == 0) {
            throw std::invalid_argument(
                "idem: RedisOptions::connections is 0; it must be at least 1");
        }
        if (options.prefix.find_first_of("{}") != std::string::npos) {
            throw std::invalid_argument("idem: RedisOptions::prefix must not contain { or }: they "
                                        "tell a cluster what to hash");
        }
        return options.deadline;
    }

    template <class Call>
    auto run_on(RedisLanes& lanes, const Call& call) -> decltype(call(lanes, Deadline{})) {
        const Deadline deadline = std::chrono::steady_clock::now() + deadline_;
        bool in_doubt = false;
        for (milliseconds pause{5};; pause = pause < milliseconds{100} ? pause * 2 : pause) {
            try {
                return call(lanes, deadline);
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
    RedisLanes shared_, renewing_;
};

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_DETAIL_REDIS_CONNECTIONS_HPP
