// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_CONSUMER_HPP
#define IDEM_DETAIL_KAFKA_CONSUMER_HPP

// A member of a consumer group: joins it, serves it, commits, leaves it.

#include <idem/broker/kafka_options.hpp>
#include <idem/detail/kafka_assignment.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/detail/kafka_commits.hpp>
#include <idem/detail/kafka_failures.hpp>
#include <idem/detail/kafka_ownership.hpp>
#include <idem/detail/kafka_wakeup.hpp>

#include <chrono>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// Records come from a queue per partition, and all else from the consumer's own: so a rebalance is
/// served without taking a record, a partition is paused by not looking at its queue, and resumed
/// without fetching again.
/// librdkafka calls back within serve() and close(), on their thread.
/// Concurrency: one thread.
class KafkaConsumer {
public:
    using Time = std::chrono::steady_clock::time_point;

    KafkaConsumer(const KafkaOptions& options, KafkaOwnership& ownership)
        : options_(options)
        , ownership_(ownership)
        , assignment_(options, ownership, wakeup_, failures_) {
        static_cast<void>(kafka_consumer_config(options)); // refuses settings here already
    }
    KafkaConsumer(const KafkaConsumer&) = delete;
    KafkaConsumer& operator=(const KafkaConsumer&) = delete;
    ~KafkaConsumer() { close(); }

    /// Those that are ours, in no order.
    [[nodiscard]] const std::vector<KafkaPartition*>& owned() const noexcept {
        return assignment_.owned();
    }
    [[nodiscard]] rd_kafka_t* native() const noexcept { return handle_.get(); }
    KafkaFailures& failures() noexcept { return failures_; }
    KafkaWakeup& wakeup() noexcept { return wakeup_; }
    [[nodiscard]] Time next_commit() const noexcept { return commits_->next(); }

    /// Joins where it has not; serves rebalances, errors and commits. Keeps the membership alive.
    /// Throws: StoreError. std::invalid_argument for settings that contradict each other.
    void serve(Time now) {
        join();
        for (;;) {
            KafkaRawMessage event(rd_kafka_consumer_poll(handle_.get(), 0));
            if (!event) {
                break;
            }
            if (event->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
                keep_astray(std::move(event));
                continue;
            }
            if (event->err == RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED) {
                assignment_.lose_all();
            }
            note(*event);
        }
        if (rd_kafka_fatal_error(handle_.get(), nullptr, 0) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            assignment_.lose_all(); // librdkafka revokes nothing after it
        }
        assignment_.require_member(handle_.get());
        commits_->turn(now, owned());
        if (auto refusal = commits_->take_refusal()) {
            failures_.keep(*refusal);
        }
        failures_.raise(handle_.get(), options_.deadline);
    }
    /// What came in place of a record.
    void note(const rd_kafka_message_t& event) {
        const std::string text = event.payload == nullptr ? "" : rd_kafka_message_errstr(&event);
        if (event.err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
            event.err == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC) {
            failures_.note_unknown(event.rkt == nullptr ? text : rd_kafka_topic_name(event.rkt));
            return;
        }
        const auto topic = event.rkt == nullptr
                               ? std::string()
                               : rd_kafka_topic_name(event.rkt) + std::string(": ");
        failures_.note(event.err, topic + text);
    }
    /// Gives all partitions back, what is finished being committed, and leaves the group.
    void close() noexcept {
        if (!handle_) {
            return;
        }
        try {
            // A rebalance that is due: once it closes, librdkafka leaves without waiting for it.
            while (KafkaRawMessage(rd_kafka_consumer_poll(handle_.get(), 0))) {
            }
            KafkaWakeup::unwatch(events_.get());
            events_.reset(); // before the close, as its documentation asks
            rd_kafka_consumer_close(handle_.get());
            assignment_.lose_all();
        } catch (...) { // out of memory: the group finds out by itself
        }
        commits_.reset();
        handle_.reset();
    }

private:
    void join() {
        if (!handle_) {
            auto config = kafka_consumer_config(options_);
            rd_kafka_conf_set_opaque(config.get(), this);
            rd_kafka_conf_set_rebalance_cb(config.get(), on_rebalance);
            rd_kafka_conf_set_error_cb(config.get(), on_error);
            handle_ = std::move(config).make(RD_KAFKA_CONSUMER);
            rd_kafka_poll_set_consumer(handle_.get());
            events_.reset(rd_kafka_queue_get_consumer(handle_.get()));
            wakeup_.watch(events_.get());
            commits_.emplace(handle_.get(), ownership_, options_.commit_interval);
            assignment_.set_to_join(true);
        }
        if (assignment_.is_to_join()) {
            ownership_.before_join();
            assignment_.set_to_join(false);
            rd_kafka_unsubscribe(handle_.get()); // of an assignment that could not start
            const auto topics = kafka_partitions(options_.topics.size());
            for (const auto& topic : options_.topics) {
                add_partition(topics, topic, RD_KAFKA_PARTITION_UA);
            }
            const auto error = rd_kafka_subscribe(handle_.get(), topics.get());
            if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
                assignment_.set_to_join(true);
                throw kafka_error("subscribe", error);
            }
        }
    }

    static void on_error(rd_kafka_t*, int code, const char* text, void* self) {
        static_cast<KafkaConsumer*>(self)->failures_.note(static_cast<rd_kafka_resp_err_t>(code),
                                                          text);
    }
    static void on_rebalance(rd_kafka_t*,
                             rd_kafka_resp_err_t what,
                             KafkaAssignment::Partitions* partitions,
                             void* opaque) {
        auto& self = *static_cast<KafkaConsumer*>(opaque);
        try { // no exception may pass through librdkafka
            if (what == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
                self.assignment_.assign(self.handle_.get(), *partitions);
            } else {
                self.assignment_.revoke(self.handle_.get(), *self.commits_, *partitions);
            }
        } catch (...) {
            self.failures_.keep(std::current_exception());
        }
    }

    /// A record that came by the consumer's queue: to be given before those of its partition's.
    void keep_astray(KafkaRawMessage record) {
        auto* const partition =
            assignment_.owned(rd_kafka_topic_name(record->rkt), record->partition);
        if (partition != nullptr) {
            const auto held = ownership_.lock();
            partition->tracker.take(record->offset);
            partition->returned.push_back({std::move(record), {}});
        }
    }

    const KafkaOptions& options_;
    KafkaOwnership& ownership_;
    KafkaWakeup wakeup_;
    KafkaFailures failures_;
    KafkaHandle handle_;
    KafkaQueue events_;
    std::optional<KafkaCommits> commits_; // with the handle
    KafkaAssignment assignment_;          // librdkafka calls back into it until the close
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_CONSUMER_HPP
