// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_DELIVERY_TASK_HPP
#define IDEM_DETAIL_DELIVERY_TASK_HPP

// A delivery on its way through the consumer loop.

#include <idem/outcome.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <stop_token>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

template <class Delivered, class Moment>
struct DeliveryTask {
    using Delivery = Delivered;
    using Time = Moment;

    Delivery delivery;
    std::uint64_t lane = 0;
    unsigned retries = 0; // in a row
    Time received{}, extend_at{}, due{};
    bool lost = false;
    bool holds_lane = false;    // until it is settled
    Settlement settlement{};    // what the last handling asks for
    std::exception_ptr error{}; // behind a `stop`
};

/// What one thread is given at a time: deliveries to be handled one after the other, or as a batch.
/// The loop owns it and keeps its address. A thread writes what the handling of each task came to,
/// then raises `finished`, then sets `ended`; the loop reads in the opposite order.
template <class Task>
struct HandlerJob {
    HandlerJob(std::vector<Task>&& given, bool as_batch)
        : tasks(std::move(given))
        , stops(as_batch ? 1 : tasks.size()) {
        if (as_batch) {
            batch.reserve(tasks.size());
            for (auto& task : tasks) {
                batch.push_back(std::move(task.delivery)); // a batch handler takes a span
            }
        }
    }
    [[nodiscard]] bool is_batch() const noexcept { return !batch.empty(); }
    [[nodiscard]] typename Task::Delivery& delivery(std::size_t at) noexcept {
        return batch.empty() ? tasks[at].delivery : batch[at];
    }
    [[nodiscard]] std::stop_source& stop_of(std::size_t at) noexcept {
        return stops[is_batch() ? 0 : at];
    }
    /// The loop's, once the thread is through with it.
    [[nodiscard]] Task take(std::size_t at) {
        if (!batch.empty()) {
            tasks[at].delivery = std::move(batch[at]);
        }
        return std::move(tasks[at]);
    }
    /// Of the first `count` tasks, those that came to retry behind another of their lane that
    /// did; empty: none.
    [[nodiscard]] std::vector<bool> behind_retries(std::size_t count) const {
        std::vector<bool> behind;
        std::vector<std::uint64_t> lanes;
        for (std::size_t at = collected; at < count; ++at) {
            const auto& task = tasks[at];
            if (task.settlement.action != Action::retry || task.lost) {
                continue;
            }
            bool waits = false;
            for (const auto lane : lanes) {
                waits = waits || lane == task.lane;
            }
            if (waits) {
                behind.resize(count);
                behind[at] = true;
            } else {
                lanes.push_back(task.lane);
            }
        }
        return behind;
    }

    std::vector<Task> tasks;
    std::vector<typename Task::Delivery> batch;
    std::vector<std::stop_source> stops;
    std::atomic<std::size_t> finished{0};
    std::atomic<bool> ended{false};
    std::size_t collected = 0; // by the loop
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_DELIVERY_TASK_HPP
