// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_MEMORY_SHARDS_HPP
#define IDEM_DETAIL_MEMORY_SHARDS_HPP

// All shards of a memory store, and what it does at its bounds.

#include <idem/detail/memory_shard.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace idem::inline v0::detail {

/// What leading bits of the hash lead to which shard. The shards differ in width, by up to two, so
/// that they double at moments spread evenly over a doubling of the store.
struct MemoryWidths {
    static constexpr unsigned shards = 64, parts = 1'024;
    std::uint8_t shard_of[parts] = {};

    constexpr MemoryWidths() {
        constexpr double step = 1.0108892860517005; // the 64th root of 2
        double end = step;
        unsigned shard = 0;
        for (unsigned part = 0; part < parts; ++part) {
            if (1.0 + (part + 0.5) / parts > end && shard + 1 < shards) {
                end *= step;
                ++shard;
            }
            shard_of[part] = static_cast<std::uint8_t>(shard);
        }
    }
};

/// Concurrency: every member from any number of threads, under the lock of the shard it is given.
class MemoryShards {
    using Place = MemoryTable::Place;

public:
    MemoryShards(std::size_t max_records, std::size_t max_bytes, bool evicts)
        : budget_(max_records, max_bytes)
        , max_records_(max_records)
        , max_bytes_(max_bytes)
        , evicts_(evicts)
        , shards_(max_records < many_records || (max_bytes != 0 && max_bytes < many_bytes)
                      ? 1
                      : MemoryWidths::shards) {
        // Fences start at the time, so that they grow across a restart of the process.
        const auto time = std::chrono::duration_cast<std::chrono::microseconds>(
            std::chrono::system_clock::now().time_since_epoch());
        for (auto& shard : shards_) {
            shard.draw_on(budget_, static_cast<std::uint64_t>(time.count()));
        }
    }

    [[nodiscard]] MemoryShard& of(std::uint64_t hash) noexcept {
        static constexpr MemoryWidths widths;
        return shards_.size() == 1 ? shards_.front() : shards_[widths.shard_of[hash >> 54U]];
    }
    template <class Figure>
    [[nodiscard]] std::size_t sum(const Figure& figure) const {
        std::size_t sum = 0;
        for (const auto& shard : shards_) {
            const std::scoped_lock lock(shard.mutex);
            sum += figure(shard);
        }
        return sum;
    }

    /// A record that was not there. Owns its extra.
    /// Throws: StoreError unavailable at a bound, std::bad_alloc; nothing changed then.
    [[nodiscard]] Place
    add(MemoryShard& mine, const MemoryNewRecord& fresh, const MemoryMoment& now) {
        const auto bytes = fresh.extra_bytes();
        try {
            for (unsigned tries = 0; tries < most_tries; ++tries) {
                if (mine.reserve(bytes)) {
                    if (const auto place = reserved_place(mine, fresh, now)) {
                        return place;
                    }
                }
                if (!make_room(mine, now)) {
                    break;
                }
            }
            throw full();
        } catch (...) {
            MemoryExtra::free(fresh.extra);
            throw;
        }
    }

private:
    static constexpr std::size_t many_records = 65'536, many_bytes = 64U << 20U; // else one shard
    static constexpr unsigned most_tries = 200; // each makes some room; a claim must end

    Place
    reserved_place(MemoryShard& mine, const MemoryNewRecord& fresh, const MemoryMoment& now) const {
        struct Account {
            MemoryShard& shard;
            std::size_t bytes;
            bool used = false;
            ~Account() {
                if (!used) {
                    shard.unreserve(bytes);
                }
            }
        } account{mine, fresh.extra_bytes()};
        const auto place = mine.add(fresh, now, evicts_);
        account.used = static_cast<bool>(place);
        return place;
    }
    /// The bounds are for all shards together, which fill unevenly, so that room is looked for in
    /// others too; one that is busy is passed over. False: there is none.
    bool make_room(MemoryShard& mine, const MemoryMoment& now) {
        return in_any(mine,
                      [&](MemoryShard& shard) {
                          const bool dropped = shard.drop_some_ended(now);
                          return (&shard != &mine && shard.release_credit()) || dropped;
                      }) ||
               (evicts_ && in_any(mine, [](MemoryShard& shard) { return shard.evict(); }));
    }
    template <class Step>
    bool in_any(MemoryShard& mine, const Step& step) {
        if (step(mine)) {
            return true;
        }
        for (auto& shard : shards_) {
            if (&shard != &mine) {
                const std::unique_lock lock(shard.mutex, std::try_to_lock);
                if (lock.owns_lock() && step(shard)) {
                    return true;
                }
            }
        }
        return false;
    }
    [[nodiscard]] StoreError full() const {
        const bool of_records = !budget_.has_records();
        return {Fault::unavailable,
                "idem: MemoryStore is full: all of its " +
                    (of_records
                         ? std::to_string(max_records_) + " records "
                                                          "(MemoryOptions::max_records)"
                         : std::to_string(max_bytes_) + " bytes (MemoryOptions::max_bytes)") +
                    " are within their retention; raise it, shorten "
                    "ConsumerOptions::retention, or choose evict_oldest"};
    }

    MemoryBudget budget_;
    std::size_t max_records_, max_bytes_;
    bool evicts_;
    std::vector<MemoryShard> shards_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_MEMORY_SHARDS_HPP
