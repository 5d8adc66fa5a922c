// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_TRANSACTIONAL_PRODUCER_HPP
#define IDEM_DETAIL_KAFKA_TRANSACTIONAL_PRODUCER_HPP

// A producer under a transactional id, made anew whenever it is broken, and what each of its steps
// came to.

#include <idem/broker/kafka_options.hpp>
#include <idem/broker/kafka_sink_options.hpp>
#include <idem/detail/failpoint.hpp>
#include <idem/detail/kafka_client.hpp>

#include <chrono>
#include <optional>
#include <string>
#include <utility>

namespace idem::inline v0::detail {

using KafkaDeadline = std::chrono::steady_clock::time_point;

[[nodiscard]] inline int kafka_time_left(KafkaDeadline until) {
    const auto now = std::chrono::steady_clock::now();
    return until > now ? static_cast<int>(std::chrono::ceil<milliseconds>(until - now).count()) : 0;
}

/// How a step of a transaction ended, by the flags of its error (librdkafka's INTRODUCTION.md,
/// "Transactional Producer").
struct KafkaStep {
    enum class End {
        done,
        late,   ///< not known yet, and the deadline has passed
        abort,  ///< the transaction is to be aborted
        broken, ///< fatal, or of no known kind: the producer is to be destroyed
    };
    End end = End::done;
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
    std::string text{};

    /// As the sink's caller is told. A fatal error is no human's concern: `_FENCED` may be a mere
    /// timeout, and a new producer goes on.
    [[nodiscard]] StoreError error(const std::string& what) const {
        const auto told = kafka_error(what, code, text);
        const bool fatal = code == RD_KAFKA_RESP_ERR__FATAL || code == RD_KAFKA_RESP_ERR__FENCED;
        return fatal ? StoreError(Fault::unavailable, told.what()) : told;
    }
};

/// Concurrency: one thread at a time.
class KafkaTransactionalProducer {
public:
    KafkaTransactionalProducer(KafkaOptions source, KafkaSinkOptions options)
        : source_(std::move(source))
        , options_(std::move(options)) {}
    KafkaTransactionalProducer(const KafkaTransactionalProducer&) = delete;
    KafkaTransactionalProducer& operator=(const KafkaTransactionalProducer&) = delete;

    [[nodiscard]] const KafkaSinkOptions& options() const noexcept { return options_; }
    [[nodiscard]] KafkaDeadline deadline() const {
        return std::chrono::steady_clock::now() + options_.deadline;
    }
    [[nodiscard]] rd_kafka_t* native() const noexcept { return handle_.get(); }

    /// A producer is there, and every earlier transaction of its id has ended.
    /// Throws: StoreError.
    void require_ready(KafkaDeadline until) {
        if (!handle_) {
            make();
        }
        if (ready_) {
            return;
        }
        IDEM_FAILPOINT("kafka: before init");
        const auto step = repeat(until, rd_kafka_init_transactions);
        if (step.end != KafkaStep::End::done) {
            if (step.end != KafkaStep::End::late) {
                discard();
            }
            throw step.error("starting as transactional.id " + options_.transactional_id);
        }
        ready_ = true;
    }
    /// Throws: StoreError.
    void begin() {
        refusal_.reset();
        const auto step = begin_now();
        if (step.end != KafkaStep::End::done) {
            discard();
            throw step.error("beginning a transaction");
        }
        in_transaction_ = true;
    }
    /// Hands it over; its report comes by refusal(). Waits where the local queue is full.
    rd_kafka_resp_err_t send(const KafkaOutput& output, KafkaDeadline until) {
        topic_ = output.topic; // ended by a NUL
        for (;;) {
            const auto code = produce(output);
            if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL || kafka_time_left(until) == 0) {
                rd_kafka_poll(handle_.get(), 0);
                return code;
            }
            rd_kafka_poll(handle_.get(), 10);
        }
    }
    /// Every output is with the broker, and then the offsets are added to the transaction. In this
    /// order: while an output fails the transaction, or waits for its leader, librdkafka 2.0.2 does
    /// not come back from send_offsets_to_transaction, whatever the deadline.
    KafkaStep send_offsets(const rd_kafka_topic_partition_list_t* offsets,
                           const rd_kafka_consumer_group_metadata_t* member,
                           KafkaDeadline until) {
        if (auto step = flush(until); step.end != KafkaStep::End::done) {
            return step;
        }
        return repeat(until, [&](rd_kafka_t* handle, int time) {
            return rd_kafka_send_offsets_to_transaction(handle, offsets, member, time);
        });
    }
    /// Late, broken: only reading back tells. Abort: abort() tells, where it succeeds.
    KafkaStep commit(KafkaDeadline until) {
        auto step = repeat(until, rd_kafka_commit_transaction);
        in_transaction_ = step.end != KafkaStep::End::done;
        return step;
    }
    /// True: there is no transaction, and none of it happened. False: the producer is gone, and the
    /// next one's start ends what it left open.
    bool abort(KafkaDeadline until) {
        if (!in_transaction_) {
            return true;
        }
        const auto step = repeat(until, rd_kafka_abort_transaction);
        in_transaction_ = false;
        if (step.end != KafkaStep::End::done) {
            discard();
        }
        return step.end == KafkaStep::End::done;
    }
    void discard() noexcept {
        if (handle_) {
            rd_kafka_purge(handle_.get(), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        }
        handle_.reset();
        ready_ = in_transaction_ = false;
    }
    /// The first output of this transaction that the broker did not take.
    struct Refusal {
        rd_kafka_resp_err_t code;
        std::string topic;
    };
    [[nodiscard]] const std::optional<Refusal>& refusal() const noexcept { return refusal_; }

private:
    void make() {
        auto config = kafka_producer_config(source_);
        // AddOffsetsToTxn right behind a commit is told CONCURRENT_TRANSACTIONS and waits for this:
        // the default of 100 ms is paid by each transaction.
        config.set("retry.backoff.ms", "2");
        // A transaction's outputs wait for its registration anyway, and so make up batches: lingering
        // doubled the time of one of 100.
        config.set("linger.ms", "0");
        config.set(options_.settings);
        config.set("transactional.id", options_.transactional_id);
        config.set("transaction.timeout.ms", std::to_string(options_.transaction_timeout.count()));
        rd_kafka_conf_set_opaque(config.get(), this);
        rd_kafka_conf_set_dr_msg_cb(
            config.get(), [](rd_kafka_t*, const rd_kafka_message_t* message, void* opaque) {
                auto& self = *static_cast<KafkaTransactionalProducer*>(opaque);
                const bool purged = message->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE ||
                                    message->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT;
                if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR && !purged && !self.refusal_) {
                    self.refusal_ = {message->err, rd_kafka_topic_name(message->rkt)};
                }
            });
        handle_ = std::move(config).make(RD_KAFKA_PRODUCER);
    }
    /// Late: the same call may help.
    static KafkaStep::End end_of(const rd_kafka_error_t* error) {
        if (rd_kafka_error_is_fatal(error) != 0) {
            return KafkaStep::End::broken;
        }
        if (rd_kafka_error_txn_requires_abort(error) != 0) {
            return KafkaStep::End::abort;
        }
        return rd_kafka_error_is_retriable(error) != 0 ? KafkaStep::End::late
                                                       : KafkaStep::End::broken;
    }
    KafkaStep begin_now() {
        return repeat(std::chrono::steady_clock::now(),
                      [](rd_kafka_t* handle, int) { return rd_kafka_begin_transaction(handle); });
    }
    /// The same call again, while its error says that this may help.
    template <class Call>
    KafkaStep repeat(KafkaDeadline until, const Call& call) {
        for (;;) {
            const KafkaError error(call(handle_.get(), kafka_time_left(until)));
            if (!error) {
                return {};
            }
            KafkaStep step{.end = end_of(error.get()),
                           .code = rd_kafka_error_code(error.get()),
                           .text = rd_kafka_error_string(error.get())};
            if (step.end != KafkaStep::End::late || kafka_time_left(until) == 0) {
                return step;
            }
            rd_kafka_poll(handle_.get(), 5);
        }
    }
    /// In slices: once one output has failed the transaction, those behind it are never sent, and
    /// rd_kafka_flush() waits for them. It also succeeds with outputs that failed.
    KafkaStep flush(KafkaDeadline until) {
        for (;;) {
            constexpr int slice = 100;
            const int left = kafka_time_left(until);
            const auto flushed = rd_kafka_flush(handle_.get(), left < slice ? left : slice);
            if (refusal_) {
                return {KafkaStep::End::abort, refusal_->code, "an output was not taken"};
            }
            if (flushed == RD_KAFKA_RESP_ERR_NO_ERROR) {
                return {};
            }
            // Nothing else tells the state: in this one it is refused, in a failed one with why.
            auto state = begin_now();
            if (state.code != RD_KAFKA_RESP_ERR__STATE) {
                return state;
            }
            if (left == 0) {
                return {KafkaStep::End::abort, flushed, "outputs are not with the broker in time"};
            }
        }
    }
    rd_kafka_resp_err_t produce(const KafkaOutput& output) {
        rd_kafka_headers_t* headers = nullptr;
        if (!output.headers.empty()) {
            headers = rd_kafka_headers_new(output.headers.size());
            for (const auto& [name, value] : output.headers) {
                rd_kafka_header_add(headers,
                                    name.data(),
                                    static_cast<ssize_t>(name.size()),
                                    value.data(),
                                    static_cast<ssize_t>(value.size()));
            }
        }
        const auto code = kafka_produce(handle_.get(),
                                        {.topic = topic_.c_str(),
                                         .key = output.key.data(),
                                         .key_size = output.key.size(),
                                         .value = output.payload.data(),
                                         .value_size = output.payload.size(),
                                         .headers = headers,
                                         .partition = output.partition});
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR && headers != nullptr) {
            rd_kafka_headers_destroy(headers);
        }
        return code;
    }

    KafkaOptions source_;
    KafkaSinkOptions options_;
    std::string topic_;
    std::optional<Refusal> refusal_;
    bool ready_ = false, in_transaction_ = false;
    KafkaHandle handle_; // last: its destruction may still report
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_TRANSACTIONAL_PRODUCER_HPP
