// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_KAFKA_RECORDS_HPP
#define IDEM_TESTS_SUPPORT_KAFKA_RECORDS_HPP

// What a test writes to Kafka and reads from it beside the library.

#include <idem/detail/kafka_client.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kafka_server.hpp"

namespace idem::testing_support {

struct KafkaRecord {
    std::string topic{};
    std::int32_t partition = 0; ///< to be written; -1: by the key
    std::optional<std::string> key{};
    std::optional<std::string> payload{}; ///< none: a tombstone
    std::vector<std::pair<std::string, std::optional<std::string>>> headers{};
    std::int64_t offset = -1; ///< where it was read

    /// The last of that name; none: absent, or null.
    [[nodiscard]] std::optional<std::string> header(std::string_view name) const {
        std::optional<std::string> found;
        for (const auto& [each, value] : headers) {
            found = each == name ? value : found;
        }
        return found;
    }
};

/// A plain producer. With a transactional id: begin(), commit(), abort() too.
class KafkaProducer {
public:
    explicit KafkaProducer(const KafkaServer& server,
                           const std::vector<KafkaSetting>& settings = {}) {
        auto config = server.client();
        config.set("linger.ms", "0");
        config.set("queue.buffering.max.messages", "1000000");
        config.set(settings);
        rd_kafka_conf_set_opaque(config.get(), this);
        rd_kafka_conf_set_dr_msg_cb(
            config.get(), [](rd_kafka_t*, const rd_kafka_message_t* message, void* opaque) {
                auto& self = *static_cast<KafkaProducer*>(opaque);
                if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
                    self.failed_ = message->err;
                }
                self.last_offset_ = message->offset;
            });
        handle_ = std::move(config).make(RD_KAFKA_PRODUCER);
    }
    KafkaProducer(const KafkaProducer&) = delete;
    KafkaProducer& operator=(const KafkaProducer&) = delete;

    /// Without waiting.
    void send(const KafkaRecord& record) {
        for (;;) {
            const auto error = produce(record);
            if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
                return;
            }
            if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
                throw std::runtime_error(rd_kafka_err2str(error));
            }
            rd_kafka_poll(handle_.get(), 10);
        }
    }
    /// Until all are with the server. Throws where one is not.
    void flush() {
        if (rd_kafka_flush(handle_.get(), 60'000) != RD_KAFKA_RESP_ERR_NO_ERROR || failed_) {
            throw std::runtime_error(
                std::string("not written: ") +
                rd_kafka_err2str(failed_.value_or(RD_KAFKA_RESP_ERR__TIMED_OUT)));
        }
    }
    /// Written when it returns: its offset.
    std::int64_t write(const KafkaRecord& record) {
        send(record);
        flush();
        return last_offset_;
    }
    /// With header "message-id" m-0 … and payload "body 0" …, all to one partition.
    void
    write_numbered(const std::string& topic, int count, std::int32_t partition = 0, int first = 0) {
        for (int i = first; i < first + count; ++i) {
            const auto number = std::to_string(i);
            send({.topic = topic,
                  .partition = partition,
                  .key = "key",
                  .payload = "body " + number,
                  .headers = {{"message-id", "m-" + number}}});
        }
        flush();
    }
    [[nodiscard]] rd_kafka_t* native() const noexcept { return handle_.get(); }

private:
    rd_kafka_resp_err_t produce(const KafkaRecord& record) {
        auto* headers = rd_kafka_headers_new(record.headers.size());
        for (const auto& [name, value] : record.headers) {
            rd_kafka_header_add(headers,
                                name.data(),
                                static_cast<ssize_t>(name.size()),
                                value ? value->data() : nullptr,
                                value ? static_cast<ssize_t>(value->size()) : 0);
        }
        const auto data = [](const std::optional<std::string>& text) {
            return text ? text->data() : nullptr;
        };
        const auto size = [](const std::optional<std::string>& text) {
            return text ? text->size() : 0;
        };
        const auto error = detail::kafka_produce(handle_.get(),
                                                 {.topic = record.topic.c_str(),
                                                  .key = data(record.key),
                                                  .key_size = size(record.key),
                                                  .value = data(record.payload),
                                                  .value_size = size(record.payload),
                                                  .headers = headers,
                                                  .partition = record.partition});
        if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
            rd_kafka_headers_destroy(headers);
        }
        return error;
    }

    detail::KafkaHandle handle_;
    std::optional<rd_kafka_resp_err_t> failed_;
    std::int64_t last_offset_ = -1;
};

enum class Isolation { read_committed, read_uncommitted };

/// How many partitions a topic has; 0: there is no such topic.
inline std::int32_t partitions_of(rd_kafka_t* client, const std::string& topic) {
    const rd_kafka_metadata_t* metadata = nullptr;
    const auto error = rd_kafka_metadata(client, 1, nullptr, &metadata, 60'000); // makes none
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        throw std::runtime_error(std::string("metadata: ") + rd_kafka_err2str(error));
    }
    std::int32_t count = 0;
    for (int i = 0; i < metadata->topic_cnt; ++i) {
        count = metadata->topics[i].topic == topic ? metadata->topics[i].partition_cnt : count;
    }
    rd_kafka_metadata_destroy(metadata);
    return count;
}

/// Copies it.
inline KafkaRecord record_of(const std::string& topic, const rd_kafka_message_t& message) {
    const auto text = [](const void* data, std::size_t size) {
        return data == nullptr ? std::optional<std::string>()
                               : std::optional(std::string(static_cast<const char*>(data), size));
    };
    KafkaRecord record{.topic = topic,
                       .partition = message.partition,
                       .key = text(message.key, message.key_len),
                       .payload = text(message.payload, message.len),
                       .offset = message.offset};
    rd_kafka_headers_t* headers = nullptr;
    if (rd_kafka_message_headers(&message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        const char* name = nullptr;
        const void* value = nullptr;
        std::size_t size = 0;
        for (std::size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) ==
                                RD_KAFKA_RESP_ERR_NO_ERROR;
             ++i) {
            record.headers.emplace_back(name, text(value, size));
        }
    }
    return record;
}

/// All records of a topic from its beginning to its end: under read_committed, to the first record
/// of a transaction that is still open. In order within a partition. None where there is no topic.
inline std::vector<KafkaRecord> read_topic(const KafkaServer& server,
                                           const std::string& topic,
                                           Isolation isolation = Isolation::read_committed) {
    auto config = server.client();
    config.set("group.id", "reader");
    config.set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true");
    config.set("fetch.wait.max.ms", "20");
    config.set("isolation.level",
               isolation == Isolation::read_committed ? "read_committed" : "read_uncommitted");
    const auto handle = std::move(config).make(RD_KAFKA_CONSUMER);
    const auto partitions = partitions_of(handle.get(), topic);
    const auto assignment = detail::kafka_partitions();
    for (std::int32_t i = 0; i < partitions; ++i) {
        detail::add_partition(assignment, topic, i).offset = RD_KAFKA_OFFSET_BEGINNING;
    }
    rd_kafka_poll_set_consumer(handle.get());
    rd_kafka_assign(handle.get(), assignment.get());
    std::vector<KafkaRecord> records;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    for (auto open = partitions; open > 0;) {
        const detail::KafkaRawMessage message(rd_kafka_consumer_poll(handle.get(), 100));
        if (std::chrono::steady_clock::now() > until) {
            throw std::runtime_error("the end of " + topic + " does not come");
        }
        if (message && message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
            --open;
        } else if (message && message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            records.push_back(record_of(topic, *message));
        }
    }
    return records;
}

/// What a group has committed of a partition: the next offset to be read; -1: nothing. Pending
/// offsets of open transactions do not count.
inline std::int64_t committed_offset(const KafkaServer& server,
                                     const std::string& group,
                                     const std::string& topic,
                                     std::int32_t partition = 0) {
    auto config = server.client();
    config.set("group.id", group);
    config.set("isolation.level", "read_uncommitted");
    const auto handle = std::move(config).make(RD_KAFKA_CONSUMER);
    const auto asked = detail::kafka_partitions(1);
    detail::add_partition(asked, topic, partition);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    for (;;) {
        const auto error = rd_kafka_committed(handle.get(), asked.get(), 5'000);
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
            return asked->elems[0].offset < 0 ? -1 : asked->elems[0].offset;
        }
        if (std::chrono::steady_clock::now() > until) {
            throw std::runtime_error(std::string("committed offset: ") + rd_kafka_err2str(error));
        }
    }
}

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_KAFKA_RECORDS_HPP
