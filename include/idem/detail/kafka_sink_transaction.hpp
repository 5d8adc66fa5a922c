// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_SINK_TRANSACTION_HPP
#define IDEM_DETAIL_KAFKA_SINK_TRANSACTION_HPP

// The one transaction of a sink, from its begin to its known end.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/kafka_attempts.hpp>
#include <idem/detail/kafka_doubt.hpp>
#include <idem/detail/kafka_output.hpp>
#include <idem/detail/kafka_ownership.hpp>
#include <idem/detail/kafka_transactional_producer.hpp>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// Plain commits are held off from begin() to the known end, and so also while it is in doubt:
/// meanwhile one might go back behind it. What is committed is finished, and its attempts forgotten.
/// Refers to what it is made of.
/// Concurrency: one thread at a time.
class KafkaSinkTransaction {
    using Fence = KafkaOwnership::Fence;

public:
    KafkaSinkTransaction(const KafkaOptions& source,
                         KafkaTransactionalProducer& producer,
                         KafkaOwnership& ownership,
                         KafkaAttempts& attempts) noexcept
        : producer_(producer)
        , ownership_(ownership)
        , attempts_(attempts)
        , doubt_(source, producer) {}

    /// After an earlier one that was in doubt has its known end.
    /// Throws: StoreError: then nothing is begun.
    void begin(KafkaDeadline until) {
        resolve_doubt(until);
        producer_.require_ready(until);
        if (!ownership_.open_transaction(until)) {
            throw StoreError(Fault::unavailable,
                             "idem: Kafka: a plain commit of offsets is not answered, so that "
                             "no transaction can begin: retry later");
        }
        try {
            IDEM_FAILPOINT("kafka transaction: before begin");
            producer_.begin();
            IDEM_FAILPOINT("kafka transaction: after begin");
        } catch (...) {
            close();
            throw;
        }
    }
    /// Whether it was committed by a transaction that had been in doubt.
    [[nodiscard]] bool is_over(const Position& position) const noexcept {
        return doubt_.is_over(position);
    }
    /// Throws: StoreError; KafkaOutputError. It has ended in any case, or is in doubt.
    void commit(std::vector<Position> positions) {
        if (positions.empty()) {
            abort();
            return;
        }
        KafkaConsumed consumed{.positions = std::move(positions)};
        try {
            auto fence = fence_for(consumed.positions);
            add_offsets(fence);
            consumed.offsets = std::move(fence.offsets);
            IDEM_FAILPOINT("kafka transaction: before commit");
            const auto step = producer_.commit(producer_.deadline());
            IDEM_FAILPOINT("kafka transaction: after commit");
            switch (step.end) {
            case KafkaStep::End::done:
                conclude(consumed);
                break;
            case KafkaStep::End::abort:
                if (producer_.abort(producer_.deadline())) {
                    throw_refusal(step);
                }
                settle_unknown(std::move(consumed), step); // it may be committed all the same
                break;
            case KafkaStep::End::late:
            case KafkaStep::End::broken:
                settle_unknown(std::move(consumed), step);
                break;
            }
        } catch (...) {
            if (!doubt_.is_open()) {
                abort();
            }
            throw;
        }
        close();
    }
    void abort() noexcept {
        try {
            IDEM_FAILPOINT("kafka transaction: before abort");
            static_cast<void>(producer_.abort(producer_.deadline()));
        } catch (...) { // out of memory: the next one's start aborts it
            producer_.discard();
        }
        close();
    }

private:
    void close() noexcept { ownership_.close_transaction(); }

    // ---- what it commits ------------------------------------------------------------------------
    [[nodiscard]] Fence fence_for(const std::vector<Position>& positions) {
        auto fence = ownership_.fence_of(positions);
        switch (fence.answer) {
        case Fence::Answer::ours:
            break;
        case Fence::Answer::lost:
            throw StoreError(Fault::lease_lost,
                             "idem: Kafka: a partition of this transaction was taken away; nothing "
                             "was sent");
        case Fence::Answer::wait:
            throw StoreError(Fault::unavailable,
                             "idem: Kafka: the group is rebalancing; nothing was committed: retry "
                             "later");
        case Fence::Answer::behind:
            throw StoreError(Fault::unavailable,
                             "idem: Kafka: a message before those of this transaction is not "
                             "finished; nothing was committed: retry later");
        }
        return fence;
    }
    void add_offsets(const Fence& fence) {
        IDEM_FAILPOINT("kafka transaction: before offsets");
        const auto list = kafka_partitions(fence.offsets.size());
        for (const auto& [partition, epoch, offset] : fence.offsets) {
            add_partition(list, partition->topic, partition->number).offset = offset;
        }
        const auto step =
            producer_.send_offsets(list.get(), fence.member.get(), producer_.deadline());
        if (step.end == KafkaStep::End::done) {
            return;
        }
        if (step.end == KafkaStep::End::broken) {
            producer_.discard();
        }
        switch (step.code) { // the group has another view of who owns what
        case RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION:
        case RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID:
        case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
        case RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS:
            throw StoreError(Fault::lease_lost, step.error("committing offsets").what());
        default:
            throw_refusal(step);
        }
    }

    // ---- what became of it ----------------------------------------------------------------------
    /// Throws: KafkaOutputError where an output failed the transaction by what it is; StoreError.
    [[noreturn]] void throw_refusal(const KafkaStep& step) const {
        if (const auto& refusal = producer_.refusal()) {
            if (is_kafka_output_refused(refusal->code)) {
                throw kafka_output_error(refusal->code, refusal->topic);
            }
            throw kafka_error("output to " + refusal->topic, refusal->code);
        }
        throw step.error("the transaction failed");
    }
    /// After a commit that was sent, and whose end is not known. Returns where it is: committed.
    /// Throws: StoreError.
    void settle_unknown(KafkaConsumed&& consumed, const KafkaStep& step) {
        doubt_.open(std::move(consumed));
        const auto committed = doubt_.ask(producer_.deadline());
        const std::string last = step.error("the commit").what();
        if (!committed) {
            throw StoreError(Fault::in_doubt,
                             "idem: Kafka: the commit was sent, its end is unknown: " + last);
        }
        const auto ended = doubt_.close();
        if (!*committed) {
            throw StoreError(Fault::unavailable,
                             "idem: Kafka: the transaction was aborted: " + last);
        }
        conclude(ended);
    }
    /// Of an earlier transaction, before the next begins. Throws: StoreError.
    void resolve_doubt(KafkaDeadline until) {
        if (!doubt_.is_open()) {
            return;
        }
        const auto committed = doubt_.ask(until);
        if (!committed) {
            throw StoreError(Fault::unavailable,
                             "idem: Kafka: what became of an earlier commit is still unknown, and "
                             "nothing begins before that: retry later");
        }
        const auto ended = doubt_.close();
        if (*committed) {
            conclude(ended);
            doubt_.remember(ended.offsets);
        }
        close();
    }
    void conclude(const KafkaConsumed& consumed) {
        ownership_.committed(consumed.positions);
        try {
            for (const auto& [partition, epoch, offset] : consumed.offsets) {
                attempts_.forget(partition->name, static_cast<std::uint64_t>(offset));
            }
        } catch (...) { // NOLINT(bugprone-empty-catch): no memory; an old count stays, and no more
        }
    }

    KafkaTransactionalProducer& producer_;
    KafkaOwnership& ownership_;
    KafkaAttempts& attempts_;
    KafkaDoubt doubt_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_SINK_TRANSACTION_HPP
