// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_CONSUMER_HPP
#define IDEM_DETAIL_KAFKA_CONSUMER_HPP

// A member of a consumer group: joins, gains and loses partitions, commits.

#include <idem/broker/kafka_options.hpp>
#include <idem/detail/failpoint.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/detail/kafka_commits.hpp>
#include <idem/detail/kafka_failures.hpp>
#include <idem/detail/kafka_member.hpp>
#include <idem/detail/kafka_ownership.hpp>
#include <idem/detail/kafka_start.hpp>
#include <idem/detail/kafka_wakeup.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// Records come from a queue per partition, and all else from the consumer's own: so a rebalance is
/// served without taking a record, a partition is paused by not looking at its queue, and resumed
/// without fetching again.
/// Concurrency: one thread.
class KafkaConsumer {
public:
    using Time = std::chrono::steady_clock::time_point;

    KafkaConsumer(const KafkaOptions& options, KafkaOwnership& ownership)
        : options_(options)
        , ownership_(ownership) {
        static_cast<void>(kafka_consumer_config(options)); // refuses settings here already
    }
    KafkaConsumer(const KafkaConsumer&) = delete;
    KafkaConsumer& operator=(const KafkaConsumer&) = delete;
    ~KafkaConsumer() { close(); }

    /// Those that are ours, in no order.
    [[nodiscard]] const std::vector<KafkaPartition*>& owned() const noexcept { return owned_; }
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
                lose_all();
            }
            note(*event);
        }
        if (!has_member_ && !owned_.empty() && !subscribe_) { // it had none when they were assigned
            take_member();
        }
        commits_->turn(now, owned_);
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
        failures_.note(handle_.get(), event.err, text);
    }
    /// Gives all partitions back, what is finished being committed, and leaves the group.
    void close() noexcept {
        if (!handle_) {
            return;
        }
        try {
            KafkaWakeup::unwatch(events_.get());
            events_.reset(); // before the close, as its documentation asks
            rd_kafka_consumer_close(handle_.get());
            lose_all();
        } catch (...) { // out of memory: the group finds out by itself
        }
        commits_.reset();
        handle_.reset();
    }

private:
    using Partitions = rd_kafka_topic_partition_list_t;

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
            subscribe_ = true;
        }
        if (subscribe_) {
            ownership_.before_join();
            subscribe_ = false;
            rd_kafka_unsubscribe(handle_.get()); // of an assignment that could not start
            const auto topics = kafka_partitions(options_.topics.size());
            for (const auto& topic : options_.topics) {
                add_partition(topics, topic, RD_KAFKA_PARTITION_UA);
            }
            const auto error = rd_kafka_subscribe(handle_.get(), topics.get());
            if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
                subscribe_ = true;
                throw kafka_error("subscribe", error);
            }
        }
    }

    static void on_error(rd_kafka_t* handle, int code, const char* text, void* self) {
        static_cast<KafkaConsumer*>(self)->failures_.note(
            handle, static_cast<rd_kafka_resp_err_t>(code), text);
    }
    static void
    on_rebalance(rd_kafka_t*, rd_kafka_resp_err_t what, Partitions* partitions, void* opaque) {
        auto& self = *static_cast<KafkaConsumer*>(opaque);
        try { // no exception may pass through librdkafka
            if (what == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
                self.assign(*partitions);
            } else {
                self.revoke(*partitions);
            }
        } catch (...) {
            self.failures_.keep(std::current_exception());
        }
    }

    [[nodiscard]] KafkaPartition& known(const rd_kafka_topic_partition_t& partition) {
        if (cluster_.empty()) {
            char* id =
                rd_kafka_clusterid(handle_.get(), static_cast<int>(options_.deadline.count()));
            if (id == nullptr) {
                throw StoreError(Fault::unavailable,
                                 "idem: Kafka: the cluster does not say its id");
            }
            cluster_ = id;
            rd_kafka_mem_free(handle_.get(), id);
        }
        const std::string topic = partition.topic;
        const auto epoch = options_.topic_epoch.empty() ? "" : '@' + options_.topic_epoch;
        return ownership_.partition(cluster_ + '/' + topic + epoch + '/' +
                                        std::to_string(partition.partition),
                                    topic,
                                    partition.partition);
    }
    void assign(Partitions& partitions) {
        std::vector<KafkaPartition*> gained;
        try {
            for (int i = 0; i < partitions.cnt; ++i) {
                gained.push_back(&known(partitions.elems[i]));
                if (options_.offsets != nullptr) {
                    partitions.elems[i].offset =
                        kafka_start(handle_.get(), options_, *gained[std::size_t(i)]);
                }
            }
        } catch (...) { // it is taken, so that the group goes on, but not read; then joined anew
            failures_.keep(std::current_exception());
            subscribe_ = true;
            gained.clear();
            for (int i = 0; i < partitions.cnt; ++i) {
                partitions.elems[i].offset = RD_KAFKA_OFFSET_END;
            }
        }
        for (KafkaPartition* partition : gained) { // before a record can come
            partition->queue.reset(rd_kafka_queue_get_partition(
                handle_.get(), partition->topic.c_str(), partition->number));
            rd_kafka_queue_forward(partition->queue.get(), nullptr);
            wakeup_.watch(partition->queue.get());
        }
        change(partitions, true);
        IDEM_FAILPOINT("kafka: assigned");
        for (KafkaPartition* partition : gained) {
            failures_.forget_unknown(partition->topic);
            partition->paused = false;
            partition->suspects = 2 * options_.commit_count;
            ownership_.own(*partition);
            owned_.push_back(partition);
        }
        drop_member();
        if (!subscribe_) {
            take_member();
        }
    }
    /// Without a generation transactions would not be fenced, so they wait until there is one. One
    /// that joins anew has first been told to give everything back: what is ours is of this one.
    void take_member() {
        auto member = kafka_member(handle_.get());
        has_member_ = member != nullptr;
        ownership_.set_member(std::move(member));
    }
    void drop_member() {
        has_member_ = false;
        ownership_.set_member(nullptr);
    }
    /// Null: it is not ours.
    [[nodiscard]] KafkaPartition* owned(std::string_view topic, std::int32_t number) const {
        const auto found = std::find_if(owned_.begin(), owned_.end(), [&](const auto* mine) {
            return mine->number == number && mine->topic == topic;
        });
        return found == owned_.end() ? nullptr : *found;
    }
    /// A record that came by the consumer's queue: to be given before those of its partition's.
    void keep_astray(KafkaRawMessage record) {
        auto* const partition = owned(rd_kafka_topic_name(record->rkt), record->partition);
        if (partition != nullptr) {
            const auto held = ownership_.lock();
            partition->tracker.take(record->offset);
            partition->returned.push_back({std::move(record), {}});
        }
    }
    void revoke(Partitions& partitions) {
        drop_member();
        std::vector<KafkaPartition*> leaving;
        for (int i = 0; i < partitions.cnt; ++i) {
            const auto& one = partitions.elems[i];
            if (auto* const mine = owned(one.topic, one.partition)) {
                leaving.push_back(mine);
            }
        }
        if (rd_kafka_assignment_lost(handle_.get()) == 0) { // else others may own them already
            IDEM_FAILPOINT("kafka: before last commit");
            commits_->finish(leaving, std::chrono::steady_clock::now() + options_.deadline);
        }
        lose(leaving);
        change(partitions, false);
        IDEM_FAILPOINT("kafka: revoked");
    }
    void lose_all() {
        drop_member();
        lose(std::vector<KafkaPartition*>(owned_));
    }
    void lose(const std::vector<KafkaPartition*>& leaving) {
        for (KafkaPartition* partition : leaving) {
            ownership_.disown(*partition);
            partition->returned.clear();
            KafkaWakeup::unwatch(partition->queue.get());
            partition->queue.reset();
            owned_.erase(std::find(owned_.begin(), owned_.end(), partition));
        }
    }
    void change(Partitions& partitions, bool gained) {
        const std::string_view protocol = rd_kafka_rebalance_protocol(handle_.get());
        if (protocol == "COOPERATIVE") {
            const KafkaError error(gained
                                       ? rd_kafka_incremental_assign(handle_.get(), &partitions)
                                       : rd_kafka_incremental_unassign(handle_.get(), &partitions));
            if (error) {
                failures_.keep(kafka_error("assignment", error));
            }
            return;
        }
        const auto code = rd_kafka_assign(handle_.get(), gained ? &partitions : nullptr);
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
            failures_.keep(kafka_error("assignment", code));
        }
    }

    const KafkaOptions& options_;
    KafkaOwnership& ownership_;
    KafkaWakeup wakeup_;
    KafkaFailures failures_;
    KafkaHandle handle_;
    KafkaQueue events_;
    std::optional<KafkaCommits> commits_; // with the handle
    std::vector<KafkaPartition*> owned_;
    std::string cluster_;
    bool subscribe_ = false, has_member_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_CONSUMER_HPP
