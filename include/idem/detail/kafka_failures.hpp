// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_FAILURES_HPP
#define IDEM_DETAIL_KAFKA_FAILURES_HPP

// What librdkafka reports beside records, kept until the source may throw.

#include <idem/detail/kafka_client.hpp>
#include <idem/error.hpp>

#include <chrono>
#include <exception>
#include <map>
#include <string>
#include <utility>

namespace idem::inline v0::detail {

/// Most of what is reported mends itself and is not kept. A topic that is unknown is waited for: a
/// broker that has just started does not know all of its topics. After a fatal error the handle does
/// nothing any more, and so it is thrown again and again.
/// Concurrency: the source's thread.
class KafkaFailures {
public:
    using Time = std::chrono::steady_clock::time_point;

    /// An event of the handle, or a record that is none.
    void note(rd_kafka_resp_err_t code, const std::string& text) {
        switch (code) {
        case RD_KAFKA_RESP_ERR_NO_ERROR:
        case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        case RD_KAFKA_RESP_ERR__FATAL: // the handle says it to raise()
            return;
        case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN: // why it is, the last of them said
            keep(kafka_error("consumer", code, last_.empty() ? text : text + "; " + last_));
            return;
        case RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED:
            keep(kafka_error("consumer", code, text));
            return;
        default:
            if (kafka_fault(code) == Fault::rejected) {
                keep(kafka_error("consumer", code, text));
            } else {
                last_ = text;
            }
        }
    }
    void keep(const StoreError& error) {
        if (!failure_ || error.fault() == Fault::rejected) {
            failure_ = std::make_exception_ptr(error);
        }
    }
    void keep(std::exception_ptr error) { failure_ = std::move(error); }

    void note_unknown(const std::string& topic) {
        unknown_.try_emplace(topic, std::chrono::steady_clock::now());
    }
    void forget_unknown(const std::string& topic) {
        if (!unknown_.empty()) {
            unknown_.erase(topic);
        }
    }

    /// Throws `rejected` for a fatal error; what was kept, once; and `rejected` for a topic that is
    /// unknown for longer than `patience` and still is when the cluster is asked.
    void raise(rd_kafka_t* handle, milliseconds patience) {
        char reason[512];
        const auto fatal = rd_kafka_fatal_error(handle, reason, sizeof reason);
        if (fatal != RD_KAFKA_RESP_ERR_NO_ERROR) {
            throw StoreError(Fault::rejected, kafka_error("fatal", fatal, reason).what());
        }
        if (failure_) {
            std::rethrow_exception(std::exchange(failure_, nullptr));
        }
        if (unknown_.empty()) {
            return;
        }
        const auto now = std::chrono::steady_clock::now();
        for (auto each = unknown_.begin(); each != unknown_.end(); ++each) {
            if (now - each->second < patience) {
                continue;
            }
            const std::string topic = each->first;
            if (is_known(handle, topic, patience)) {
                unknown_.erase(each);
            } else {
                each->second = now;
                throw StoreError(Fault::rejected,
                                 "idem: Kafka: there is no topic " + topic +
                                     "; make it, or correct KafkaOptions.topics");
            }
            return;
        }
    }

private:
    /// Throws: StoreError unavailable where the cluster does not say.
    static bool is_known(rd_kafka_t* handle, const std::string& topic, milliseconds time) {
        const rd_kafka_metadata_t* metadata = nullptr;
        const auto error =
            rd_kafka_metadata(handle, 1, nullptr, &metadata, static_cast<int>(time.count()));
        if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
            throw StoreError(Fault::unavailable, kafka_error("metadata", error).what());
        }
        bool found = false;
        for (int i = 0; i < metadata->topic_cnt; ++i) {
            found = found || metadata->topics[i].topic == topic;
        }
        rd_kafka_metadata_destroy(metadata);
        return found;
    }

    std::exception_ptr failure_;
    std::string last_; // that mends itself, in the words of a broker's connection
    std::map<std::string, Time> unknown_; // since when
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_FAILURES_HPP
