// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_START_HPP
#define IDEM_DETAIL_KAFKA_START_HPP

// Where a partition starts whose offsets somebody keeps beside the broker.

#include <idem/broker/kafka_options.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/detail/kafka_partition.hpp>

#include <chrono>
#include <cstdint>
#include <string>

namespace idem::inline v0::detail {

/// One past what the keeper has; else what the group committed; else what the options say.
/// Throws: StoreError: of the keeper; rejected for an offset past the partition's end, which shows
/// that it is not the partition that was kept of; unavailable where the broker does not say.
inline std::int64_t
kafka_start(rd_kafka_t* consumer, const KafkaOptions& options, const KafkaPartition& partition) {
    const int time = static_cast<int>(options.deadline.count());
    if (const auto next = options.offsets->next(partition.name)) {
        std::int64_t low = 0, high = 0;
        const auto error = rd_kafka_query_watermark_offsets(
            consumer, partition.topic.c_str(), partition.number, &low, &high, time);
        if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
            throw StoreError(Fault::unavailable,
                             kafka_error("end of " + partition.name, error).what());
        }
        if (*next > static_cast<std::uint64_t>(high)) {
            throw StoreError(Fault::rejected,
                             "idem: Kafka: " + partition.name + " ends at " + std::to_string(high) +
                                 ", but the kept offset is " + std::to_string(*next) +
                                 ": the topic was made anew, or lost records; set "
                                 "KafkaOptions.topic_epoch, or correct the row");
        }
        return static_cast<std::int64_t>(*next);
    }
    const auto asked = kafka_partitions(1);
    add_partition(asked, partition.topic, partition.number);
    auto error = rd_kafka_committed(consumer, asked.get(), time);
    error = error == RD_KAFKA_RESP_ERR_NO_ERROR ? asked->elems[0].err : error;
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        throw StoreError(Fault::unavailable,
                         kafka_error("committed offset of " + partition.name, error).what());
    }
    if (asked->elems[0].offset >= 0) {
        return asked->elems[0].offset;
    }
    switch (options.start) {
    case KafkaStart::earliest:
        return RD_KAFKA_OFFSET_BEGINNING;
    case KafkaStart::latest:
        return RD_KAFKA_OFFSET_END;
    case KafkaStart::refuse:
        break;
    }
    throw StoreError(Fault::rejected,
                     "idem: Kafka: no offset is known of " + partition.name +
                         ", and KafkaOptions.start refuses to choose one");
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_START_HPP
