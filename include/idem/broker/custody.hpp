// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_CUSTODY_HPP
#define IDEM_BROKER_CUSTODY_HPP

// The deliveries that are here and not at work, and what the source is to be told of them.

#include <idem/broker/delivery_keeper.hpp>
#include <idem/broker/guarded_source.hpp>
#include <idem/detail/backoff.hpp>
#include <idem/detail/shelf.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>

namespace idem::inline v0::detail {

/// A delivery that came in is, at any time, on the shelf (it may start, or is held), with a
/// handler, or unsettled (its settlement is decided). It leaves by being settled, or lost.
template <class S, class Clock, class Task, bool in_order>
class Custody {
    using Time = typename Task::Time;

public:
    Custody(S& source, Observer* observer, std::size_t hold)
        : source_(source, observer)
        , keeper_(source_)
        , hold_(hold < source_.most_held() ? hold : source_.most_held()) {}

    [[nodiscard]] GuardedSource<S, Clock>& source() noexcept { return source_; }
    [[nodiscard]] const GuardedSource<S, Clock>& source() const noexcept { return source_; }
    [[nodiscard]] Shelf<Task, in_order>& shelf() noexcept { return shelf_; }
    [[nodiscard]] const Shelf<Task, in_order>& shelf() const noexcept { return shelf_; }
    [[nodiscard]] bool all_settled() const noexcept { return unsettled_.empty(); }

    void take_in(typename S::Delivery&& delivery, Time now) {
        const auto lane = source_.lane(delivery);
        Task task{.delivery = std::move(delivery),
                  .lane = lane,
                  .received = now,
                  .extend_at = keeper_.first(now)};
        if constexpr (InspectedDelivery<typename S::Delivery>) {
            if (auto defect = std::as_const(task.delivery).defect()) {
                task.settlement = std::move(*defect);
                decide(std::move(task));
                return;
            }
        }
        shelf_.add(std::move(task));
    }
    /// Its settlement stands.
    void decide(Task&& task) { unsettled_.push_back(std::move(task)); }
    /// Its settlement is dead_letter. Its lane waits until the source has it: where a fence row says
    /// where to start, one that passed it would lose it.
    void bury(Task&& task) {
        if (in_order && !leaving_) {
            task.holds_lane = true;
            shelf_.hold_lane(task.lane);
        }
        decide(std::move(task));
    }
    /// Its settlement is retry.
    void retry(Task&& task, Time now) {
        if (task.settlement.reason == reason::store_unavailable) {
            shelve(std::move(task)); // as if it had never been started
            return;
        }
        const auto delay = retry_delay(task.settlement, ++task.retries, jitter_);
        task.due = now + delay;
        const bool room = in_order || shelf_.held() < hold_;
        if (leaving_ || !room || !keeper_.lasts(task)) {
            task.settlement.delay = delay;
            decide(std::move(task));
            return;
        }
        source_.pause(task.lane);
        shelf_.hold(std::move(task));
    }
    /// It did not start.
    void shelve(Task&& task) {
        if (task.lost) {
            task.settlement = {Action::retry, milliseconds{0}, {}, "lost"};
            source_.tell(task.settlement, Settled::lost);
        } else if (leaving_) {
            leave(std::move(task));
        } else {
            shelf_.put_back(std::move(task));
        }
    }
    /// What is held and due may start.
    void wake(Time now) {
        shelf_.wake(now, [this](std::uint64_t lane) { source_.resume(lane); });
    }
    /// All that is not at work goes back to the broker, now and from here on.
    void leave_all() {
        leaving_ = true;
        filter([this](Task& task) {
            leave(std::move(task));
            return false;
        });
    }

    /// Tells the source. True: of one at least. With `last_try` what cannot be told is dropped.
    bool settle(bool last_try) {
        bool settled = false;
        while (!unsettled_.empty()) {
            const bool given_back = unsettled_.front().settlement.action == Action::retry;
            const bool held = unsettled_.front().holds_lane;
            const auto lane = unsettled_.front().lane;
            if (!source_.settle_first(unsettled_, last_try || (leaving_ && given_back))) {
                break;
            }
            if (held && !source_.failure()) {
                shelf_.release_lane(lane);
            }
            settled = true;
        }
        return settled;
    }

    /// When something is to be extended next.
    [[nodiscard]] Time extends_at() const noexcept { return keeper_.next(); }
    /// Extends what is due, that of `jobs` too; the handler of one that is lost is asked to stop.
    template <class Jobs>
    void extend(Jobs& jobs, Time now) {
        if (keeper_.is_time(now) && extend_all(jobs, now, false) && in_order) {
            extend_all(jobs, now, true); // with one of a lane, what stands behind it may be lost
        }
    }

private:
    void leave(Task&& task) {
        task.settlement.action = Action::retry;
        task.settlement.delay = milliseconds{0};
        decide(std::move(task));
    }
    template <class Keep>
    void filter(const Keep& keep) {
        shelf_.filter(keep, [this](std::uint64_t lane) { source_.resume(lane); });
    }
    /// True: something was lost.
    template <class Jobs>
    bool extend_all(Jobs& jobs, Time now, bool also_early) {
        bool lost = false;
        keeper_.begin(now, also_early);
        for (auto& job : jobs) {
            for (std::size_t at = job->collected; at < job->tasks.size(); ++at) {
                auto& task = job->tasks[at];
                if (!task.lost && !keeper_.keep(job->delivery(at), task)) {
                    task.lost = keeper_.renews(); // else it is late, and may still be settled
                    job->stop_of(at).request_stop();
                    lost = true;
                }
            }
        }
        filter([&](Task& task) {
            if (keeper_.keep(task.delivery, task)) {
                return true;
            }
            lost = true;
            if (keeper_.renews()) {
                task.settlement.action = Action::retry;
                source_.tell(task.settlement, Settled::lost);
            } else {
                leave(std::move(task));
            }
            return false;
        });
        return lost;
    }

    GuardedSource<S, Clock> source_;
    DeliveryKeeper<GuardedSource<S, Clock>, Task> keeper_;
    const std::size_t hold_;
    Shelf<Task, in_order> shelf_;
    std::deque<Task> unsettled_;
    Jitter jitter_;
    bool leaving_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_BROKER_CUSTODY_HPP
