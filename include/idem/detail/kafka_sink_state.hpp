// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_SINK_STATE_HPP
#define IDEM_DETAIL_KAFKA_SINK_STATE_HPP

// The one transaction of a sink, from its begin to its known end.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/kafka_attempts.hpp>
#include <idem/detail/kafka_doubt.hpp>
#include <idem/detail/kafka_output.hpp>
#include <idem/detail/kafka_ownership.hpp>
#include <idem/detail/kafka_transactional_producer.hpp>
#include <idem/outcome.hpp>
#include <idem/strategy/strategy.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

/// Concurrency: begin() and `attempts` from any thread; the rest by whoever began.
class KafkaSinkState final : private KafkaForerunner {
    using Fence = KafkaOwnership::Fence;

public:
    KafkaSinkState(const KafkaOptions& source, KafkaOwnership& ownership, KafkaSinkOptions options)
        : producer(source, std::move(options))
        , ownership_(ownership)
        , doubt_(source, producer) {
        ownership_.commit_by_transactions(this);
    }
    KafkaSinkState(const KafkaSinkState&) = delete;
    KafkaSinkState& operator=(const KafkaSinkState&) = delete;
    ~KafkaSinkState() {
        ownership_.commit_by_transactions(nullptr);
        producer.discard();
    }

    /// Throws: StoreError: then nothing is begun.
    void begin() {
        const auto until = producer.deadline();
        take_turn(until);
        bool opened = false;
        try {
            resolve_doubt(until);
            producer.require_ready(until);
            opened = ownership_.open_transaction(until);
            if (!opened) {
                throw StoreError(Fault::unavailable,
                                 "idem: Kafka: a plain commit of offsets is not answered, so that "
                                 "no transaction can begin: retry later");
            }
            IDEM_FAILPOINT("kafka transaction: before begin");
            producer.begin();
            IDEM_FAILPOINT("kafka transaction: after begin");
        } catch (...) {
            if (opened) {
                ownership_.close_transaction();
            }
            end_turn();
            throw;
        }
    }

    [[nodiscard]] std::vector<Claim<std::monostate>> claim(std::span<const Request> requests) {
        std::vector<Claim<std::monostate>> claims(requests.size());
        const auto ours = ownership_.fence_of(open_positions(requests)).answer;
        for (std::size_t i = 0; i < requests.size(); ++i) {
            if (doubt_.is_over(*requests[i].position)) {
                claims[i] = Completed{omitted_result()};
            } else if (ours != Fence::Answer::ours && !may_start(requests, *requests[i].position)) {
                claims[i] = InProgress{milliseconds{0}};
            } else {
                claims[i] = claim_counted(requests[i]);
            }
        }
        return claims;
    }

    /// Throws: StoreError; KafkaOutputError. It has ended in any case.
    void commit(std::span<const Request> requests) {
        KafkaConsumed consumed{.positions = open_positions(requests)};
        if (consumed.positions.empty()) {
            abort();
            return;
        }
        try {
            auto fence = fence_for(consumed.positions);
            add_offsets(fence);
            consumed.offsets = std::move(fence.offsets);
            IDEM_FAILPOINT("kafka transaction: before commit");
            const auto step = producer.commit(producer.deadline());
            IDEM_FAILPOINT("kafka transaction: after commit");
            switch (step.end) {
            case KafkaStep::End::done:
                conclude(consumed);
                break;
            case KafkaStep::End::abort:
                if (producer.abort(producer.deadline())) {
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
            doubt_.is_open() ? end_turn() // and no plain commit meanwhile: it might go back
                             : abort();
            throw;
        }
        close();
    }
    void abort() noexcept {
        try {
            IDEM_FAILPOINT("kafka transaction: before abort");
            static_cast<void>(producer.abort(producer.deadline()));
        } catch (...) { // out of memory: the next one's start aborts it
            producer.discard();
        }
        close();
    }

    KafkaTransactionalProducer producer;
    KafkaAttempts attempts;

private:
    /// What a killed instance of this name left open must have ended, or its pending offsets keep
    /// the group's from us until its transaction times out, and no message comes that would begin
    /// the next.
    void before_join() override {
        {
            const std::scoped_lock lock(mutex_);
            if (taken_) { // by a thread that is at it, or past it
                return;
            }
            taken_ = true;
        }
        try {
            constexpr milliseconds moment{1'000}; // the source asks again
            producer.require_ready(std::chrono::steady_clock::now() + moment);
        } catch (...) {
            end_turn();
            throw;
        }
        end_turn();
    }
    // ---- whose turn it is -----------------------------------------------------------------------
    void take_turn(KafkaDeadline until) {
        std::unique_lock lock(mutex_);
        if (!turn_free_.wait_until(lock, until, [this] { return !taken_; })) {
            throw StoreError(Fault::unavailable,
                             "idem: Kafka: the transaction of another handler thread took longer "
                             "than KafkaSinkOptions::deadline: a sink has one at a time; use "
                             "batches in place of threads");
        }
        taken_ = true;
    }
    void end_turn() noexcept {
        {
            const std::scoped_lock lock(mutex_);
            taken_ = false;
        }
        turn_free_.notify_one();
    }
    void close() noexcept {
        ownership_.close_transaction();
        end_turn();
    }

    // ---- what may start -------------------------------------------------------------------------
    [[nodiscard]] std::vector<Position> open_positions(std::span<const Request> requests) const {
        std::vector<Position> positions;
        positions.reserve(requests.size());
        for (const auto& request : requests) {
            if (!doubt_.is_over(*request.position)) {
                positions.push_back(*request.position);
            }
        }
        return positions;
    }
    /// Whether the requests of this one's partition could be committed up to it.
    [[nodiscard]] bool may_start(std::span<const Request> requests, const Position& position) {
        std::vector<Position> positions;
        for (const auto& request : requests) {
            const auto& other = *request.position;
            if (other.partition == position.partition && other.offset <= position.offset &&
                other.epoch == position.epoch && !doubt_.is_over(other)) {
                positions.push_back(other);
            }
        }
        return ownership_.fence_of(positions).answer == Fence::Answer::ours;
    }
    [[nodiscard]] Claim<std::monostate> claim_counted(const Request& request) const {
        const auto failed = attempts.of(*request.position);
        if (request.max_attempts > 0 && failed >= request.max_attempts) {
            return Dead{failed};
        }
        return Claimed<std::monostate>{.ticket = {}, .attempt = failed + 1};
    }

    // ---- the end --------------------------------------------------------------------------------
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
            producer.send_offsets(list.get(), fence.member.get(), producer.deadline());
        if (step.end == KafkaStep::End::done) {
            return;
        }
        if (step.end == KafkaStep::End::broken) {
            producer.discard();
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
    /// Throws: KafkaOutputError where an output failed the transaction by what it is; StoreError.
    [[noreturn]] void throw_refusal(const KafkaStep& step) const {
        if (const auto& refusal = producer.refusal()) {
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
        const auto committed = doubt_.ask(producer.deadline());
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
        ownership_.close_transaction();
    }
    void conclude(const KafkaConsumed& consumed) {
        ownership_.committed(consumed.positions);
        for (const auto& [partition, epoch, offset] : consumed.offsets) {
            attempts.forget(partition->name, static_cast<std::uint64_t>(offset));
        }
    }

    KafkaOwnership& ownership_;
    std::mutex mutex_;
    std::condition_variable turn_free_;
    bool taken_ = false;
    KafkaDoubt doubt_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_SINK_STATE_HPP
