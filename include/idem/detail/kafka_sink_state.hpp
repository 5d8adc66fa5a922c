// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_SINK_STATE_HPP
#define IDEM_DETAIL_KAFKA_SINK_STATE_HPP

// What a sink holds: its producer, its one transaction, whose turn it is, and what may start.

#include <idem/detail/kafka_attempts.hpp>
#include <idem/detail/kafka_ownership.hpp>
#include <idem/detail/kafka_sink_transaction.hpp>
#include <idem/detail/kafka_transaction_turn.hpp>
#include <idem/detail/kafka_transactional_producer.hpp>
#include <idem/outcome.hpp>
#include <idem/strategy/strategy.hpp>

#include <chrono>
#include <cstddef>
#include <span>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

/// The turn is taken from begin() until commit() or abort() is done, however it ends.
/// Concurrency: begin() and `attempts` from any thread; the rest by whoever began.
class KafkaSinkState final : private KafkaForerunner {
    using Fence = KafkaOwnership::Fence;

public:
    KafkaSinkState(const KafkaOptions& source, KafkaOwnership& ownership, KafkaSinkOptions options)
        : producer(source, std::move(options))
        , ownership_(ownership)
        , transaction_(source, producer, ownership, attempts) {
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
        turn_.take(until);
        try {
            transaction_.begin(until);
        } catch (...) {
            turn_.end();
            throw;
        }
    }

    [[nodiscard]] std::vector<Claim<std::monostate>> claim(std::span<const Request> requests) {
        std::vector<Claim<std::monostate>> claims(requests.size());
        const auto ours = ownership_.fence_of(open_positions(requests)).answer;
        for (std::size_t i = 0; i < requests.size(); ++i) {
            if (transaction_.is_over(*requests[i].position)) {
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
        const KafkaTransactionTurn::Ending ending(turn_);
        std::vector<Position> positions;
        try {
            positions = open_positions(requests);
        } catch (...) { // no memory
            transaction_.abort();
            throw;
        }
        transaction_.commit(std::move(positions));
    }
    void abort() noexcept {
        transaction_.abort();
        turn_.end();
    }

    KafkaTransactionalProducer producer;
    KafkaAttempts attempts;

private:
    /// What a killed instance of this name left open must have ended, or its pending offsets keep
    /// the group's from us until its transaction times out, and no message comes that would begin
    /// the next.
    void before_join() override {
        if (!turn_.try_take()) { // a thread is at it, or past it
            return;
        }
        const KafkaTransactionTurn::Ending ending(turn_);
        constexpr milliseconds moment{1'000}; // the source asks again
        producer.require_ready(std::chrono::steady_clock::now() + moment);
    }

    // ---- what may start -------------------------------------------------------------------------
    [[nodiscard]] std::vector<Position> open_positions(std::span<const Request> requests) const {
        std::vector<Position> positions;
        positions.reserve(requests.size());
        for (const auto& request : requests) {
            if (!transaction_.is_over(*request.position)) {
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
                other.epoch == position.epoch && !transaction_.is_over(other)) {
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

    KafkaOwnership& ownership_;
    KafkaTransactionTurn turn_;
    KafkaSinkTransaction transaction_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_SINK_STATE_HPP
