// SPDX-License-Identifier: MIT
// The machine's clock, set forward by what the tests let pass.

#pragma once

#include <atomic>
#include <chrono>

class ShiftedClock {
public:
    using time_point = std::chrono::system_clock::time_point;
    static time_point now() {
        return std::chrono::system_clock::now() + std::chrono::milliseconds(passed_.load());
    }
    static void advance(std::chrono::milliseconds time) { passed_ += time.count(); }

private:
    static inline std::atomic<std::chrono::milliseconds::rep> passed_{0};
};
