// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_ASSIGNMENT_HPP
#define IDEM_DETAIL_KAFKA_ASSIGNMENT_HPP

// The partitions a member of a group has, as rebalances bring and take them.

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
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// Each partition of owned() has an epoch in KafkaOwnership and a queue that is watched; once it is
/// lost it has neither. KafkaOwnership knows the member of the generation that assigned them, and
/// none from the start of a rebalance until its end.
/// Concurrency: the source's thread, in librdkafka's callbacks as well.
class KafkaAssignment {
public:
    using Partitions = rd_kafka_topic_partition_list_t;

    KafkaAssignment(const KafkaOptions& options,
                    KafkaOwnership& ownership,
                    KafkaWakeup& wakeup,
                    KafkaFailures& failures) noexcept
        : options_(options)
        , ownership_(ownership)
        , wakeup_(wakeup)
        , failures_(failures) {}
    KafkaAssignment(const KafkaAssignment&) = delete;
    KafkaAssignment& operator=(const KafkaAssignment&) = delete;

    /// In no order.
    [[nodiscard]] const std::vector<KafkaPartition*>& owned() const noexcept { return owned_; }
    /// Null: it is not ours.
    [[nodiscard]] KafkaPartition* owned(std::string_view topic, std::int32_t number) const {
        const auto found = std::find_if(owned_.begin(), owned_.end(), [&](const auto* mine) {
            return mine->number == number && mine->topic == topic;
        });
        return found == owned_.end() ? nullptr : *found;
    }
    /// The group is to be joined, or joined anew: an assignment that could not start is not read.
    [[nodiscard]] bool is_to_join() const noexcept { return to_join_; }
    void set_to_join(bool to_join) noexcept { to_join_ = to_join; }

    // ---- rebalances -----------------------------------------------------------------------------
    /// In the callback of the consumer's poll.
    void assign(rd_kafka_t* consumer, Partitions& partitions) {
        std::vector<KafkaPartition*> gained;
        try {
            for (int i = 0; i < partitions.cnt; ++i) {
                gained.push_back(&known(consumer, partitions.elems[i]));
                if (options_.offsets != nullptr) {
                    partitions.elems[i].offset =
                        kafka_start(consumer, options_, *gained[std::size_t(i)]);
                }
            }
        } catch (...) { // it is taken, so that the group goes on, but not read; then joined anew
            failures_.keep(std::current_exception());
            to_join_ = true;
            gained.clear();
            for (int i = 0; i < partitions.cnt; ++i) {
                partitions.elems[i].offset = RD_KAFKA_OFFSET_END;
            }
        }
        for (KafkaPartition* partition : gained) { // before a record can come
            partition->queue.reset(rd_kafka_queue_get_partition(
                consumer, partition->topic.c_str(), partition->number));
            rd_kafka_queue_forward(partition->queue.get(), nullptr);
            wakeup_.watch(partition->queue.get());
        }
        change(consumer, partitions, true);
        IDEM_FAILPOINT("kafka: assigned");
        for (KafkaPartition* partition : gained) {
            failures_.forget_unknown(partition->topic);
            partition->paused = false;
            partition->suspects = 2 * options_.commit_count;
            ownership_.own(*partition);
            owned_.push_back(partition);
        }
        drop_member();
        if (!to_join_) {
            take_member(consumer);
        }
    }
    /// In the callback of the consumer's poll, or of its close: what is finished is committed first.
    void revoke(rd_kafka_t* consumer, KafkaCommits& commits, Partitions& partitions) {
        drop_member();
        std::vector<KafkaPartition*> leaving;
        for (int i = 0; i < partitions.cnt; ++i) {
            const auto& one = partitions.elems[i];
            if (auto* const mine = owned(one.topic, one.partition)) {
                leaving.push_back(mine);
            }
        }
        if (rd_kafka_assignment_lost(consumer) == 0) { // else others may own them already
            IDEM_FAILPOINT("kafka: before last commit");
            commits.finish(leaving, std::chrono::steady_clock::now() + options_.deadline);
        }
        lose(leaving);
        change(consumer, partitions, false);
        IDEM_FAILPOINT("kafka: revoked");
    }
    /// They are gone already: nothing is committed.
    void lose_all() {
        drop_member();
        lose(std::vector<KafkaPartition*>(owned_));
    }
    /// Where there was none when they were assigned.
    void require_member(rd_kafka_t* consumer) {
        if (!has_member_ && !owned_.empty() && !to_join_) {
            take_member(consumer);
        }
    }

private:
    [[nodiscard]] KafkaPartition& known(rd_kafka_t* consumer,
                                        const rd_kafka_topic_partition_t& partition) {
        if (cluster_.empty()) {
            char* id = rd_kafka_clusterid(consumer, static_cast<int>(options_.deadline.count()));
            if (id == nullptr) {
                throw StoreError(Fault::unavailable,
                                 "idem: Kafka: the cluster does not say its id");
            }
            cluster_ = id;
            rd_kafka_mem_free(consumer, id);
        }
        const std::string topic = partition.topic;
        const auto epoch = options_.topic_epoch.empty() ? "" : '@' + options_.topic_epoch;
        return ownership_.partition(cluster_ + '/' + topic + epoch + '/' +
                                        std::to_string(partition.partition),
                                    topic,
                                    partition.partition);
    }
    /// Without a generation transactions would not be fenced, so they wait until there is one. One
    /// that joins anew has first been told to give everything back: what is ours is of this one.
    void take_member(rd_kafka_t* consumer) {
        auto member = kafka_member(consumer);
        has_member_ = member != nullptr;
        ownership_.set_member(std::move(member));
    }
    void drop_member() {
        has_member_ = false;
        ownership_.set_member(nullptr);
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
    void change(rd_kafka_t* consumer, Partitions& partitions, bool gained) {
        const char* const protocol = rd_kafka_rebalance_protocol(consumer); // null: it is closed
        if (protocol != nullptr && std::string_view(protocol) == "COOPERATIVE") {
            const KafkaError error(gained ? rd_kafka_incremental_assign(consumer, &partitions)
                                          : rd_kafka_incremental_unassign(consumer, &partitions));
            if (error) {
                failures_.keep(kafka_error("assignment", error));
            }
            return;
        }
        const auto code = rd_kafka_assign(consumer, gained ? &partitions : nullptr);
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
            failures_.keep(kafka_error("assignment", code));
        }
    }

    const KafkaOptions& options_;
    KafkaOwnership& ownership_;
    KafkaWakeup& wakeup_;
    KafkaFailures& failures_;
    std::vector<KafkaPartition*> owned_;
    std::string cluster_;
    bool to_join_ = false, has_member_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_ASSIGNMENT_HPP
