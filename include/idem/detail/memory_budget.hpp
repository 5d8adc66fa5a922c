// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_MEMORY_BUDGET_HPP
#define IDEM_DETAIL_MEMORY_BUDGET_HPP

// The bounds of a memory store, which all of its shards draw on.

#include <atomic>
#include <cstddef>

namespace idem::inline v0::detail {

/// How many records, and how many bytes, there may be yet. Bytes of 0: no bound.
/// Concurrency: every member from any number of threads.
class MemoryBudget {
public:
    MemoryBudget(std::size_t max_records, std::size_t max_bytes) noexcept
        : records_(max_records)
        , max_bytes_(max_bytes) {}

    /// Returns: how many of `wanted` there were.
    [[nodiscard]] std::size_t take_records(std::size_t wanted) noexcept {
        auto left = records_.load(std::memory_order_relaxed);
        std::size_t taken = 0;
        do {
            taken = left < wanted ? left : wanted;
        } while (taken > 0 &&
                 !records_.compare_exchange_weak(left, left - taken, std::memory_order_relaxed));
        return taken;
    }
    [[nodiscard]] bool has_records() const noexcept {
        return records_.load(std::memory_order_relaxed) > 0;
    }
    void give_records(std::size_t count) noexcept {
        records_.fetch_add(count, std::memory_order_relaxed);
    }

    [[nodiscard]] bool take_bytes(std::size_t count) noexcept {
        if (max_bytes_ == 0) {
            return true;
        }
        auto used = bytes_.load(std::memory_order_relaxed);
        do {
            if (used > max_bytes_ || count > max_bytes_ - used) {
                return false;
            }
        } while (!bytes_.compare_exchange_weak(used, used + count, std::memory_order_relaxed));
        return true;
    }
    /// Of what must be kept, bound or not: the result of a handler that ran.
    void take_bytes_anyway(std::size_t count) noexcept {
        if (max_bytes_ != 0) {
            bytes_.fetch_add(count, std::memory_order_relaxed);
        }
    }
    void give_bytes(std::size_t count) noexcept {
        if (max_bytes_ != 0) {
            bytes_.fetch_sub(count, std::memory_order_relaxed);
        }
    }

private:
    std::atomic<std::size_t> records_;  // left
    std::atomic<std::size_t> bytes_{0}; // used
    std::size_t max_bytes_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_MEMORY_BUDGET_HPP
