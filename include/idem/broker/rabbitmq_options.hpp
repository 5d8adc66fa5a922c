// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_RABBITMQ_OPTIONS_HPP
#define IDEM_BROKER_RABBITMQ_OPTIONS_HPP

// Which queue, how much of it at a time, and how patient.

#include <idem/error.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0 {

/// Of basic.consume: x-priority, x-stream-offset …
using RabbitArguments =
    std::vector<std::pair<std::string, std::variant<std::string, std::int64_t, bool>>>;

struct RabbitOptions {
    std::string queue;               ///< is there; at most 225 bytes
    std::string dead_letter_queue{}; ///< default: queue + ".dead"
    /// Makes the dead-letter queue and the retry queues where they are missing (quorum queues), for
    /// which the user needs the permission to configure them. False: all of them are there.
    bool declare_queues = true;
    /// Unacked deliveries at a time: of them half may be held until their retry is due. What waits
    /// here for a handler counts towards consumer_timeout, and is given back after a tenth of it,
    /// so slow handlers want a small one.
    std::size_t prefetch = 256;
    std::string consumer_tag{};                              ///< default: the broker makes one
    RabbitArguments consumer_arguments{};                    ///< in any order
    milliseconds consumer_timeout{std::chrono::minutes{30}}; ///< the broker's own (rabbitmq.conf)
    seconds heartbeat{30};        ///< receive() is called more often; 0: none
    milliseconds deadline{5'000}; ///< of every call: connecting, a request, a confirm
};

namespace detail {

/// Throws: std::invalid_argument naming the field.
inline RabbitOptions checked(RabbitOptions options) {
    auto refuse = [](const std::string& problem) {
        throw std::invalid_argument("idem: RabbitOptions." + problem);
    };
    constexpr std::size_t most = 225; // 255 less what the names of retry queues add
    if (options.queue.empty() || options.queue.size() > most) {
        refuse("queue must have 1 to 225 bytes");
    }
    if (options.dead_letter_queue.empty()) {
        options.dead_letter_queue = options.queue + ".dead";
    }
    if (options.dead_letter_queue == options.queue) {
        refuse("dead_letter_queue is the queue itself");
    }
    if (options.dead_letter_queue.size() > 255) {
        refuse("dead_letter_queue is longer than 255 bytes");
    }
    if (options.prefetch == 0 || options.prefetch > 65'535) {
        refuse("prefetch must be 1 to 65535");
    }
    if (options.consumer_tag.size() > 255) {
        refuse("consumer_tag is longer than 255 bytes");
    }
    for (const auto& [name, value] : options.consumer_arguments) {
        if (name.empty() || name.size() > 128) {
            refuse("consumer_arguments: a name must have 1 to 128 bytes");
        }
    }
    // What is added to a time must not pass its end.
    constexpr milliseconds a_day{std::chrono::hours{24}}, a_year{366 * a_day};
    if (options.consumer_timeout < milliseconds{1'000} || options.consumer_timeout > a_year) {
        refuse("consumer_timeout must be 1 s to 366 days; it is the broker's, not yours to choose");
    }
    if (options.heartbeat < seconds{0} || options.heartbeat > seconds{65'535}) {
        refuse("heartbeat must be 0 to 65535 s");
    }
    if (options.deadline < milliseconds{1} || options.deadline > a_day) {
        refuse("deadline must be 1 ms to a day");
    }
    return options;
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_BROKER_RABBITMQ_OPTIONS_HPP
