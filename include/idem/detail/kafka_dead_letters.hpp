// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_DEAD_LETTERS_HPP
#define IDEM_DETAIL_KAFKA_DEAD_LETTERS_HPP

// Writes dead letters, and knows when the broker has them.

#include <idem/broker/delivery.hpp>
#include <idem/broker/kafka_delivery.hpp>
#include <idem/detail/failpoint.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/settlement.hpp>

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0::detail {

/// A producer of its own, made by the first letter. Idempotent: a letter whose answer was lost on
/// the way is written once, as long as this producer lives.
/// Concurrency: one thread.
class KafkaDeadLetters {
public:
    /// `make_config` is called for the producer: how to reach the cluster.
    KafkaDeadLetters(milliseconds deadline, std::string topic)
        : deadline_(deadline)
        , topic_(std::move(topic)) {}
    KafkaDeadLetters(const KafkaDeadLetters&) = delete;
    KafkaDeadLetters& operator=(const KafkaDeadLetters&) = delete;
    ~KafkaDeadLetters() = default;

    /// Where those of `topic` go.
    [[nodiscard]] std::string topic_of(std::string_view topic) const {
        return topic_.empty() ? std::string(topic) + ".dead" : topic_;
    }

    /// The broker has it when this returns: key, payload and headers as they came, and why.
    /// Throws: StoreError: unavailable where it is not known to have it, and may have it all the
    /// same; rejected where there is no such topic, no permission, or it is too large.
    void write(const KafkaMessage& message, const Settlement& settlement, KafkaConfig config) {
        if (!producer_ || fatal_error() != RD_KAFKA_RESP_ERR_NO_ERROR) { // which is for ever
            make(std::move(config));
        }
        const auto topic = topic_of(message.topic());
        Report report;
        produce(message, settlement, topic, report);
        const auto until = std::chrono::steady_clock::now() + deadline_ + deadline_ / 2;
        while (!report.is_there) {
            rd_kafka_poll(producer_.get(), 100);
            if (std::chrono::steady_clock::now() > until && !report.is_there) { // never, by its own
                producer_.reset(); // deadline; the report must not find this frame gone
                throw StoreError(Fault::unavailable,
                                 "idem: Kafka: dead letter to " + topic + ": no answer in time");
            }
        }
        if (report.error != RD_KAFKA_RESP_ERR_NO_ERROR) {
            fail(topic, report.error);
        }
    }

private:
    struct Report {
        rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
        bool is_there = false;
    };

    [[nodiscard]] rd_kafka_resp_err_t fatal_error() const noexcept {
        return rd_kafka_fatal_error(producer_.get(), nullptr, 0);
    }
    /// A fatal error says less than its cause: no permission is rejected, a lost identity is not,
    /// for the next producer has a fresh one.
    [[noreturn]] void fail(const std::string& topic, rd_kafka_resp_err_t error) const {
        char reason[512] = "";
        const auto fatal = rd_kafka_fatal_error(producer_.get(), reason, sizeof reason);
        throw fatal == RD_KAFKA_RESP_ERR_NO_ERROR
            ? kafka_error("dead letter to " + topic, error)
            : kafka_error("dead letter to " + topic, fatal, reason);
    }
    void make(KafkaConfig config) {
        config.set("enable.idempotence", "true");
        config.set("linger.ms", "0");
        config.set("message.timeout.ms", std::to_string(deadline_.count()));
        config.set("message.max.bytes", "1000000000"); // the broker decides what is too large
        rd_kafka_conf_set_dr_msg_cb(config.get(),
                                    [](rd_kafka_t*, const rd_kafka_message_t* message, void*) {
                                        auto& report = *static_cast<Report*>(message->_private);
                                        report.error = message->err;
                                        report.is_there = true;
                                    });
        producer_ = std::move(config).make(RD_KAFKA_PRODUCER);
    }
    static bool is_of_dead_letters(std::string_view name) noexcept {
        return name == header::reason || name == header::detail || name == header::attempts ||
               name == header::origin || name == header::scope;
    }
    static KafkaHeaders headers_of(const KafkaMessage& message, const Settlement& settlement) {
        KafkaHeaders headers(rd_kafka_headers_new(16));
        const auto add = [&](std::string_view name, const void* value, std::size_t size) {
            rd_kafka_header_add(headers.get(),
                                name.data(),
                                static_cast<ssize_t>(name.size()),
                                value,
                                static_cast<ssize_t>(size));
        };
        message.each_header([&](std::string_view name, const auto& value) {
            if (!is_of_dead_letters(name)) { // a letter that was sent back and died again
                add(name, value ? value->data() : nullptr, value ? value->size() : 0);
            }
        });
        const auto attempts = std::to_string(settlement.attempts), origin = message.position();
        constexpr std::size_t longest = 4'096; // of a text that a handler made
        const auto detail = std::string_view(settlement.detail).substr(0, longest);
        add(header::reason, settlement.reason.data(), settlement.reason.size());
        add(header::detail, detail.data(), detail.size());
        add(header::attempts, attempts.data(), attempts.size());
        add(header::origin, origin.data(), origin.size());
        return headers;
    }
    void produce(const KafkaMessage& message,
                 const Settlement& settlement,
                 const std::string& topic,
                 Report& report) {
        const auto& record = message.native();
        auto headers = headers_of(message, settlement);
        IDEM_FAILPOINT("kafka: before dead letter");
        const auto error = kafka_produce(producer_.get(),
                                         {.topic = topic.c_str(),
                                          .key = record.key,
                                          .key_size = record.key_len,
                                          .value = record.payload,
                                          .value_size = record.len,
                                          .headers = headers.get(),
                                          .opaque = &report});
        if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
            fail(topic, error);
        }
        static_cast<void>(headers.release()); // the producer's now
    }

    const milliseconds deadline_;
    const std::string topic_;
    KafkaHandle producer_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_DEAD_LETTERS_HPP
