// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_KAFKA_TRANSACTION_HPP
#define IDEM_BROKER_KAFKA_TRANSACTION_HPP

// Kafka's transactions: outputs, and the offsets of what they were made from, in one step.

#include <idem/broker/kafka.hpp>
#include <idem/broker/kafka_sink_options.hpp>
#include <idem/detail/kafka_sink_state.hpp>
#include <idem/strategy/transactional_sink.hpp>

#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0 {

class KafkaSink;

/// What a handler under BrokerTransaction is given: what it sends becomes visible to readers of
/// committed records together with the offset of its message, or never. Lives no longer than its
/// sink. Concurrency: one thread.
class KafkaTransaction {
public:
    KafkaTransaction(KafkaTransaction&& other) noexcept
        : state_(std::exchange(other.state_, nullptr))
        , conflicted_(other.conflicted_) {}
    KafkaTransaction& operator=(KafkaTransaction&& other) noexcept {
        std::swap(state_, other.state_);
        std::swap(conflicted_, other.conflicted_);
        return *this;
    }
    KafkaTransaction(const KafkaTransaction&) = delete;
    KafkaTransaction& operator=(const KafkaTransaction&) = delete;
    ~KafkaTransaction() { abort(); }

    /// Copies the output and does not wait for the broker, unless the local queue is full: what the
    /// broker refuses fails the commit.
    /// Throws: KafkaOutputError for an output that cannot be sent, such as one that is too large;
    /// StoreError where the transaction has failed; std::logic_error after its end.
    void send(const KafkaOutput& output) {
        require_open();
        const auto code = state_->producer.send(output, state_->producer.deadline());
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
            return;
        }
        if (detail::is_kafka_output_refused(code)) {
            throw detail::kafka_output_error(code, std::string(output.topic));
        }
        conflicted_ = true;
        throw StoreError(Fault::unavailable, detail::kafka_error("sending", code).what());
    }
    void send(std::string_view topic,
              std::string_view key,
              std::string_view payload,
              std::span<const KafkaHeader> headers = {}) {
        send({.topic = topic, .key = key, .payload = payload, .headers = headers});
    }
    void send(std::string_view topic,
              std::string_view key,
              std::string_view payload,
              std::initializer_list<KafkaHeader> headers) {
        send(topic, key, payload, std::span(headers.begin(), headers.size()));
    }

    // ---- for BrokerTransaction (TransactionalSink) ---------------------------------------------
    std::vector<Claim<std::monostate>> claim(std::span<const Request> requests) {
        require_open();
        return state_->claim(requests);
    }
    void commit(std::span<const Request> requests) {
        require_open();
        std::exchange(state_, nullptr)->commit(requests);
    }
    void abort() noexcept {
        if (state_ != nullptr) {
            std::exchange(state_, nullptr)->abort();
        }
    }
    [[nodiscard]] bool conflicted() const noexcept { return conflicted_; }

private:
    friend class KafkaSink;
    explicit KafkaTransaction(detail::KafkaSinkState& state) noexcept : state_(&state) {}
    void require_open() const {
        if (state_ == nullptr) {
            throw std::logic_error("idem: the KafkaTransaction is over");
        }
    }

    detail::KafkaSinkState* state_;
    bool conflicted_ = false;
};

/// What BrokerTransaction takes in place of a store: `KafkaSink sink{source, {.transactional_id =
/// "billing-7"}}`, and `IdempotentConsumer{sink, BrokerTransaction{}}` over deliveries of that
/// source. From here on offsets are committed by transactions; the source commits by itself, between
/// them, only what was dead-lettered. Borrows the source, which outlives it.
///
/// Covers what is redelivered. Those who read the outputs must read committed records only
/// (librdkafka's default).
///
/// A transaction in progress holds back others of the same sink: concurrency comes from batches and
/// from further partitions of the group, each member with a sink of its own. Handlers of a batch
/// must be done within KafkaSinkOptions::transaction_timeout.
///
/// Fenced, timed out, or an end that is unknown: the producer is made anew under the same name, its
/// start ends what was open, and the group's committed offsets tell what became of it. Where they
/// do not come in time, the commit is in doubt, begin() asks again, and what was committed is not
/// run again.
///
/// Failed attempts are counted in memory, for max_attempts.
/// Concurrency: begin() waits for the transaction of another thread, up to the deadline.
class KafkaSink {
public:
    using Transaction = KafkaTransaction;
    static constexpr Covers covers = Covers::redelivered;

    /// Throws: std::invalid_argument naming what is wrong with the options, or with the source's.
    /// Connects before the source joins its group.
    KafkaSink(KafkaSource& source, KafkaSinkOptions options)
        : state_(detail::of_transactions(source.options_),
                 source.ownership_,
                 detail::checked(std::move(options))) {}
    KafkaSink(const KafkaSink&) = delete;
    KafkaSink& operator=(const KafkaSink&) = delete;

    /// Cost: at first, or after a failure, some round trips; else none.
    /// Throws: StoreError.
    [[nodiscard]] KafkaTransaction begin() {
        state_.begin();
        return KafkaTransaction(state_);
    }
    void record_failure(const Request& request, std::string_view why) noexcept {
        static_cast<void>(why);
        try {
            state_.attempts.add(*request.position);
        } catch (...) { // NOLINT(bugprone-empty-catch): out of memory: one attempt is not counted
        }
    }

private:
    detail::KafkaSinkState state_;
};

static_assert(FailureCountingSink<KafkaSink> && ConflictingTransaction<KafkaTransaction>);

} // namespace idem::inline v0

#endif // IDEM_BROKER_KAFKA_TRANSACTION_HPP
