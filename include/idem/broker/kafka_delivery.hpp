// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_KAFKA_DELIVERY_HPP
#define IDEM_BROKER_KAFKA_DELIVERY_HPP

// A record of Kafka: what makes it the same message again, and where it stands.

#include <idem/broker/delivery.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/detail/kafka_partition.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0 {

/// Reads a record that somebody else owns: that of your own consumer loop, or, as KafkaDelivery, of
/// idem::run. A handler that takes `const KafkaMessage&` serves both. Views are good while the
/// record lives.
/// Concurrency: one thread at a time: librdkafka parses the headers at the first look at them.
class KafkaMessage {
public:
    /// Borrows the record. `partition` (borrowed) and `epoch` are those of its Position, where
    /// OffsetFence is to have one: cluster, topic and number, and your assignment.
    explicit KafkaMessage(const rd_kafka_message_t& record,
                          std::string_view partition = {},
                          std::uint64_t epoch = 0) noexcept
        : record_(&record)
        , partition_(partition)
        , epoch_(epoch) {}

    [[nodiscard]] const rd_kafka_message_t& native() const noexcept { return *record_; }
    [[nodiscard]] std::string_view topic() const noexcept {
        return rd_kafka_topic_name(record_->rkt);
    }
    [[nodiscard]] std::int32_t partition() const noexcept { return record_->partition; }
    [[nodiscard]] std::int64_t offset() const noexcept { return record_->offset; }
    /// Empty also for a tombstone.
    [[nodiscard]] std::string_view payload() const noexcept {
        return {static_cast<const char*>(record_->payload), record_->len};
    }
    [[nodiscard]] bool is_tombstone() const noexcept { return record_->payload == nullptr; }
    /// Of the record, which is no id: keys repeat by design.
    [[nodiscard]] std::optional<std::string_view> key() const noexcept {
        if (record_->key == nullptr) {
            return {};
        }
        return std::string_view(static_cast<const char*>(record_->key), record_->key_len);
    }
    /// The last of that name, as Kafka's own clients take it. None also where its value is null.
    [[nodiscard]] std::optional<std::string_view> header(std::string_view name) const noexcept {
        std::optional<std::string_view> found;
        each_header([&](std::string_view each, const std::optional<std::string_view>& value) {
            found = each == name ? value : found;
        });
        return found;
    }
    /// Calls `take(name, value)` for each header in the record's order; a null value is none.
    template <class Take>
    void each_header(const Take& take) const {
        rd_kafka_headers_t* headers = nullptr;
        if (rd_kafka_message_headers(record_, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return;
        }
        const char* name = nullptr;
        const void* value = nullptr;
        std::size_t size = 0;
        for (std::size_t at = 0; rd_kafka_header_get_all(headers, at, &name, &value, &size) ==
                                 RD_KAFKA_RESP_ERR_NO_ERROR;
             ++at) {
            take(std::string_view(name),
                 value == nullptr
                     ? std::optional<std::string_view>()
                     : std::optional(std::string_view(static_cast<const char*>(value), size)));
        }
    }

    /// The id is that of the header header::key, else header::message_id, else of a CloudEvent in
    /// binary mode (ce_source and ce_id), else empty. Neither the record's key nor its timestamp
    /// tells anything: both may differ when the message is sent again. Borrows from the record.
    /// The position is there where the partition's name is known.
    [[nodiscard]] Identity identity() const {
        std::optional<std::string_view> key, message, source, event, created;
        each_header([&](std::string_view name, const std::optional<std::string_view>& value) {
            const std::pair<std::string_view, std::optional<std::string_view>*> wanted[] = {
                {header::key, &key},
                {header::message_id, &message},
                {"ce_source", &source},
                {"ce_id", &event},
                {header::created, &created}};
            for (const auto& [each, place] : wanted) {
                if (name == each) {
                    *place = value;
                }
            }
        });
        Identity identity{.id = Id(key ? *key : message.value_or(std::string_view{})),
                          .created = detail::created_of(created)};
        if (!key && !message && source && event) {
            identity.id = detail::cloud_event_id(*source, *event);
        }
        if (!payload().empty()) {
            identity.fingerprint = fingerprint_of(payload());
        }
        if (!partition_.empty()) {
            identity.position =
                Position{partition_, static_cast<std::uint64_t>(record_->offset), epoch_};
        }
        return identity;
    }
    /// partition/offset: what delivery_position takes for an id.
    [[nodiscard]] std::string position() const {
        const std::string where =
            partition_.empty() ? std::string(topic()) + '/' + std::to_string(record_->partition)
                               : std::string(partition_);
        return where + '/' + std::to_string(record_->offset);
    }

protected:
    const rd_kafka_message_t* record_;
    std::string_view partition_;
    std::uint64_t epoch_;
};

/// Owns the record. Lives no longer than the source that gave it. Empty, and not to be read, once
/// it was settled as retry: the source keeps the record.
class KafkaDelivery : public KafkaMessage {
public:
    KafkaDelivery(KafkaDelivery&&) noexcept = default;
    KafkaDelivery& operator=(KafkaDelivery&&) noexcept = default;
    KafkaDelivery(const KafkaDelivery&) = delete;
    KafkaDelivery& operator=(const KafkaDelivery&) = delete;
    ~KafkaDelivery() = default;

    /// May have been given before: one of the first after an assignment, or returned as retry.
    [[nodiscard]] bool redelivered() const noexcept { return redelivered_; }
    [[nodiscard]] Identity identity() const {
        Identity identity = KafkaMessage::identity();
        identity.redelivered = redelivered_;
        return identity;
    }

private:
    friend class KafkaSource;
    friend class detail::KafkaOwnership;
    KafkaDelivery(detail::KafkaRawMessage record,
                  detail::KafkaPartition& from,
                  std::uint64_t epoch,
                  std::uint64_t lane,
                  bool redelivered) noexcept
        : KafkaMessage(*record, from.name, epoch)
        , owned_(std::move(record))
        , from_(&from)
        , lane_(lane)
        , redelivered_(redelivered) {}

    detail::KafkaRawMessage owned_;
    detail::KafkaPartition* from_;
    std::uint64_t lane_;
    bool redelivered_;
    bool dead_lettered_ = false; // confirmed; what comes after it failed
};

static_assert(KeyedDelivery<KafkaMessage> && KeyedDelivery<KafkaDelivery>);

} // namespace idem::inline v0

#endif // IDEM_BROKER_KAFKA_DELIVERY_HPP
