// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_CLIENT_HPP
#define IDEM_DETAIL_KAFKA_CLIENT_HPP

// librdkafka: its objects owned, its errors sorted by what the caller may do next.

#include <idem/error.hpp>

#include <cstddef>
#include <cstdint>
#include <librdkafka/rdkafka.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// A setting of librdkafka by its own name, as its CONFIGURATION.md has it.
using KafkaSetting = std::pair<std::string, std::string>;

} // namespace idem::inline v0

namespace idem::inline v0::detail {

template <auto destroy>
struct KafkaDestroy {
    template <class T>
    void operator()(T* object) const noexcept {
        destroy(object);
    }
};
/// rd_kafka_destroy() waits for ever for a message or list that still lives: those go first.
using KafkaHandle = std::unique_ptr<rd_kafka_t, KafkaDestroy<rd_kafka_destroy>>;
using KafkaQueue = std::unique_ptr<rd_kafka_queue_t, KafkaDestroy<rd_kafka_queue_destroy>>;
using KafkaRawMessage = std::unique_ptr<rd_kafka_message_t, KafkaDestroy<rd_kafka_message_destroy>>;
using KafkaEvent = std::unique_ptr<rd_kafka_event_t, KafkaDestroy<rd_kafka_event_destroy>>;
using KafkaHeaders = std::unique_ptr<rd_kafka_headers_t, KafkaDestroy<rd_kafka_headers_destroy>>;
using KafkaPartitions = std::unique_ptr<rd_kafka_topic_partition_list_t,
                                        KafkaDestroy<rd_kafka_topic_partition_list_destroy>>;
using KafkaGroupMetadata = std::unique_ptr<rd_kafka_consumer_group_metadata_t,
                                           KafkaDestroy<rd_kafka_consumer_group_metadata_destroy>>;

/// An error object of librdkafka; null: none.
using KafkaError = std::unique_ptr<rd_kafka_error_t, KafkaDestroy<rd_kafka_error_destroy>>;

/// What the caller knows after `code`: rejected where only a human can mend it.
[[nodiscard]] inline Fault kafka_fault(rd_kafka_resp_err_t code) noexcept {
    switch (code) {
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR__INVALID_ARG:
    case RD_KAFKA_RESP_ERR__FATAL:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR__UNKNOWN_GROUP:
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
    case RD_KAFKA_RESP_ERR_SECURITY_DISABLED:
    case RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL:
    case RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT:
    case RD_KAFKA_RESP_ERR_INVALID_GROUP_ID:
    case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
    case RD_KAFKA_RESP_ERR_GROUP_MAX_SIZE_REACHED:
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
        return Fault::rejected;
    default:
        return Fault::unavailable;
    }
}

/// What a human may do about it; empty: it depends.
[[nodiscard]] inline std::string_view kafka_advice(rd_kafka_resp_err_t code) noexcept {
    switch (code) {
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
        return "correct the credentials in the settings: sasl.mechanism, sasl.username, "
               "sasl.password";
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        return "allow this user READ of a topic that is consumed, WRITE to one that is written to";
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
        return "allow this user READ of the group";
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
        return "allow this user WRITE to the topic, or IDEMPOTENT_WRITE of the cluster";
    case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
        return "allow this user WRITE and DESCRIBE of the transactional id";
    case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
        return "give each running consumer a group.instance.id of its own";
    default:
        return {};
    }
}

/// The text names the code, then the server's or librdkafka's own words, then what to do.
[[nodiscard]] inline StoreError
kafka_error(const std::string& what, rd_kafka_resp_err_t code, std::string_view detail = {}) {
    std::string text = "idem: Kafka: " + what + ": " + rd_kafka_err2name(code);
    const std::string_view said = detail.empty() ? rd_kafka_err2str(code) : detail;
    text.append(" (").append(said).append(")");
    if (const auto advice = kafka_advice(code); !advice.empty()) {
        text.append("; ").append(advice);
    }
    return {kafka_fault(code), text};
}
[[nodiscard]] inline StoreError kafka_error(const std::string& what, const KafkaError& error) {
    const auto code = rd_kafka_error_code(error.get());
    const StoreError told = kafka_error(what, code, rd_kafka_error_string(error.get()));
    return rd_kafka_error_is_fatal(error.get()) != 0 ? StoreError(Fault::rejected, told.what())
                                                     : told;
}

[[nodiscard]] inline KafkaPartitions kafka_partitions(std::size_t size = 8) {
    return KafkaPartitions(rd_kafka_topic_partition_list_new(static_cast<int>(size)));
}
/// Adds one to the list; its `offset` may be set.
inline rd_kafka_topic_partition_t&
add_partition(const KafkaPartitions& list, const std::string& topic, std::int32_t partition) {
    return *rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), partition);
}

/// A record to be produced. A null key or value is none.
struct KafkaOutgoing {
    const char* topic;
    const void* key;
    std::size_t key_size;
    const void* value;
    std::size_t value_size;
    rd_kafka_headers_t* headers; ///< the producer's once it took the record
    std::int32_t partition = RD_KAFKA_PARTITION_UA;
    void* opaque = nullptr; ///< of its delivery report
};
/// Copies it. The tags as they are, without librdkafka's macros, which are no standard C++.
[[nodiscard]] inline rd_kafka_resp_err_t kafka_produce(rd_kafka_t* producer,
                                                       const KafkaOutgoing& record) {
    return rd_kafka_producev(producer,
                             RD_KAFKA_VTYPE_TOPIC,
                             record.topic,
                             RD_KAFKA_VTYPE_PARTITION,
                             record.partition,
                             RD_KAFKA_VTYPE_KEY,
                             record.key,
                             record.key_size,
                             RD_KAFKA_VTYPE_VALUE,
                             record.value,
                             record.value_size,
                             RD_KAFKA_VTYPE_MSGFLAGS,
                             RD_KAFKA_MSG_F_COPY,
                             RD_KAFKA_VTYPE_HEADERS,
                             record.headers,
                             RD_KAFKA_VTYPE_OPAQUE,
                             record.opaque,
                             RD_KAFKA_VTYPE_END);
}

/// The settings of a handle that is about to be made.
class KafkaConfig {
public:
    KafkaConfig() : conf_(rd_kafka_conf_new()) {}

    /// Throws: std::invalid_argument in librdkafka's words, which name the setting.
    void set(const std::string& name, const std::string& value) {
        char problem[512];
        if (rd_kafka_conf_set(conf_.get(), name.c_str(), value.c_str(), problem, sizeof problem) !=
            RD_KAFKA_CONF_OK) {
            throw std::invalid_argument("idem: Kafka: " + std::string(problem));
        }
    }
    void set(const std::vector<KafkaSetting>& settings) {
        for (const auto& [name, value] : settings) {
            set(name, value);
        }
    }
    [[nodiscard]] rd_kafka_conf_t* get() const noexcept { return conf_.get(); }

    /// Throws: std::invalid_argument for settings that contradict each other.
    [[nodiscard]] KafkaHandle make(rd_kafka_type_t type) && {
        char problem[512];
        KafkaHandle handle(rd_kafka_new(type, conf_.get(), problem, sizeof problem));
        if (!handle) {
            throw std::invalid_argument("idem: Kafka: " + std::string(problem));
        }
        static_cast<void>(conf_.release()); // the handle's now
        return handle;
    }

private:
    std::unique_ptr<rd_kafka_conf_t, KafkaDestroy<rd_kafka_conf_destroy>> conf_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_CLIENT_HPP
