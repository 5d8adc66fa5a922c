// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_MEMORY_SHARD_HPP
#define IDEM_DETAIL_MEMORY_SHARD_HPP

// A part of the memory store's records, under one lock: what is kept, and until when.

#include <idem/detail/memory_budget.hpp>
#include <idem/detail/memory_table.hpp>
#include <idem/detail/siphash.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <utility>

namespace idem::inline v0::detail {

/// What a record is filed under. The text is kept, and compared, in a store that is not compact.
struct MemoryKey {
    Digest128 digest;
    std::string_view scope, id;
    bool keeps_text = false;

    [[nodiscard]] bool is_of(const MemorySlot& slot) const noexcept {
        if (!keeps_text) {
            return slot.rest() == digest.low;
        }
        const auto text = slot.extra()->key();
        return text.size() == 1 + scope.size() + id.size() &&
               text.front() == static_cast<char>(scope.size()) &&
               text.substr(1, scope.size()) == scope && text.substr(1 + scope.size()) == id;
    }
    /// A record that nobody claimed yet, bound as the arguments say.
    /// Throws: std::bad_alloc.
    [[nodiscard]] MemoryNewRecord new_record(const Fingerprint& fingerprint,
                                             std::string_view holder) const {
        char text[1 + max_scope + max_id];
        MemoryParts parts{.rest = digest.low, .holder = holder, .fingerprint = fingerprint};
        if (keeps_text) { // the scope's length first, so that no two keys make one text
            text[0] = static_cast<char>(scope.size());
            std::memcpy(text + 1, scope.data(), scope.size());
            std::memcpy(text + 1 + scope.size(), id.data(), id.size());
            parts.key = {text, 1 + scope.size() + id.size()};
        }
        return {digest.high, digest.low, parts.is_needed() ? MemoryExtra::make(parts) : nullptr};
    }
};

/// Concurrency: under `mutex`, which the store holds around every call; but for prefetch() and
/// nothing_ends_before().
class alignas(64) MemoryShard {
public:
    using Place = MemoryTable::Place;

    mutable std::mutex mutex;

    MemoryShard() = default;
    MemoryShard(const MemoryShard&) = delete;
    MemoryShard& operator=(const MemoryShard&) = delete;
    ~MemoryShard() {
        for_each_used([](const Place& place) { place->free_extra(); });
    }

    /// Before anything else.
    void draw_on(MemoryBudget& budget, std::uint64_t first_fence) noexcept {
        budget_ = &budget;
        last_fence_ = first_fence;
    }
    [[nodiscard]] std::size_t size() const noexcept { return table_.size(); }
    [[nodiscard]] std::size_t bytes() const noexcept { return table_.bytes() + extra_bytes_; }
    /// Grows with every call, so with every claim of a key.
    [[nodiscard]] std::uint64_t next_fence() noexcept { return ++last_fence_; }
    void prefetch(std::uint64_t hash) const noexcept { table_.prefetch(hash); }
    /// The same once that is there, under the lock: for the slot that add() will take.
    void make_ready(std::uint64_t hash, const MemoryMoment& now) noexcept {
        if (!table_.is_empty()) {
            auto& block = table_.block(hash, 0);
            drop_ended(block, now); // as add() would, and take another slot for it
            block.prefetch_free(hash);
        }
    }

    /// The record of a key, unless it is past its retention.
    [[nodiscard]] Place find(const MemoryKey& key, const MemoryMoment& now) {
        return unless_over(
            table_.find(key.digest.high, [&](auto& slot) { return key.is_of(slot); }), now);
    }
    /// The record as one claim of it left it: none once another claim followed.
    [[nodiscard]] Place find(std::uint64_t hash, std::uint64_t fence, const MemoryMoment& now) {
        return unless_over(table_.find(hash, [&](auto& slot) { return slot.fence() == fence; }),
                           now);
    }

    /// Puts one more record, and what it holds beside its slot, on the account, for add().
    [[nodiscard]] bool reserve(std::size_t extra_bytes) noexcept {
        if (credit_ == 0) {
            credit_ = budget_->take_records(credit_at_once);
        }
        if (credit_ == 0 || !budget_->take_bytes(extra_bytes)) {
            return false;
        }
        --credit_;
        return true;
    }
    void unreserve(std::size_t extra_bytes) noexcept {
        ++credit_;
        budget_->give_bytes(extra_bytes);
    }
    /// Lets other shards have what this one does not need now. False: it has nothing.
    bool release_credit() noexcept {
        const auto released = std::exchange(credit_, 0);
        budget_->give_records(released);
        return released > 0;
    }

    /// A record that was not there. None: it would need a segment for which there are no bytes.
    /// `evicts`: rather than that, forget a completed record near by.
    /// Requires: reserve(). Throws: std::bad_alloc, and nothing changed.
    [[nodiscard]] Place add(const MemoryNewRecord& fresh, const MemoryMoment& now, bool evicts) {
        for (const auto hash = fresh.hash;;) {
            for (unsigned step = 0; !table_.is_empty() && step < MemoryTable::reach; ++step) {
                auto& block = table_.block(hash, step);
                drop_ended(block, now);
                if (!block.is_full()) {
                    extra_bytes_ += fresh.extra_bytes();
                    return table_.add(fresh, step);
                }
            }
            if (budget_->take_bytes(MemoryTable::segment_bytes())) {
                grow(hash);
            } else if (table_.is_empty() || !evicts || !evict_near(hash)) {
                return {};
            }
        }
    }
    /// To be called after every change of a record's end.
    void note_end(const Place& place) noexcept {
        const auto end = place->end();
        place.block->note_end(place.at, end);
        if (end < earliest_.load(std::memory_order_relaxed)) {
            earliest_.store(end, std::memory_order_relaxed);
        }
    }
    /// Throws: std::bad_alloc, and nothing changed.
    template <class Change>
    void change_extra(const Place& place, const Change& change) {
        const auto before = place->extra_bytes();
        place->change_extra(change);
        place.block->set_heavy(place.at);
        const auto after = place->extra_bytes();
        budget_->take_bytes_anyway(after);
        budget_->give_bytes(before);
        extra_bytes_ += after - before;
    }

    [[nodiscard]] bool nothing_ended(const MemoryMoment& now) const noexcept {
        return earliest_.load(std::memory_order_relaxed) > now.below;
    }
    /// Drops some records past their retention. False: there are none.
    /// Cost: goes on from where it left off, and round once at most: then it knows when the next
    /// one ends.
    bool drop_some_ended(const MemoryMoment& now) noexcept {
        if (nothing_ended(now) || table_.is_empty()) {
            return false;
        }
        auto earliest = ~std::uint64_t{0};
        for (std::size_t count = table_.block_count(); count > 0; --count) {
            auto& block = table_.block_of_turn(hand_++);
            if (drop_ended(block, now)) {
                return true;
            }
            for (auto used = block.used(); used.any(); used.pop()) {
                const auto end = block.end_at_least(used.first(), now);
                earliest = end < earliest ? end : earliest;
            }
        }
        earliest_.store(earliest, std::memory_order_relaxed);
        return false;
    }
    /// Drops, of some sixty completed records, the one nearest to its end. False: none is there.
    bool evict() noexcept {
        Place nearest;
        unsigned seen = 0;
        for (std::size_t count = table_.block_count(); count > 0 && seen < sample; --count) {
            seen += look_for_evictable(table_.block_of_turn(hand_++), nearest);
        }
        return evict(nearest);
    }
    [[nodiscard]] std::size_t evicted() const noexcept { return evicted_; }

private:
    static constexpr std::size_t credit_at_once = 16;
    static constexpr unsigned sample = 60;

    template <class Do>
    void for_each_used(const Do& act) {
        for (std::size_t turn = 0; turn < table_.block_count(); ++turn) {
            auto& block = table_.block_of_turn(turn);
            for (auto used = block.used(); used.any(); used.pop()) {
                act(Place{&block, used.first()});
            }
        }
    }
    [[nodiscard]] Place unless_over(const Place& place, const MemoryMoment& now) noexcept {
        if (place && place->end() <= now.below) {
            drop(place);
            return {};
        }
        return place;
    }
    void drop(const Place& place) noexcept {
        if (place.block->is_heavy(place.at)) {
            const auto bytes = place->extra_bytes();
            extra_bytes_ -= bytes;
            budget_->give_bytes(bytes);
            place->free_extra();
        }
        table_.drop(place);
        if (++credit_ > 2 * credit_at_once) {
            budget_->give_records(credit_at_once);
            credit_ -= credit_at_once;
        }
    }
    bool drop_ended(MemoryBlock& block, const MemoryMoment& now) noexcept {
        bool dropped = false;
        if (!block.may_have_ended(now)) {
            return false;
        }
        for (auto used = block.used(); used.any(); used.pop()) {
            if (const auto at = used.first(); block.has_ended(at, now)) {
                drop({&block, at});
                dropped = true;
            }
        }
        return dropped;
    }
    void grow(std::uint64_t hash) {
        const auto before = table_.bytes() + MemoryTable::segment_bytes();
        try {
            table_.is_empty() ? table_.add_first_segment() : table_.split(hash);
        } catch (...) {
            budget_->give_bytes(MemoryTable::segment_bytes());
            throw;
        }
        budget_->take_bytes_anyway(table_.bytes() - before); // the directory's, if any
    }
    static unsigned look_for_evictable(MemoryBlock& block, Place& nearest) noexcept {
        unsigned seen = 0;
        for (auto used = block.used(); used.any(); used.pop()) {
            const Place place{&block, used.first()};
            if (place->is_completed()) {
                ++seen;
                nearest = !nearest || place->end() < nearest->end() ? place : nearest;
            }
        }
        return seen;
    }
    bool evict_near(std::uint64_t hash) noexcept {
        Place nearest;
        for (unsigned step = 0; step < MemoryTable::reach; ++step) {
            look_for_evictable(table_.block(hash, step), nearest);
        }
        return evict(nearest);
    }
    bool evict(const Place& nearest) noexcept {
        if (nearest) {
            drop(nearest);
            ++evicted_;
        }
        return static_cast<bool>(nearest);
    }

    MemoryBudget* budget_ = nullptr;
    std::uint64_t last_fence_ = 0;
    MemoryTable table_;
    std::size_t credit_ = 0;      // records taken from the budget and not used
    std::size_t extra_bytes_ = 0; // of all extras
    std::size_t hand_ = 0;        // where drop_some_ended() and evict() go on
    std::size_t evicted_ = 0;
    std::atomic<std::uint64_t> earliest_{~std::uint64_t{0}}; // no record here ends before it
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_MEMORY_SHARD_HPP
