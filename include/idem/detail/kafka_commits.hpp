// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_COMMITS_HPP
#define IDEM_DETAIL_KAFKA_COMMITS_HPP

// The plain commits of a consumer: one on its way at a time.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/detail/kafka_ownership.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// librdkafka repeats a commit whose answer did not come; a later one that overtook it would then be
/// undone. So the next is sent when the last was answered.
/// Concurrency: the source's thread.
class KafkaCommits {
public:
    using Time = std::chrono::steady_clock::time_point;
    using Partitions = std::span<KafkaPartition* const>;

    KafkaCommits(rd_kafka_t* consumer, KafkaOwnership& ownership, milliseconds interval)
        : consumer_(consumer)
        , ownership_(ownership)
        , interval_(interval)
        , answers_(rd_kafka_queue_new(consumer)) {}
    KafkaCommits(const KafkaCommits&) = delete;
    KafkaCommits& operator=(const KafkaCommits&) = delete;
    ~KafkaCommits() {
        if (!underway_.empty()) { // whoever waits for its answer need not any more
            ownership_.answered(underway_, std::vector<bool>(underway_.size()));
        }
    }

    /// Takes the answer that is there, and sends what is due. Without waiting.
    void turn(Time now, Partitions partitions) {
        take_answer(milliseconds{0});
        const bool is_due = now >= next_ || ownership_.commit_is_due();
        next_ =
            is_due ? now + interval_ : next_; // also while one is underway, not to be asked again
        if (is_due && underway_.empty()) {
            send(partitions);
        }
    }
    /// When turn() has something to do, at the latest.
    [[nodiscard]] Time next() const noexcept { return next_; }

    /// What is finished of those partitions is committed, or could not be until `until`: then it
    /// comes again to whoever owns them next.
    void finish(Partitions partitions, Time until) {
        while (!underway_.empty() && take_answer(left(until))) {
        }
        if (underway_.empty()) {
            send(partitions);
        }
        while (!underway_.empty() && take_answer(left(until))) {
        }
    }
    /// What a human must mend; none: nothing.
    [[nodiscard]] std::optional<StoreError> take_refusal() {
        return std::exchange(refusal_, std::nullopt);
    }

private:
    static milliseconds left(Time until) {
        const auto now = std::chrono::steady_clock::now();
        return until > now ? std::chrono::ceil<milliseconds>(until - now) : milliseconds{0};
    }
    void send(Partitions partitions) {
        underway_ = ownership_.begin_commit(partitions);
        if (underway_.empty()) {
            return;
        }
        const auto list = kafka_partitions(underway_.size());
        for (const auto& [partition, epoch, offset] : underway_) {
            add_partition(list, partition->topic, partition->number).offset = offset;
        }
        IDEM_FAILPOINT("kafka: before commit");
        const auto error =
            rd_kafka_commit_queue(consumer_, list.get(), answers_.get(), nullptr, nullptr);
        if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
            conclude(error, nullptr);
        }
    }
    /// False: none came in time.
    bool take_answer(milliseconds time) {
        if (underway_.empty()) {
            return false;
        }
        const KafkaEvent event(rd_kafka_queue_poll(answers_.get(), static_cast<int>(time.count())));
        if (!event) {
            return false;
        }
        IDEM_FAILPOINT("kafka: after commit");
        conclude(rd_kafka_event_error(event.get()),
                 rd_kafka_event_topic_partition_list(event.get()));
        return true;
    }
    void conclude(rd_kafka_resp_err_t error, const rd_kafka_topic_partition_list_t* answers) {
        std::vector<bool> stored(underway_.size(), false);
        for (std::size_t i = 0; i < underway_.size(); ++i) {
            const auto* one = answers == nullptr
                                  ? nullptr
                                  : rd_kafka_topic_partition_list_find(
                                        const_cast<rd_kafka_topic_partition_list_t*>(answers),
                                        underway_[i].partition->topic.c_str(),
                                        underway_[i].partition->number);
            const auto code =
                one != nullptr && one->err != RD_KAFKA_RESP_ERR_NO_ERROR ? one->err : error;
            stored[i] = code == RD_KAFKA_RESP_ERR_NO_ERROR;
            if (code == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
                code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
                refusal_ = kafka_error("commit of " + underway_[i].partition->name, code);
            }
        }
        ownership_.answered(std::exchange(underway_, {}), stored);
    }

    rd_kafka_t* consumer_;
    KafkaOwnership& ownership_;
    const milliseconds interval_;
    KafkaQueue answers_;
    std::vector<KafkaCommitted> underway_;
    std::optional<StoreError> refusal_;
    Time next_{};
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_COMMITS_HPP
