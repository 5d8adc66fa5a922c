// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_KAFKA_SINK_OPTIONS_HPP
#define IDEM_BROKER_KAFKA_SINK_OPTIONS_HPP

// Under which name a transactional producer runs, how patient it is, and what its handler sends.

#include <idem/broker/kafka_options.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/error.hpp>

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

struct KafkaSinkOptions {
    /// Of this instance alone, and the same after its restart: its successor ends what it left open.
    /// With a name that changes, what a killed instance left open holds readers and the next owner
    /// of its partitions up until the timeout.
    std::string transactional_id;
    /// Of begin(), and of each step of a commit or an abort. A commit that took longer is resolved
    /// within another.
    milliseconds deadline{30'000};
    /// From begin() to commit: more than all handlers of a batch take. After that the broker aborts.
    /// It allows 15 minutes at most, unless it is told otherwise.
    milliseconds transaction_timeout{60'000};
    /// Of librdkafka's producer, over those of the source: compression.type, partitioner …
    std::vector<KafkaSetting> settings{};
};

/// A header of an output.
using KafkaHeader = std::pair<std::string_view, std::string_view>;

/// What a handler produces. A view without data (as `{}`) is null: no key, a tombstone.
struct KafkaOutput {
    std::string_view topic;
    std::string_view key{};
    std::string_view payload{};
    std::span<const KafkaHeader> headers{};
    std::int32_t partition = -1; ///< -1: by the partitioner
};

/// An output was refused for what it is: too large, no such topic. The handler's failure, not the
/// broker's.
class KafkaOutputError : public std::runtime_error {
public:
    KafkaOutputError(rd_kafka_resp_err_t code, const std::string& what)
        : std::runtime_error(what)
        , code_(code) {}
    [[nodiscard]] rd_kafka_resp_err_t code() const noexcept { return code_; }

private:
    rd_kafka_resp_err_t code_;
};

namespace detail {

/// One who reads what is not committed would not wait for the offsets of a transaction in progress
/// when it comes to own its partition, and handle again what that transaction then commits.
/// Throws: std::invalid_argument naming the setting.
inline const KafkaOptions& of_transactions(const KafkaOptions& source) {
    for (const auto& [name, value] : source.settings) {
        if (name == "isolation.level" && value != "read_committed") {
            throw std::invalid_argument("idem: KafkaOptions.settings has isolation.level=" + value +
                                        ", but a KafkaSink needs read_committed, the default");
        }
    }
    return source;
}

/// Throws: std::invalid_argument naming the field, or the setting.
inline KafkaSinkOptions checked(KafkaSinkOptions options) {
    const auto refuse = [](const std::string& problem) {
        throw std::invalid_argument("idem: KafkaSinkOptions." + problem);
    };
    if (options.transactional_id.empty()) {
        refuse("transactional_id is empty; each instance needs a name of its own that it keeps");
    }
    if (options.deadline < milliseconds{1}) {
        refuse("deadline must be at least 1 ms");
    }
    if (options.transaction_timeout < milliseconds{1'000}) {
        refuse("transaction_timeout must be at least 1 s");
    }
    for (const auto& setting : options.settings) {
        for (const std::string_view own : {"bootstrap.servers",
                                           "metadata.broker.list",
                                           "transactional.id",
                                           "transaction.timeout.ms",
                                           "message.timeout.ms",
                                           "delivery.timeout.ms",
                                           "enable.idempotence",
                                           "acks",
                                           "request.required.acks"}) {
            if (setting.first == own) {
                refuse("settings has " + setting.first + ", which the sink decides");
            }
        }
    }
    return options;
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_BROKER_KAFKA_SINK_OPTIONS_HPP
