// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_TRANSACTION_TURN_HPP
#define IDEM_DETAIL_KAFKA_TRANSACTION_TURN_HPP

// Whose turn it is with the one producer of a sink.

#include <idem/detail/kafka_transactional_producer.hpp>

#include <condition_variable>
#include <mutex>

namespace idem::inline v0::detail {

/// At most one has it, from take() or try_take() to end(): a producer has one transaction at a time.
/// It goes with a transaction, which threads may hand on: a mutex would have to stay with one.
/// Concurrency: taking it from any thread; end() by whoever has it.
class KafkaTransactionTurn {
public:
    /// Ends a turn that was taken, however the scope is left.
    class Ending {
    public:
        explicit Ending(KafkaTransactionTurn& turn) noexcept : turn_(turn) {}
        Ending(const Ending&) = delete;
        Ending& operator=(const Ending&) = delete;
        ~Ending() { turn_.end(); }

    private:
        KafkaTransactionTurn& turn_;
    };

    /// Throws: StoreError: it was not free until then.
    void take(KafkaDeadline until) {
        std::unique_lock lock(mutex_);
        if (!free_.wait_until(lock, until, [this] { return !taken_; })) {
            throw StoreError(Fault::unavailable,
                             "idem: Kafka: the transaction of another handler thread took longer "
                             "than KafkaSinkOptions::deadline: a sink has one at a time; use "
                             "batches in place of threads");
        }
        taken_ = true;
    }
    /// False: another has it. Without waiting.
    [[nodiscard]] bool try_take() {
        const std::scoped_lock lock(mutex_);
        if (taken_) {
            return false;
        }
        taken_ = true;
        return true;
    }
    void end() noexcept {
        {
            const std::scoped_lock lock(mutex_);
            taken_ = false;
        }
        free_.notify_one();
    }

private:
    std::mutex mutex_;
    std::condition_variable free_;
    bool taken_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_TRANSACTION_TURN_HPP
