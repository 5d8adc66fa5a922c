// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_BACKLOG_HPP
#define IDEM_DETAIL_BACKLOG_HPP

// Deliveries that wait for a handler, as a plain queue or in lanes.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// Without order: what the lanes' calls ask for holds by itself.
template <class Task>
class PlainBacklog {
public:
    void add(Task&& task) { tasks_.push_back(std::move(task)); }
    void put_back(Task&& task) { tasks_.push_front(std::move(task)); }
    void hold(std::uint64_t) noexcept {}
    void finish(std::uint64_t) noexcept {}
    void release(std::uint64_t) noexcept {}

    [[nodiscard]] std::size_t size() const noexcept { return tasks_.size(); }
    [[nodiscard]] std::size_t unheld() const noexcept { return tasks_.size(); }
    [[nodiscard]] bool can_start() const noexcept { return !tasks_.empty(); }

    [[nodiscard]] std::vector<Task> take_chain(std::size_t longest) { return take(longest); }
    [[nodiscard]] std::vector<Task> take_batch(std::size_t most) { return take(most); }

    /// Removes those for which `keep` answers false.
    template <class Keep>
    void filter(const Keep& keep) {
        std::deque<Task> kept;
        for (auto& task : tasks_) {
            if (keep(task)) {
                kept.push_back(std::move(task));
            }
        }
        tasks_ = std::move(kept);
    }

private:
    std::vector<Task> take(std::size_t most) {
        std::vector<Task> taken;
        taken.reserve(most < tasks_.size() ? most : tasks_.size());
        while (!tasks_.empty() && taken.size() < most) {
            taken.push_back(std::move(tasks_.front()));
            tasks_.pop_front();
        }
        return taken;
    }
    std::deque<Task> tasks_;
};

/// One task of a lane is out at a time, or a chain or batch of them that is handled in order; the
/// lane goes on when it is released.
template <class Task>
class LaneBacklog {
public:
    void add(Task&& task) { enter(std::move(task), false); }
    /// To the front of its lane.
    void put_back(Task&& task) { enter(std::move(task), true); }
    /// A task of the lane is out for longer: until as many times released.
    void hold(std::uint64_t lane) {
        auto& state = lanes_[lane];
        if (state.held++ == 0) {
            held_ += state.waiting.size();
        }
        state.out = true;
    }
    /// A handler is through with the lane's tasks: the lane goes on, unless one of them is held.
    void finish(std::uint64_t lane) {
        const auto found = lanes_.find(lane);
        if (found != lanes_.end() && found->second.out && found->second.held == 0) {
            release(lane);
        }
    }
    /// The held task is there again, or gone.
    void release(std::uint64_t lane) {
        const auto found = lanes_.find(lane);
        if (found == lanes_.end()) {
            return;
        }
        auto& state = found->second;
        if (state.held > 0) {
            if (--state.held > 0) {
                return;
            }
            held_ -= state.waiting.size();
        }
        state.out = false;
        if (state.waiting.empty()) {
            lanes_.erase(found);
        } else {
            ready_.push_back(lane);
        }
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    /// Without those that wait behind a held task.
    [[nodiscard]] std::size_t unheld() const noexcept { return size_ - held_; }
    [[nodiscard]] bool can_start() const noexcept { return !ready_.empty(); }

    /// In order, of one lane.
    [[nodiscard]] std::vector<Task> take_chain(std::size_t longest) {
        std::vector<Task> taken;
        if (!ready_.empty()) {
            taken.reserve(longest < size_ ? longest : size_);
            take_lane(longest, taken);
        }
        return taken;
    }
    /// In order of each lane, one lane after the other.
    [[nodiscard]] std::vector<Task> take_batch(std::size_t most) {
        std::vector<Task> taken;
        taken.reserve(most < size_ ? most : size_);
        while (!ready_.empty() && taken.size() < most) {
            take_lane(most - taken.size(), taken);
        }
        return taken;
    }

    template <class Keep>
    void filter(const Keep& keep) {
        std::unordered_map<std::uint64_t, Lane> before;
        before.swap(lanes_);
        ready_.clear();
        size_ = held_ = 0;
        for (auto& [lane, state] : before) {
            if (state.out) {
                lanes_[lane].out = true;
                lanes_[lane].held = state.held;
            }
            for (auto& task : state.waiting) {
                if (keep(task)) {
                    add(std::move(task));
                }
            }
        }
    }

private:
    struct Lane {
        std::deque<Task> waiting;
        bool out = false;
        unsigned held = 0; // how many of it
    };
    void enter(Task&& task, bool in_front) {
        const auto lane = task.lane;
        auto& state = lanes_[lane];
        if (!state.out && state.waiting.empty()) {
            ready_.push_back(lane);
        }
        if (in_front) {
            state.waiting.push_front(std::move(task));
        } else {
            state.waiting.push_back(std::move(task));
        }
        ++size_;
        held_ += state.held > 0 ? 1 : 0;
    }
    void take_lane(std::size_t most, std::vector<Task>& taken) {
        auto& state = lanes_[ready_.front()];
        ready_.pop_front();
        state.out = true;
        for (std::size_t i = 0; i < most && !state.waiting.empty(); ++i, --size_) {
            taken.push_back(std::move(state.waiting.front()));
            state.waiting.pop_front();
        }
    }

    std::unordered_map<std::uint64_t, Lane> lanes_;
    std::deque<std::uint64_t> ready_; // with something waiting and nothing out
    std::size_t size_ = 0, held_ = 0;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_BACKLOG_HPP
