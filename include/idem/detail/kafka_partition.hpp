// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_PARTITION_HPP
#define IDEM_DETAIL_KAFKA_PARTITION_HPP

// What a source knows of one partition.

#include <idem/detail/kafka_client.hpp>
#include <idem/detail/kafka_tracker.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace idem::inline v0::detail {

class KafkaOwnership;

/// Lives as long as its source, whoever owns the partition: deliveries refer to it.
struct KafkaPartition {
    using Time = std::chrono::steady_clock::time_point;
    /// A record that was settled as retry.
    struct Returned {
        KafkaRawMessage record;
        Time due;
    };

    const std::string topic, name; // name: cluster/topic[@topic epoch]/number
    const std::int32_t number;
    const std::uint64_t lane;

    // Guarded by KafkaOwnership.
    std::uint64_t epoch = 0; // 0: not ours
    KafkaTracker tracker{};
    std::int64_t committed = -1; // by us in this epoch, or on its way
    std::int64_t confirmed = -1; // by us in this epoch, and answered
    std::size_t finished = 0;    // since the last commit

    // Of the source's thread.
    KafkaQueue queue{};               // of librdkafka's, not forwarded to that of the consumer
    std::vector<Returned> returned{}; // ascending by offset
    std::size_t suspects = 0;         // how many more may have been given before
    bool paused = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_PARTITION_HPP
