// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_GUARDED_SOURCE_HPP
#define IDEM_BROKER_GUARDED_SOURCE_HPP

// A source as the consumer loop sees it: an outage is waited out, what a human must mend is kept.

#include <idem/broker/source_powers.hpp>
#include <idem/detail/backoff.hpp>
#include <idem/detail/failpoint.hpp>
#include <idem/observer.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// Calls the source, and not at all while it failed a moment ago. Nothing in here throws what the
/// source threw.
template <class S, class Clock>
class GuardedSource {
public:
    using Delivery = typename S::Delivery;
    using Time = typename Clock::time_point;

    GuardedSource(S& source, Observer* observer) : source_(source), observer_(observer) {}

    /// The first failure that no back-off mends; null: none.
    [[nodiscard]] const std::exception_ptr& failure() const noexcept { return failure_; }
    void fail(std::exception_ptr failure) noexcept {
        if (!failure_) {
            failure_ = std::move(failure);
        }
    }
    [[nodiscard]] bool can_be_asked() const noexcept { return backoff_.over(Clock::now()); }
    [[nodiscard]] Time until() const noexcept { return backoff_.until(); }

    [[nodiscard]] DeliveryDeadline deadline() const {
        if constexpr (DeadlinedSource<S>) {
            return source_.deadline();
        } else {
            return {};
        }
    }
    [[nodiscard]] std::size_t most_held() const {
        if constexpr (HoldBoundSource<S>) {
            return source_.most_held();
        } else {
            return ~std::size_t{0};
        }
    }
    [[nodiscard]] std::uint64_t lane(const Delivery& delivery) const {
        if constexpr (LanedSource<S>) {
            return source_.lane(delivery);
        } else {
            return 0;
        }
    }
    void pause(std::uint64_t lane) {
        if constexpr (PausableSource<S>) {
            ask([&] { source_.pause(lane); });
        }
    }
    void resume(std::uint64_t lane) {
        if constexpr (PausableSource<S>) {
            ask([&] { source_.resume(lane); });
        }
    }

    /// Nothing where the source has nothing, or cannot be asked.
    [[nodiscard]] std::vector<Delivery> receive(milliseconds time, std::size_t at_most) {
        std::vector<Delivery> received;
        if (!can_be_asked() || (at_most == 0 && !BoundedSource<S>)) {
            return received;
        }
        ask([&] {
            if constexpr (BoundedSource<S>) {
                received = source_.receive(time, at_most);
            } else {
                received = source_.receive(time);
            }
            if (at_most > 0) { // else it had no need to speak to the broker
                backoff_.worked();
            }
        });
        return received;
    }

    enum class Extended { yes, lost, not_asked };
    [[nodiscard]] Extended extend(Delivery& delivery, milliseconds time) {
        bool ours = true;
        if (!can_be_asked() || !ask([&] { ours = source_.extend(delivery, time); })) {
            return Extended::not_asked;
        }
        backoff_.worked();
        return ours ? Extended::yes : Extended::lost;
    }

    /// Carries out the first settlement, or as many acks as stand in front, and takes them off the
    /// queue. False: nothing happened, the source is unavailable; if `dispensable`, they are off
    /// all the same, told as in doubt.
    template <class Task>
    bool settle_first(std::deque<Task>& tasks, bool dispensable) {
        const std::size_t count = acks_in_front(tasks);
        std::vector<Settled> answers;
        if (can_be_asked()) {
            IDEM_FAILPOINT("run: before settle");
            ask([&] {
                answers = carry_out(tasks, count);
                backoff_.worked();
            });
            IDEM_FAILPOINT("run: after settle");
        }
        if (answers.empty() && !dispensable && !failure_) {
            tasks.push_back(std::move(tasks.front())); // what cannot be done holds up no other
            tasks.pop_front();
            return false;
        }
        answers.resize(count, Settled::in_doubt);
        for (const auto answer : answers) {
            tell(tasks.front().settlement, answer);
            tasks.pop_front();
        }
        return true;
    }

    void tell(const Settlement& settlement, Settled how) const noexcept {
        if (observer_ != nullptr) {
            observer_->settled(settlement, how);
        }
    }

private:
    /// False: it threw; what mends by itself starts the back-off.
    template <class Call>
    bool ask(const Call& call) {
        try {
            call();
            return true;
        } catch (const StoreError& error) {
            if (error.fault() == Fault::rejected) {
                fail(std::current_exception());
                return false;
            }
            backoff_.failed(Clock::now());
            if (observer_ != nullptr) {
                observer_->source_failed(error);
            }
        } catch (...) {
            fail(std::current_exception());
        }
        return false;
    }

    template <class Task>
    static std::size_t acks_in_front(const std::deque<Task>& tasks) {
        constexpr std::size_t most = 256;
        std::size_t count = 0;
        while (BulkAckSource<S> && count < tasks.size() && count < most &&
               tasks[count].settlement.action == Action::ack) {
            ++count;
        }
        return count > 0 ? count : 1;
    }

    /// Throws: StoreError where nothing happened. What may have happened is an answer: a settlement
    /// is not repeated.
    template <class Task>
    std::vector<Settled> carry_out(std::deque<Task>& tasks, std::size_t count) {
        try {
            if constexpr (BulkAckSource<S>) {
                if (count > 1) {
                    std::vector<Delivery*> deliveries;
                    for (std::size_t i = 0; i < count; ++i) {
                        deliveries.push_back(&tasks[i].delivery);
                    }
                    return source_.acknowledge(deliveries);
                }
            }
            return {source_.settle(tasks.front().delivery, tasks.front().settlement)};
        } catch (const StoreError& error) {
            if (error.fault() == Fault::unavailable || error.fault() == Fault::rejected) {
                throw;
            }
            std::vector<Settled> answers(count, Settled::in_doubt);
            return answers;
        }
    }

    S& source_;
    Observer* observer_;
    Backoff<Clock> backoff_;
    std::exception_ptr failure_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_BROKER_GUARDED_SOURCE_HPP
