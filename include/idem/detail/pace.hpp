// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_PACE_HPP
#define IDEM_DETAIL_PACE_HPP

// How far ahead of its handlers the consumer loop takes deliveries.

#include <idem/error.hpp>

#include <cstddef>
#include <utility>

namespace idem::inline v0::detail {

/// As many as were finished during the last poll: quick handlers always find work, and what slow
/// ones cannot begin soon is left to other consumers.
template <class Clock>
class Pace {
public:
    using Time = typename Clock::time_point;
    static constexpr std::size_t most_ahead = 1'024;

    void finished() noexcept { ++current_; }
    void turn(Time now, milliseconds poll) noexcept {
        if (now >= until_) {
            last_ = std::exchange(current_, 0);
            until_ = now + poll;
        }
    }
    [[nodiscard]] std::size_t ahead() const noexcept {
        const std::size_t most = last_ > current_ ? last_ : current_;
        return most < most_ahead ? most : most_ahead;
    }

private:
    Time until_{};
    std::size_t last_ = 0, current_ = 0;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_PACE_HPP
