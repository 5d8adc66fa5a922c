// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_TRACKER_HPP
#define IDEM_DETAIL_KAFKA_TRACKER_HPP

// Which messages of a partition are unfinished.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace idem::inline v0::detail {

/// Offsets in the order of receipt, which is ascending; gaps are usual (compaction, transactions).
/// Those that are finished go as soon as none before them is unfinished.
class KafkaTracker {
public:
    void clear() noexcept {
        entries_.clear();
        head_ = 0;
        next_ = -1;
    }
    /// Room for so many more: take() does not fail then.
    void reserve(std::size_t more) {
        if (const auto needed = entries_.size() + more; needed > entries_.capacity()) {
            entries_.reserve(std::max(needed, 2 * entries_.capacity()));
        }
    }
    void take(std::int64_t offset) {
        if (is_empty()) {
            next_ = offset;
        }
        entries_.push_back({offset, false});
    }
    /// False: it was finished before, or never taken.
    bool finish(std::int64_t offset) noexcept {
        Entry* const found = find(offset);
        if (found == nullptr || found->finished) {
            return false;
        }
        found->finished = true;
        while (!is_empty() && entries_[head_].finished) {
            next_ = entries_[head_++].offset + 1;
        }
        if (!is_empty()) {
            next_ = entries_[head_].offset;
        }
        if (head_ >= 64 && 2 * head_ >= entries_.size()) {
            entries_.erase(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(head_));
            head_ = 0;
        }
        return true;
    }
    [[nodiscard]] bool is_unfinished(std::int64_t offset) noexcept {
        const Entry* const found = find(offset);
        return found != nullptr && !found->finished;
    }
    /// What may be committed: the lowest unfinished offset, else one past the last; -1: nothing.
    [[nodiscard]] std::int64_t next() const noexcept { return next_; }
    /// From the lowest unfinished on, finished ones among them too.
    [[nodiscard]] std::size_t size() const noexcept { return entries_.size() - head_; }
    /// How many up to `offset`, itself too, are unfinished.
    [[nodiscard]] std::size_t unfinished_up_to(std::int64_t offset) const noexcept {
        std::size_t count = 0;
        for (std::size_t at = head_; at < entries_.size() && entries_[at].offset <= offset; ++at) {
            count += entries_[at].finished ? 0 : 1;
        }
        return count;
    }

private:
    struct Entry {
        std::int64_t offset;
        bool finished;
    };
    [[nodiscard]] bool is_empty() const noexcept { return head_ == entries_.size(); }
    [[nodiscard]] Entry* find(std::int64_t offset) noexcept {
        std::size_t low = head_, high = entries_.size();
        if (low < high && entries_[low].offset == offset) { // nearly always, where order is kept
            return &entries_[low];
        }
        while (low < high) {
            const std::size_t middle = low + (high - low) / 2;
            if (entries_[middle].offset < offset) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low < entries_.size() && entries_[low].offset == offset ? &entries_[low] : nullptr;
    }

    std::vector<Entry> entries_; // what lies before head_ is gone
    std::size_t head_ = 0;
    std::int64_t next_ = -1;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_TRACKER_HPP
