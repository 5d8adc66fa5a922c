// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_REDIS_STREAM_OPTIONS_HPP
#define IDEM_BROKER_REDIS_STREAM_OPTIONS_HPP

// Which stream, group and consumer, and how patient.

#include <idem/error.hpp>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace idem::inline v0 {

struct RedisStreamOptions {
    std::string stream;
    std::string group;
    std::string consumer;      ///< unique among those that run; the same again after a restart
    std::string dead_stream{}; ///< default: stream + ":dead"
    std::string payload_field = "payload"; ///< empty: no field is the payload
    std::string start = "0"; ///< of a group that is made here: after this entry id; "$": new ones
    std::size_t count = 64;  ///< entries per read, at most
    milliseconds claim_idle{60'000}; ///< whose owner was silent for so long is taken over
    milliseconds deadline{2'000};    ///< of every call
};

namespace detail {

/// Throws: std::invalid_argument naming the field.
inline RedisStreamOptions checked(RedisStreamOptions options) {
    auto refuse = [](const std::string& problem) {
        throw std::invalid_argument("idem: RedisStreamOptions." + problem);
    };
    const std::pair<const char*, const std::string*> names[] = {
        {"stream", &options.stream}, {"group", &options.group}, {"consumer", &options.consumer}};
    for (const auto& [field, value] : names) {
        if (value->empty()) {
            refuse(std::string(field) + " is empty");
        }
    }
    if (options.dead_stream.empty()) {
        options.dead_stream = options.stream + ":dead";
    }
    if (options.dead_stream == options.stream) {
        refuse("dead_stream is the stream itself");
    }
    if (options.count == 0) {
        refuse("count is 0; at least 1 is needed");
    }
    if (options.claim_idle < milliseconds{30}) {
        refuse("claim_idle must be at least 30 ms; deliveries are extended at a third of it");
    }
    if (options.deadline < milliseconds{1}) {
        refuse("deadline must be at least 1 ms");
    }
    return options;
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_BROKER_REDIS_STREAM_OPTIONS_HPP
