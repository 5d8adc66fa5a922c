// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_BACKOFF_HPP
#define IDEM_DETAIL_BACKOFF_HPP

// How long to wait before something is tried again.

#include <idem/outcome.hpp>

#include <chrono>
#include <cstdint>

namespace idem::inline v0::detail {

/// Spreads waits, so that those who failed together do not come back together.
class Jitter {
public:
    Jitter() noexcept
        : state_(static_cast<std::uint64_t>(
                     std::chrono::steady_clock::now().time_since_epoch().count()) ^
                 reinterpret_cast<std::uintptr_t>(this)) {}

    /// `wait` and up to a fifth more.
    [[nodiscard]] milliseconds spread(milliseconds wait) noexcept {
        state_ += 0x9e3779b97f4a7c15; // splitmix64
        std::uint64_t mixed = (state_ ^ (state_ >> 30)) * 0xbf58476d1ce4e5b9;
        mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
        const auto range = static_cast<std::uint64_t>(wait.count()) / 5 + 1;
        return wait + milliseconds((mixed ^ (mixed >> 31)) % range);
    }

private:
    std::uint64_t state_;
};

/// 200 ms doubled with each repetition (from 1), at most `longest`.
[[nodiscard]] constexpr milliseconds doubled(unsigned repetition, milliseconds longest) noexcept {
    const auto wait =
        first_retry * (1U << (repetition < 16 ? (repetition > 0 ? repetition - 1 : 0) : 15));
    return wait < longest ? wait : longest;
}

/// When a delivery whose settlement is `retry` may be handled again, after `retries` of them in a
/// row (semantics.md 7.1). What a handler asked for with RetryLater is exact.
[[nodiscard]] inline milliseconds
retry_delay(const Settlement& settlement, unsigned retries, Jitter& jitter) noexcept {
    if (settlement.reason == reason::retry_later) {
        constexpr milliseconds least{1}, most{std::chrono::hours{24 * 366}}; // added to a time
        const auto asked = settlement.delay < most ? settlement.delay : most;
        return asked > least ? asked : least;
    }
    constexpr milliseconds shortest{100}, longest{30'000};
    auto asked = settlement.delay < shortest ? shortest : settlement.delay;
    asked = asked > longest ? longest : asked;
    const auto own = doubled(retries, longest);
    return jitter.spread(asked > own ? asked : own);
}

/// Intervals at which something that is down is asked: by a `Clock`'s time.
template <class Clock>
class Backoff {
public:
    using Time = typename Clock::time_point;

    [[nodiscard]] bool over(Time now) const noexcept { return now >= until_; }
    [[nodiscard]] bool is_open() const noexcept { return failures_ == 0; }
    [[nodiscard]] Time until() const noexcept { return until_; }
    void failed(Time now) noexcept {
        constexpr milliseconds longest{5'000};
        until_ = now + jitter_.spread(doubled(++failures_, longest));
    }
    void worked() noexcept {
        failures_ = 0;
        until_ = {};
    }

private:
    unsigned failures_ = 0;
    Time until_{};
    Jitter jitter_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_BACKOFF_HPP
