// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_MEMBER_HPP
#define IDEM_DETAIL_KAFKA_MEMBER_HPP

// Which member of which generation of its group a consumer is.

#include <idem/detail/kafka_client.hpp>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

namespace idem::inline v0::detail {

/// -1: of no generation; a transaction under such metadata is not fenced at all.
[[nodiscard]] inline std::int32_t
kafka_generation(const rd_kafka_consumer_group_metadata_t* metadata) {
    // As librdkafka writes it: a mark of 7 bytes, then the generation as this machine has it.
    constexpr std::string_view mark = "CGMDv2:";
    void* bytes = nullptr;
    std::size_t size = 0;
    const KafkaError error(rd_kafka_consumer_group_metadata_write(metadata, &bytes, &size));
    if (error) {
        return -1;
    }
    std::int32_t generation = -1;
    if (size >= mark.size() + sizeof generation &&
        std::memcmp(bytes, mark.data(), mark.size()) == 0) {
        std::memcpy(&generation, static_cast<const char*>(bytes) + mark.size(), sizeof generation);
    }
    rd_kafka_mem_free(nullptr, bytes);
    return generation;
}

/// The consumer's membership as it is now, for transactions that begin under it; null: it has none.
[[nodiscard]] inline std::shared_ptr<const rd_kafka_consumer_group_metadata_t>
kafka_member(rd_kafka_t* consumer) {
    KafkaGroupMetadata metadata(rd_kafka_consumer_group_metadata(consumer));
    if (!metadata || kafka_generation(metadata.get()) < 0) {
        return {};
    }
    return {metadata.release(), KafkaDestroy<rd_kafka_consumer_group_metadata_destroy>{}};
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_MEMBER_HPP
