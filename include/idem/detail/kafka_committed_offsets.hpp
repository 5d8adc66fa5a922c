// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_COMMITTED_OFFSETS_HPP
#define IDEM_DETAIL_KAFKA_COMMITTED_OFFSETS_HPP

// What a group has committed, asked beside its members.

#include <idem/broker/kafka_options.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/detail/kafka_ownership.hpp>
#include <idem/detail/kafka_transactional_producer.hpp>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// Whether all of these offsets, or greater ones, are committed; none: it was not to be known in
/// time. Under read_committed the broker does not answer while a transaction holds a pending offset
/// of a partition, so an answer is final.
/// Cost: a client of its own, for a call that is seldom needed: it disturbs no membership.
inline std::optional<bool> kafka_are_committed(const KafkaOptions& options,
                                               const std::vector<KafkaCommitted>& expected,
                                               KafkaDeadline until) {
    auto config = kafka_consumer_config(options);
    config.set("isolation.level", "read_committed");
    const auto handle = std::move(config).make(RD_KAFKA_CONSUMER);
    const auto asked = kafka_partitions(expected.size());
    for (const auto& one : expected) {
        add_partition(asked, one.partition->topic, one.partition->number);
    }
    for (;;) {
        const int time = kafka_time_left(until);
        const auto error = rd_kafka_committed(handle.get(), asked.get(), time > 0 ? time : 1);
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
            break;
        }
        if (time == 0 || kafka_fault(error) == Fault::rejected) {
            return std::nullopt;
        }
        rd_kafka_poll(handle.get(), 10);
    }
    bool all = true;
    for (std::size_t at = 0; at < expected.size(); ++at) {
        const auto& one = asked->elems[at];
        if (one.err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return std::nullopt;
        }
        all = all && one.offset >= expected[at].offset;
    }
    return all;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_COMMITTED_OFFSETS_HPP
