// SPDX-License-Identifier: MIT
// Time that passes only when a test says so.

#pragma once

#include <atomic>
#include <chrono>

/// A clock for BasicMemoryStore and for the leases counted by it. One time for the whole process.
struct VirtualClock {
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<VirtualClock>;
    static constexpr bool is_steady = true;

    static time_point now() noexcept { return time_point(duration(ticks_.load())); }
    static void advance(duration by) noexcept { ticks_ += by.count(); }

private:
    static inline std::atomic<rep> ticks_{1'000'000'000};
};
