// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_OWNERSHIP_HPP
#define IDEM_DETAIL_KAFKA_OWNERSHIP_HPP

// Which partitions are ours, since when, what of them is finished, and who may commit it.

#include <idem/detail/kafka_client.hpp>
#include <idem/detail/kafka_partition.hpp>
#include <idem/error.hpp>
#include <idem/key.hpp>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// One offset of a commit that is on its way.
struct KafkaCommitted {
    KafkaPartition* partition;
    std::uint64_t epoch;
    std::int64_t offset;
};

/// Who has to be ready before a source joins its group.
class KafkaForerunner {
public:
    /// Throws: StoreError: then the source does not join yet.
    virtual void before_join() = 0;

protected:
    ~KafkaForerunner() = default;
};

/// Shared by the source's thread and by the threads whose transactions commit offsets. Plain commits
/// and those of transactions exclude each other: appended after a transaction's pending offset, a
/// plain one would win over it.
/// Concurrency: any thread, but for what is said to be the source's.
class KafkaOwnership {
public:
    using Deadline = std::chrono::steady_clock::time_point;
    using Lock = std::unique_lock<std::mutex>;

    // ---- of the source's thread -----------------------------------------------------------------
    /// Known from here on. `name`: of its positions.
    KafkaPartition& partition(const std::string& name, const std::string& topic, int number) {
        const Lock held = lock();
        auto& found = partitions_[name];
        if (!found) {
            found = std::make_unique<KafkaPartition>(
                KafkaPartition{topic, name, number, partitions_.size()});
        }
        return *found;
    }
    void own(KafkaPartition& partition) {
        const Lock held = lock();
        partition.epoch = ++epochs_;
        partition.tracker.clear();
        partition.committed = partition.confirmed = -1;
        partition.finished = 0;
    }
    /// Late settlements of its deliveries are lost from here on.
    void disown(KafkaPartition& partition) {
        const Lock held = lock();
        partition.epoch = 0;
        partition.tracker.clear();
    }
    /// The member that our transactions commit offsets for; null: none, they wait.
    void set_member(std::shared_ptr<const rd_kafka_consumer_group_metadata_t> member) {
        const Lock held = lock();
        member_ = std::move(member);
    }
    void before_join() {
        if (forerunner_ != nullptr) {
            forerunner_->before_join();
        }
    }
    [[nodiscard]] Lock lock() { return Lock(mutex_); }

    [[nodiscard]] bool is_current(const KafkaPartition& partition, std::uint64_t epoch) {
        const Lock held = lock();
        return partition.epoch == epoch;
    }
    /// How one delivery's end is answered, under lock(): false is `lost`. What a transaction has
    /// finished may still be settled.
    [[nodiscard]] bool finish(const Lock&,
                              KafkaPartition& partition,
                              std::uint64_t epoch,
                              std::int64_t offset) noexcept {
        if (partition.epoch != epoch) {
            return false;
        }
        if (!partition.tracker.finish(offset)) {
            return transactional_;
        }
        if (++partition.finished >= commit_count_) {
            commit_is_due_ = true;
        }
        return true;
    }
    void set_commit_count(std::size_t count) { commit_count_ = count; }
    [[nodiscard]] bool commit_is_due() {
        const Lock held = lock();
        return commit_is_due_;
    }

    /// What is to be committed of those partitions; empty: nothing, or a transaction is open.
    /// Otherwise answered() must follow.
    [[nodiscard]] std::vector<KafkaCommitted>
    begin_commit(std::span<KafkaPartition* const> partitions) {
        std::vector<KafkaCommitted> begun;
        const Lock held = lock();
        if (transactions_ > 0 || committing_) {
            return begun;
        }
        commit_is_due_ = false;
        for (KafkaPartition* partition : partitions) {
            const auto next = partition->tracker.next();
            partition->finished = 0;
            if (partition->epoch != 0 && next > partition->committed) { // never backwards
                begun.push_back({partition, partition->epoch, next});
                partition->committed = next;
            }
        }
        committing_ = !begun.empty();
        return begun;
    }
    /// In the order of begin_commit(): whether each is with the broker.
    void answered(const std::vector<KafkaCommitted>& begun, const std::vector<bool>& stored) {
        {
            const Lock held = lock();
            committing_ = false;
            for (std::size_t i = 0; i < begun.size(); ++i) {
                auto& partition = *begun[i].partition;
                if (partition.epoch != begun[i].epoch) {
                    continue;
                }
                if (stored[i]) {
                    partition.confirmed = begun[i].offset;
                } else { // once more with the next
                    partition.committed = partition.confirmed;
                }
            }
        }
        changed_.notify_all();
    }

    // ---- of transactions ------------------------------------------------------------------------
    /// From here on offsets are committed by transactions, and plainly only between them: what was
    /// finished without one, as dead letters are. Null: who they were of is gone. While nobody
    /// receives.
    void commit_by_transactions(KafkaForerunner* of) {
        const Lock held = lock();
        transactional_ = true;
        forerunner_ = of;
    }
    /// Holds off plain commits until close_transaction(). False: one was on its way until
    /// `deadline`, so that nothing was opened.
    [[nodiscard]] bool open_transaction(Deadline deadline) {
        Lock held = lock();
        if (!changed_.wait_until(held, deadline, [this] { return !committing_; })) {
            return false;
        }
        ++transactions_;
        return true;
    }
    void close_transaction() {
        const Lock held = lock();
        --transactions_;
    }

    /// Who may commit them, or why not: then nothing may be sent.
    struct Fence {
        enum class Answer {
            ours,  ///< `member` commits for them
            lost,  ///< one of them is of an older assignment: abort
            wait,  ///< the group is rebalancing: later
            behind ///< a message below one of them is unfinished: later
        };
        Answer answer = Answer::lost;
        std::shared_ptr<const rd_kafka_consumer_group_metadata_t> member{};
        std::vector<KafkaCommitted> offsets{}; ///< one past the highest of each partition
    };
    [[nodiscard]] Fence fence_of(std::span<const Position> positions) {
        Fence fence;
        std::map<KafkaPartition*, std::size_t> counts;
        const Lock held = lock();
        for (const auto& position : positions) {
            const auto found = partitions_.find(position.partition);
            if (found == partitions_.end() || position.epoch == 0 ||
                found->second->epoch != position.epoch) {
                return fence;
            }
            auto& partition = *found->second;
            const auto offset = static_cast<std::int64_t>(position.offset);
            counts[&partition] += partition.tracker.is_unfinished(offset) ? 1 : 0;
            note(fence.offsets, partition, offset + 1);
        }
        fence.answer = Fence::Answer::wait;
        if (!member_) {
            return fence;
        }
        fence.answer = Fence::Answer::behind;
        for (const auto& [partition, epoch, offset] : fence.offsets) {
            if (partition->tracker.unfinished_up_to(offset - 1) != counts[partition]) {
                return fence;
            }
        }
        fence.answer = Fence::Answer::ours;
        fence.member = member_;
        return fence;
    }
    /// The transaction that took them in is committed: they are finished, and so are their offsets.
    void committed(std::span<const Position> positions) {
        const Lock held = lock();
        for (const auto& position : positions) {
            const auto found = partitions_.find(position.partition);
            if (found == partitions_.end() || found->second->epoch != position.epoch) {
                continue;
            }
            auto& partition = *found->second;
            const auto offset = static_cast<std::int64_t>(position.offset);
            static_cast<void>(partition.tracker.finish(offset));
            partition.committed = partition.committed > offset ? partition.committed : offset + 1;
            partition.confirmed = partition.committed;
        }
    }

private:
    static void note(std::vector<KafkaCommitted>& offsets, KafkaPartition& of, std::int64_t next) {
        for (auto& each : offsets) {
            if (each.partition == &of) {
                each.offset = each.offset > next ? each.offset : next;
                return;
            }
        }
        offsets.push_back({&of, of.epoch, next});
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, std::unique_ptr<KafkaPartition>, std::less<>> partitions_; // by name
    std::shared_ptr<const rd_kafka_consumer_group_metadata_t> member_;
    KafkaForerunner* forerunner_ = nullptr;
    std::uint64_t epochs_ = 0;
    std::size_t commit_count_ = 500;
    int transactions_ = 0;    // open
    bool committing_ = false; // plainly, and not answered
    bool commit_is_due_ = false;
    bool transactional_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_OWNERSHIP_HPP
