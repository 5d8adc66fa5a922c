// SPDX-License-Identifier: MIT
// Calendar time that passes only when a test says so.

#pragma once

#include <atomic>
#include <chrono>

class StillClock {
public:
    using time_point = std::chrono::sys_time<std::chrono::milliseconds>;
    static time_point now() noexcept {
        return time_point(std::chrono::milliseconds(milliseconds_.load()));
    }
    static void advance(std::chrono::milliseconds time) noexcept { milliseconds_ += time.count(); }

private:
    static inline std::atomic<std::chrono::milliseconds::rep> milliseconds_{1'800'000'000'000};
};
