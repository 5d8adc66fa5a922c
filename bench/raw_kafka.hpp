// SPDX-License-Identifier: MIT
#ifndef IDEM_BENCH_RAW_KAFKA_HPP
#define IDEM_BENCH_RAW_KAFKA_HPP

// librdkafka doing the least that works: a loop that commits each second, and one that produces in
// transactions.

#include <idem/detail/kafka_client.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/kafka_server.hpp"

namespace idem::bench {

inline void require(rd_kafka_resp_err_t code) {
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        throw std::runtime_error(rd_kafka_err2str(code));
    }
}
inline void require(rd_kafka_error_t* error) {
    const detail::KafkaError owned(error);
    if (owned) {
        throw std::runtime_error(rd_kafka_error_string(owned.get()));
    }
}

/// Takes what comes in batches; at most once a second the position is committed, without waiting.
class RawKafkaConsumer {
public:
    RawKafkaConsumer(const testing_support::KafkaServer& server,
                     const std::string& group,
                     const std::string& topic,
                     const std::vector<KafkaSetting>& settings = {}) {
        auto config = server.client();
        config.set(settings);
        config.set("group.id", group);
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "true");
        config.set("auto.offset.reset", "earliest");
        handle_ = std::move(config).make(RD_KAFKA_CONSUMER);
        rd_kafka_poll_set_consumer(handle_.get());
        queue_.reset(rd_kafka_queue_get_consumer(handle_.get()));
        const auto topics = detail::kafka_partitions(1);
        rd_kafka_topic_partition_list_add(topics.get(), topic.c_str(), RD_KAFKA_PARTITION_UA);
        require(rd_kafka_subscribe(handle_.get(), topics.get()));
    }
    RawKafkaConsumer(const RawKafkaConsumer&) = delete;
    RawKafkaConsumer& operator=(const RawKafkaConsumer&) = delete;
    ~RawKafkaConsumer() { rd_kafka_consumer_close(handle_.get()); }

    /// `use(message)` of each of at most `at_most`; how many there were.
    template <class Use>
    std::uint64_t take(std::size_t at_most, const Use& use) {
        records_.resize(at_most);
        const auto count =
            rd_kafka_consume_batch_queue(queue_.get(), 100, records_.data(), at_most);
        std::uint64_t taken = 0;
        for (ssize_t at = 0; at < count; ++at) {
            const detail::KafkaRawMessage record(records_[static_cast<std::size_t>(at)]);
            if (record->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
                use(*record);
                ++taken;
            }
        }
        return taken;
    }
    void commit_each_second() {
        const auto now = std::chrono::steady_clock::now();
        if (now - committed_ >= std::chrono::seconds(1)) {
            committed_ = now;
            rd_kafka_commit(handle_.get(), nullptr, 1); // nothing new: an error that says so
        }
    }
    [[nodiscard]] rd_kafka_t* native() const noexcept { return handle_.get(); }

private:
    detail::KafkaHandle handle_;
    detail::KafkaQueue queue_;
    std::vector<rd_kafka_message_t*> records_;
    std::chrono::steady_clock::time_point committed_ = std::chrono::steady_clock::now();
};

/// Consume, produce, and the offsets inside, as librdkafka's own example does it.
class RawKafkaTransactions {
public:
    RawKafkaTransactions(const testing_support::KafkaServer& server,
                         const std::string& name,
                         const std::string& from,
                         std::string to)
        : consumer_(server, name, from)
        , to_(std::move(to)) {
        auto config = server.client();
        config.set("transactional.id", name);
        config.set("retry.backoff.ms", "2");
        config.set("linger.ms", "0");
        producer_ = std::move(config).make(RD_KAFKA_PRODUCER);
        require(rd_kafka_init_transactions(producer_.get(), 60'000));
    }

    std::uint64_t copy(std::size_t batch) {
        require(rd_kafka_begin_transaction(producer_.get()));
        std::uint64_t copied = 0;
        while (copied < batch) {
            copied += consumer_.take(batch - copied, [&](const rd_kafka_message_t& record) {
                require(rd_kafka_producev(producer_.get(),
                                          RD_KAFKA_V_TOPIC(to_.c_str()),
                                          RD_KAFKA_V_PARTITION(record.partition),
                                          RD_KAFKA_V_VALUE(record.payload, record.len),
                                          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                          RD_KAFKA_V_END));
            });
        }
        rd_kafka_topic_partition_list_t* assigned = nullptr;
        require(rd_kafka_assignment(consumer_.native(), &assigned));
        const detail::KafkaPartitions offsets(assigned);
        require(rd_kafka_position(consumer_.native(), offsets.get()));
        const detail::KafkaGroupMetadata group(
            rd_kafka_consumer_group_metadata(consumer_.native()));
        require(rd_kafka_send_offsets_to_transaction(
            producer_.get(), offsets.get(), group.get(), 60'000));
        require(rd_kafka_commit_transaction(producer_.get(), 60'000));
        return copied;
    }

private:
    RawKafkaConsumer consumer_;
    std::string to_;
    detail::KafkaHandle producer_;
};

} // namespace idem::bench

#endif // IDEM_BENCH_RAW_KAFKA_HPP
