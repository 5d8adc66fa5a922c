// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_PATIENCE_HPP
#define IDEM_DETAIL_REDIS_PATIENCE_HPP

// Whether it pays to look for an answer before sleeping until it comes.

#include <chrono>

namespace idem::inline v0::detail {

/// How often to look for an answer before sleeping until it comes. A wake-up costs more than a
/// server in the same machine or rack needs to answer. Over a longer way, or where others wait for
/// the processor, looking is in vain, and stops: while it is found to be so, ever more trips go by
/// without a look, up to a thousand.
class RedisPatience {
public:
    /// No looking takes longer.
    static constexpr std::chrono::microseconds moment{100};

    explicit RedisPatience(unsigned looks) noexcept : looks_(looks) {}

    /// For the next trip.
    [[nodiscard]] unsigned looks() noexcept {
        if (skipped_ > 0) {
            --skipped_;
            return 0;
        }
        return looks_;
    }
    void found() noexcept { doubt_ -= doubt_ > 0 ? 1 : 0; }
    void missed() noexcept { // one costs more than some finds gain
        doubt_ = doubt_ < 26 ? doubt_ + 4 : 30;
        skipped_ = doubt_ < 10 ? 0 : 1U << doubt_ / 3;
    }

private:
    unsigned looks_, doubt_ = 0, skipped_ = 0;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_PATIENCE_HPP
