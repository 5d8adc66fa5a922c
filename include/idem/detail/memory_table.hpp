// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_MEMORY_TABLE_HPP
#define IDEM_DETAIL_MEMORY_TABLE_HPP

// Where a shard of the memory store keeps its slots: open addressing in segments that split one at
// a time, so that growing never moves more than a few hundred records.

#include <idem/detail/memory_block.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace idem::inline v0::detail {

/// Segments behind a directory by the leading bits of the hash (Fagin and others, "Extendible
/// hashing", 1979). A segment is never given back before the table goes: what is dropped makes room
/// for what comes.
/// Concurrency: one thread at a time; prefetch() from any number beside it.
class MemoryTable {
public:
    static constexpr unsigned blocks = 32; // of a segment
    // Blocks that a new record may go to, its home the first. More would fill the segments better
    // (12: 57 bytes for each key instead of 70), and each claim would read more of them.
    static constexpr unsigned reach = 3;

    struct Place {
        MemoryBlock* block = nullptr;
        unsigned at = 0;
        [[nodiscard]] explicit operator bool() const noexcept { return block != nullptr; }
        [[nodiscard]] MemorySlot& operator*() const noexcept { return (*block)[at]; }
        [[nodiscard]] MemorySlot* operator->() const noexcept { return &(*block)[at]; }
    };

    MemoryTable() = default;
    MemoryTable(const MemoryTable&) = delete;
    MemoryTable& operator=(const MemoryTable&) = delete;
    ~MemoryTable() {
        for (auto* segment : segments_) {
            delete segment;
        }
        for (auto* entries : directories_) {
            delete[] entries;
        }
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] static constexpr std::size_t segment_bytes() noexcept {
        return sizeof(Segment) + 80; // with what the allocator adds
    }
    [[nodiscard]] std::size_t bytes() const noexcept {
        return segments_.size() * segment_bytes() + directory_bytes_;
    }
    [[nodiscard]] bool is_empty() const noexcept { return segments_.empty(); }

    /// The slot of this hash that `is_it`. None: no such record.
    template <class IsIt>
    [[nodiscard]] Place find(std::uint64_t hash, const IsIt& is_it) const {
        if (segments_.empty()) {
            return {};
        }
        auto& segment = segment_of(hash);
        for (unsigned step = 0; step < blocks; ++step) {
            auto& block = segment.block(home(hash) + step);
            for (auto found = block.matches(hash); found.any(); found.pop()) {
                const auto at = found.first();
                if (block[at].hash() == hash && is_it(block[at])) {
                    return {&block, at};
                }
            }
            if (!block.is_passed_by()) {
                break;
            }
        }
        return {};
    }
    /// The block so many steps from the home of this hash. Requires: not is_empty().
    [[nodiscard]] MemoryBlock& block(std::uint64_t hash, unsigned step) const noexcept {
        return segment_of(hash).block(home(hash) + step);
    }
    /// Requires: room in that block, and none in those before it. Its end is the caller's to note.
    Place add(const MemoryNewRecord& fresh, unsigned step) noexcept {
        ++size_;
        const auto place = segment_of(fresh.hash).take(fresh.hash, step, fresh.extra != nullptr);
        *place = MemorySlot(fresh);
        return place;
    }
    void drop(const Place& place) noexcept {
        if (place.block->is_heavy(place.at)) {
            segment_of(place->hash()).remove(place);
        } else {
            place.block->release(place.at);
        }
        --size_;
    }

    /// Throws: std::bad_alloc, and nothing changed.
    void add_first_segment() {
        segments_.reserve(1);
        auto* first = new Segment;
        segments_.push_back(first);
        const auto directory = add_directory(1);
        directory.point(0, 2, first);
        directory_.store(directory.word(), std::memory_order_release);
    }
    /// Halves the segment of this hash. Throws: std::bad_alloc, and nothing changed.
    void split(std::uint64_t hash) {
        auto& old = segment_of(hash);
        if (segments_.size() == segments_.capacity()) {
            segments_.reserve(2 * segments_.size());
        }
        if (old.depth == directory().bits()) {
            double_directory();
        }
        auto* fresh = new Segment;
        segments_.push_back(fresh);
        const auto span = std::size_t{1} << (directory().bits() - old.depth);
        const auto from = directory().index(hash) & ~(span - 1);
        fresh->depth = ++old.depth;
        old.move_half(*fresh);
        directory().point(from + span / 2, span / 2, fresh);
    }

    /// Only asks the processor for a record's lines.
    void prefetch(std::uint64_t hash) const noexcept {
        if (const Directory directory(directory_.load(std::memory_order_acquire)); directory) {
            directory.segment(hash, std::memory_order_acquire)->block(home(hash)).prefetch(hash);
        }
    }

    /// All blocks, in an order that goes round: `turn` counts on from where one left off.
    [[nodiscard]] std::size_t block_count() const noexcept { return segments_.size() * blocks; }
    [[nodiscard]] MemoryBlock& block_of_turn(std::size_t turn) const noexcept {
        const auto at = turn % block_count();
        return segments_[at / blocks]->block(static_cast<unsigned>(at));
    }

private:
    static constexpr unsigned bits_of_shard = 10; // the shard took those before

    [[nodiscard]] static unsigned home(std::uint64_t hash) noexcept {
        return static_cast<unsigned>(hash) % blocks;
    }

    struct Segment {
        MemoryBlock blocks[MemoryTable::blocks];
        unsigned depth = 0; // how many bits all its records share

        [[nodiscard]] MemoryBlock& block(unsigned number) noexcept {
            return blocks[number % MemoryTable::blocks];
        }
        Place take(std::uint64_t hash, unsigned step, bool has_extra) noexcept {
            const auto from = home(hash);
            for (unsigned before = 0; before < step; ++before) {
                block(from + before).add_passing();
            }
            auto& target = block(from + step);
            const unsigned at = target.take(hash);
            if (step > 0 || has_extra) {
                target.set_heavy(at);
            }
            return {&target, at};
        }
        void remove(const Place& place) noexcept {
            for (auto at = home(place->hash()); &block(at) != place.block; ++at) {
                block(at).remove_passing();
            }
            place.block->release(place.at);
        }
        /// To the segment of those whose next bit is 1; the others come nearer to their homes.
        void move_half(Segment& other) noexcept {
            const auto bit = 1ULL << (64 - bits_of_shard - depth);
            for_each([&](const Place& place) {
                if ((place->hash() & bit) != 0) {
                    other.settle(*place);
                    remove(place);
                }
            });
            for_each([&](const Place& place) {
                if (place.block != &block(home(place->hash()))) {
                    const auto slot = *place;
                    remove(place);
                    settle(slot);
                }
            });
        }
        template <class Do>
        void for_each(const Do& act) {
            for (auto& from : blocks) {
                for (auto used = from.used(); used.any(); used.pop()) {
                    act(Place{&from, used.first()});
                }
            }
        }
        void settle(const MemorySlot& slot) noexcept {
            unsigned step = 0;
            while (block(home(slot.hash()) + step).is_full()) {
                ++step;
            }
            const auto place = take(slot.hash(), step, slot.extra() != nullptr);
            *place = slot;
            place.block->note_end(place.at, slot.end());
        }
    };

    using Entry = std::atomic<Segment*>;
    static constexpr std::uintptr_t aligned = 64; // above the bits of any directory

    /// Entries and the number of bits that choose among them, in one word.
    class Directory {
    public:
        Directory(Entry* entries, unsigned bits) noexcept
            : word_(reinterpret_cast<std::uintptr_t>(entries) | bits) {}
        explicit Directory(std::uintptr_t word) noexcept : word_(word) {}
        [[nodiscard]] explicit operator bool() const noexcept { return word_ != 0; }
        [[nodiscard]] std::uintptr_t word() const noexcept { return word_; }
        [[nodiscard]] unsigned bits() const noexcept {
            return static_cast<unsigned>(word_ % aligned);
        }
        [[nodiscard]] std::size_t size() const noexcept { return std::size_t{1} << bits(); }
        [[nodiscard]] std::size_t index(std::uint64_t hash) const noexcept {
            return static_cast<std::size_t>(hash << bits_of_shard >> (64 - bits()));
        }
        [[nodiscard]] Segment* segment(std::uint64_t hash, std::memory_order order) const noexcept {
            return entries()[index(hash)].load(order);
        }
        [[nodiscard]] Entry* entries() const noexcept {
            // NOLINTNEXTLINE(performance-no-int-to-ptr): its low bits hold the depth
            return reinterpret_cast<Entry*>(word_ & ~(aligned - 1));
        }
        void point(std::size_t from, std::size_t count, Segment* segment) const noexcept {
            for (std::size_t at = from; at < from + count; ++at) {
                entries()[at].store(segment, std::memory_order_release);
            }
        }

    private:
        std::uintptr_t word_;
    };

    [[nodiscard]] Directory directory() const noexcept {
        return Directory(directory_.load(std::memory_order_relaxed));
    }
    [[nodiscard]] Segment& segment_of(std::uint64_t hash) const noexcept {
        return *directory().segment(hash, std::memory_order_relaxed);
    }
    struct alignas(aligned) Entries {
        Entry at[aligned / sizeof(Entry)];
    };
    Directory add_directory(unsigned bits) {
        directories_.reserve(directories_.size() + 1);
        const auto count = ((std::size_t{1} << bits) * sizeof(Entry) + aligned - 1) / aligned;
        directories_.push_back(new Entries[count]);
        directory_bytes_ += count * aligned;
        return {directories_.back()->at, bits};
    }
    /// The old one stays, for a prefetch that reads it: all of them are less than twice the last.
    void double_directory() {
        const auto old = directory();
        const auto fresh = add_directory(old.bits() + 1);
        for (std::size_t at = 0; at < old.size(); ++at) {
            fresh.point(2 * at, 2, old.entries()[at].load(std::memory_order_relaxed));
        }
        directory_.store(fresh.word(), std::memory_order_release);
    }

    std::size_t size_ = 0;
    std::atomic<std::uintptr_t> directory_{0};
    std::vector<Segment*> segments_;
    std::vector<Entries*> directories_; // the last one is in use
    std::size_t directory_bytes_ = 0;   // of all of them
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_MEMORY_TABLE_HPP
