// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_STORE_GATE_HPP
#define IDEM_DETAIL_STORE_GATE_HPP

// Whether the store behind the handlers answers.

#include <idem/detail/backoff.hpp>
#include <idem/outcome.hpp>

namespace idem::inline v0::detail {

/// Closed by a settlement that says the store is unavailable. Then one delivery at a time is
/// handled, at growing intervals, until one says otherwise.
template <class Clock>
class StoreGate {
public:
    using Time = typename Clock::time_point;

    [[nodiscard]] bool is_open() const noexcept { return backoff_.is_open(); }
    /// Of a closed one: one may be tried. A probe that is out this long has reached its handler
    /// perhaps, and must not keep the others waiting until it is through.
    [[nodiscard]] bool may_probe(Time now) const noexcept {
        return !is_open() && backoff_.over(now) &&
               (probe_ == nullptr || now >= probe_at_ + milliseconds{5'000});
    }
    /// When a closed one may be tried.
    [[nodiscard]] Time until() const noexcept {
        return probe_ == nullptr ? backoff_.until() : probe_at_ + milliseconds{5'000};
    }
    void probing(const void* job, Time now) noexcept {
        probe_ = job;
        probe_at_ = now;
    }
    void ended(const void* job) noexcept { probe_ = probe_ == job ? nullptr : probe_; }

    enum class Change { none, closed, opened };
    Change note(const Settlement& settlement, Time now) noexcept {
        const bool down = settlement.reason == reason::store_unavailable;
        // In doubt may be one key's trouble; an empty reason is a delivery that was never started.
        const bool silent = settlement.action == Action::stop ||
                            settlement.reason == reason::store_in_doubt ||
                            (settlement.action == Action::retry && settlement.reason.empty());
        if (down || (silent && !is_open())) {
            if (backoff_.over(now)) {
                backoff_.failed(now);
            }
            return Change::closed;
        }
        if (silent || is_open()) {
            return Change::none;
        }
        backoff_.worked();
        return Change::opened;
    }

private:
    Backoff<Clock> backoff_;
    const void* probe_ = nullptr;
    Time probe_at_{};
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_STORE_GATE_HPP
