// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_MEMORY_BLOCK_HPP
#define IDEM_DETAIL_MEMORY_BLOCK_HPP

// The smallest part of the memory store's table: twelve slots behind one line of what is asked first.

#include <idem/detail/memory_slot.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>

namespace idem::inline v0::detail {

/// A set of slots of one block.
class MemorySlotSet {
public:
    MemorySlotSet(std::uint64_t low, std::uint64_t high) noexcept : low_(low), high_(high) {}
    [[nodiscard]] bool any() const noexcept { return (low_ | high_) != 0; }
    [[nodiscard]] unsigned first() const noexcept {
        const int bit = low_ != 0 ? std::countr_zero(low_) : 64 + std::countr_zero(high_);
        return static_cast<unsigned>(bit) / 8;
    }
    void pop() noexcept { (low_ != 0 ? low_ : high_) &= (low_ != 0 ? low_ : high_) - 1; }
    [[nodiscard]] MemorySlotSet from(unsigned at) const noexcept {
        const std::uint64_t on = ~std::uint64_t{0} << at % 8 * 8;
        return at < 8 ? MemorySlotSet(low_ & on, high_) : MemorySlotSet(0, high_ & on);
    }

private:
    std::uint64_t low_, high_; // the top bit of each byte
};

/// Twelve slots. In the line before them: of each a byte of its hash (0: free), when it ends, and
/// whether dropping it takes a look at it; and the count of records at home here, or passing by,
/// that found no place: a search goes on only where there are any. So a record is dropped without a
/// trace and without moving another, most of them even unread.
/// As F14 does it: Bronson and Shi, "Open-sourcing F14 for faster, more memory-efficient hash
/// tables", 2019.
class alignas(64) MemoryBlock {
public:
    static constexpr unsigned slots = 12;

    [[nodiscard]] MemorySlot& operator[](unsigned at) noexcept { return slots_[at]; }

    [[nodiscard]] MemorySlotSet matches(std::uint64_t hash) const noexcept {
        return with_byte(tag_of(hash));
    }
    [[nodiscard]] MemorySlotSet used() const noexcept {
        const auto low = with_byte_in(tags_[0], 0), high = with_byte_in(tags_[1], 0);
        return {~low & top_bits, ~high & top_bits & only_slots};
    }
    [[nodiscard]] bool is_full() const noexcept { return !with_byte(0).any(); }

    /// Requires: not full. A free slot, now used.
    [[nodiscard]] unsigned take(std::uint64_t hash) noexcept {
        const auto free = with_byte(0);
        const auto wished = free.from(wish_of(hash));
        const unsigned at = wished.any() ? wished.first() : free.first();
        tags_[at / 8] |= std::uint64_t{tag_of(hash)} << at % 8 * 8;
        return at;
    }
    void release(unsigned at) noexcept {
        end_seconds_[at] = never;
        tags_[at / 8] &= ~(std::uint64_t{0xff} << at % 8 * 8);
        tags_[1] &= ~heavy(at);
    }
    /// Asks the processor for the first line, and for that of the slot which take() wishes for.
    void prefetch(std::uint64_t hash) const noexcept {
        __builtin_prefetch(this, 1);
        __builtin_prefetch(&slots_[wish_of(hash)], 1);
    }
    /// Once the first line is there: asks for that of the slot which take() would return.
    void prefetch_free(std::uint64_t hash) const noexcept {
        const auto free = with_byte(0);
        const auto wished = free.from(wish_of(hash));
        __builtin_prefetch(&slots_[wished.any() ? wished.first()
                                   : free.any() ? free.first()
                                                : 0],
                           1);
    }

    [[nodiscard]] bool is_passed_by() const noexcept { return tags_[1] >> 56U != 0; }
    /// Once there are too many to count, "some" is said for ever.
    void add_passing() noexcept { tags_[1] += is_uncounted() ? 0 : 1ULL << 56U; }
    void remove_passing() noexcept { tags_[1] -= is_uncounted() ? 0 : 1ULL << 56U; }

    /// Whether a slot is away from its home or has an extra.
    [[nodiscard]] bool is_heavy(unsigned at) const noexcept { return (tags_[1] & heavy(at)) != 0; }
    void set_heavy(unsigned at) noexcept { tags_[1] |= heavy(at); }

    /// To be called after every change of a slot's end.
    void note_end(unsigned at, std::uint64_t end) noexcept {
        const auto second = end / 1'000;
        end_seconds_[at] = second < never ? static_cast<std::uint32_t>(second) : never;
    }
    /// False: none has. True: has_ended() tells which, if any.
    [[nodiscard]] bool may_have_ended(const MemoryMoment& now) const noexcept {
        const auto current = now.below / 1'000;
        const auto second = current < never ? static_cast<std::uint32_t>(current) : never - 1;
        bool ended = false;
        for (const auto each : end_seconds_) {
            ended |= each <= second;
        }
        return ended;
    }
    /// Whether a used slot is past its end.
    [[nodiscard]] bool has_ended(unsigned at, const MemoryMoment& now) const noexcept {
        const std::uint64_t second = end_seconds_[at], current = now.below / 1'000;
        return second < current ||
               ((second == current || second == never) && slots_[at].end() <= now.below);
    }
    /// No slot ends before it.
    [[nodiscard]] std::uint64_t end_at_least(unsigned at, const MemoryMoment& now) const noexcept {
        const std::uint64_t second = end_seconds_[at];
        return second == now.below / 1'000 ? slots_[at].end() : second * 1'000;
    }

private:
    static constexpr std::uint64_t ones = 0x01010101'01010101, top_bits = ones << 7U;
    static constexpr std::uint64_t only_slots = 0xffffffff; // of the second word
    static constexpr std::uint32_t never = ~std::uint32_t{0};

    [[nodiscard]] static std::uint8_t tag_of(std::uint64_t hash) noexcept {
        const auto byte = static_cast<std::uint8_t>(hash >> 8U);
        return byte != 0 ? byte : std::uint8_t{1};
    }
    /// Where a record goes if it can, so that its line can be asked for before the tags are there:
    /// the first slot of a line.
    [[nodiscard]] static unsigned wish_of(std::uint64_t hash) noexcept {
        return static_cast<unsigned>((hash >> 16U & 0xffU) * (slots / 2) >> 8U) * 2;
    }
    [[nodiscard]] static std::uint64_t heavy(unsigned at) noexcept { return 1ULL << (32 + at); }
    [[nodiscard]] bool is_uncounted() const noexcept { return tags_[1] >> 56U == 0xff; }
    static std::uint64_t with_byte_in(std::uint64_t word, std::uint8_t byte) noexcept {
        const std::uint64_t differs = word ^ ones * byte;
        return ~(((differs & ~top_bits) + ~top_bits) | differs | ~top_bits);
    }
    [[nodiscard]] MemorySlotSet with_byte(std::uint8_t byte) const noexcept {
        return {with_byte_in(tags_[0], byte), with_byte_in(tags_[1], byte) & only_slots};
    }

    // Tags in twelve bytes, then twelve bits of heavy slots, and in the last byte who passed by.
    std::uint64_t tags_[2] = {0, 0};
    std::uint32_t end_seconds_[slots] = {never,
                                         never,
                                         never,
                                         never,
                                         never,
                                         never,
                                         never,
                                         never,
                                         never,
                                         never,
                                         never,
                                         never}; // rounded down
    MemorySlot slots_[slots];
};
static_assert(sizeof(MemoryBlock) == 448);

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_MEMORY_BLOCK_HPP
