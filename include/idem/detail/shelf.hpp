// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SHELF_HPP
#define IDEM_DETAIL_SHELF_HPP

// Deliveries that are with us and not at work: those that may start, and those held until their
// retry is due.

#include <idem/detail/backlog.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

template <class Task, bool in_order>
class Shelf {
    using Time = typename Task::Time;

public:
    void add(Task&& task) { backlog_.add(std::move(task)); }
    void put_back(Task&& task) { backlog_.put_back(std::move(task)); }
    /// Its lane waits with it.
    void hold(Task&& task) {
        backlog_.hold(task.lane);
        held_.push_back(std::move(task));
    }
    /// The lane of a task that is elsewhere waits for it.
    void hold_lane(std::uint64_t lane) { backlog_.hold(lane); }
    void release_lane(std::uint64_t lane) { backlog_.release(lane); }
    /// A handler is through with a task of this lane.
    void finish(std::uint64_t lane) { backlog_.finish(lane); }

    [[nodiscard]] bool can_start() const noexcept { return backlog_.can_start(); }
    [[nodiscard]] std::size_t waiting() const noexcept { return backlog_.size(); }
    [[nodiscard]] std::size_t unheld() const noexcept { return backlog_.unheld(); }
    [[nodiscard]] std::size_t held() const noexcept { return held_.size(); }
    [[nodiscard]] std::vector<Task> take_chain(std::size_t longest) {
        return backlog_.take_chain(longest);
    }
    [[nodiscard]] std::vector<Task> take_batch(std::size_t most) {
        return backlog_.take_batch(most);
    }
    /// The earliest time at which a held task is due, or `latest`.
    [[nodiscard]] Time next_due(Time latest) const noexcept {
        for (const auto& task : held_) {
            latest = task.due < latest ? task.due : latest;
        }
        return latest;
    }

    /// What is due may start. `released(lane)` is told of each.
    template <class Released>
    void wake(Time now, const Released& released) {
        filter_held(
            [&](Task& task) {
                if (task.due > now) {
                    return true;
                }
                backlog_.put_back(std::move(task));
                return false;
            },
            released);
    }
    /// Removes those for which `keep(task)` answers false; it may have moved them away.
    template <class Keep, class Released>
    void filter(const Keep& keep, const Released& released) {
        backlog_.filter(keep);
        filter_held(keep, released);
    }

private:
    template <class Keep, class Released>
    void filter_held(const Keep& keep, const Released& released) {
        for (std::size_t i = 0; i < held_.size();) {
            const auto lane = held_[i].lane;
            if (keep(held_[i])) {
                ++i;
                continue;
            }
            if (i + 1 < held_.size()) {
                held_[i] = std::move(held_.back());
            }
            held_.pop_back();
            backlog_.release(lane);
            released(lane);
        }
    }

    std::conditional_t<in_order, LaneBacklog<Task>, PlainBacklog<Task>> backlog_;
    std::vector<Task> held_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SHELF_HPP
