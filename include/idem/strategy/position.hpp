// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_POSITION_HPP
#define IDEM_STRATEGY_POSITION_HPP

// For strategies that live by the position of a message in its partition.

#include <idem/strategy/strategy.hpp>

#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0::detail {

/// On a message without a position: no rerun helps.
[[nodiscard]] inline Verdict without_position(const char* strategy) {
    return failed_verdict(
        std::make_exception_ptr(Unprocessable(
            std::string("idem: ") + strategy +
            " needs Identity::position: let the key function return delivery.identity() (as "
            "idem::delivery_id does), or run it by decoding(), from a source of partitions")),
        0);
}

/// On what stands behind one of its partition that is not done: it did not start.
[[nodiscard]] inline Verdict waiting() {
    Verdict verdict;
    verdict.status = Status::in_progress;
    return verdict;
}

/// The partitions of which nothing more may start, as a message of theirs is not done.
class PassedOver {
public:
    [[nodiscard]] bool is_empty() const noexcept { return partitions_.empty(); }
    [[nodiscard]] bool holds(const std::optional<Position>& position) const noexcept {
        for (const auto partition : partitions_) {
            if (position && partition == position->partition) {
                return true;
            }
        }
        return false;
    }
    [[nodiscard]] bool holds(const Request& request) const noexcept {
        return holds(request.position);
    }
    void behind(const std::optional<Position>& position) {
        if (position && !holds(position)) {
            partitions_.push_back(position->partition);
        }
    }
    void behind(const Request& request) { behind(request.position); }

private:
    std::vector<std::string_view> partitions_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_STRATEGY_POSITION_HPP
