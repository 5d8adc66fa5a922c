// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_WAKEUP_HPP
#define IDEM_DETAIL_KAFKA_WAKEUP_HPP

// Where a source waits for any of librdkafka's queues.

#include <idem/detail/kafka_client.hpp>

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace idem::inline v0::detail {

/// A queue reports when something comes into it while it is empty. So: clear(), then look at the
/// queues, then wait_until().
class KafkaWakeup {
public:
    void watch(rd_kafka_queue_t* queue) {
        rd_kafka_queue_cb_event_enable(
            queue, [](rd_kafka_t*, void* self) { static_cast<KafkaWakeup*>(self)->wake(); }, this);
    }
    static void unwatch(rd_kafka_queue_t* queue) {
        rd_kafka_queue_cb_event_enable(queue, nullptr, nullptr);
    }
    void clear() {
        const std::scoped_lock lock(mutex_);
        awake_ = false;
    }
    void wait_until(std::chrono::steady_clock::time_point until) {
        std::unique_lock lock(mutex_);
        changed_.wait_until(lock, until, [this] { return awake_; });
    }

private:
    void wake() {
        {
            const std::scoped_lock lock(mutex_);
            awake_ = true;
        }
        changed_.notify_one();
    }
    std::mutex mutex_;
    std::condition_variable changed_;
    bool awake_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_WAKEUP_HPP
