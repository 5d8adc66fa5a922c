// SPDX-License-Identifier: MIT
#ifndef IDEM_BENCH_MEMORY_RIVALS_HPP
#define IDEM_BENCH_MEMORY_RIVALS_HPP

// What people would write instead of MemoryStore: a hash map with a lock and a queue of ends.

#include <idem/detail/memory_hash.hpp>
#include <idem/heartbeat.hpp>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#if __has_include(<boost/unordered/unordered_flat_map.hpp>)
#include <boost/unordered/unordered_flat_map.hpp>
#define IDEM_BENCH_FLAT_MAP "boost::unordered_flat_map"
#else
#define IDEM_BENCH_FLAT_MAP "std::unordered_map (no Boost 1.81)"
#endif

namespace idem::bench {

/// Time that passes by so much with each claim, so that records end at the rate at which they come;
/// each rival has its own. Asking costs what it costs in earnest.
struct TickingClock {
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<TickingClock>;
    static constexpr bool is_steady = true;

    static time_point now() noexcept {
        static_cast<void>(BootClock::now());
        return time_point(duration(*time_));
    }
    static void tick() noexcept { *time_ += step_; }
    /// From now on, on this thread.
    static void use(rep& time) noexcept { time_ = &time; }
    static void set_step(duration step) noexcept { step_ = step.count(); }

private:
    static inline thread_local rep* time_ = nullptr;
    static inline rep step_ = 0;
};

/// Keeps the compiler from leaving out what makes it.
inline void keep(const void* made) {
    asm volatile("" : : "r"(made) : "memory");
}

/// Texts of 36 characters, none twice, as cheap as can be.
class Ids {
public:
    std::string_view next() {
        std::uint64_t mixed = ++number_ * 0x9e3779b97f4a7c15U;
        mixed = (mixed ^ mixed >> 30U) * 0xbf58476d1ce4e5b9U;
        for (unsigned byte = 0; byte < 8; ++byte) {
            const auto low = mixed & 15U, high = mixed >> 4U & 15U;
            text_[20 + 2 * byte] = "0123456789abcdef"[high];
            text_[21 + 2 * byte] = "0123456789abcdef"[low];
            mixed >>= 8U;
        }
        return {text_, 36};
    }

private:
    std::uint64_t number_ = 0;
    char text_[37] = "6ba7b810-9dad-41d1-b0b0-000000000000";
};

/// The record of MemoryStore, beside its key.
struct RivalRecord {
    std::uint64_t fence : 53 = 0;
    std::uint64_t state : 3 = 0;
    std::uint64_t attempts : 8 = 0;
    std::uint64_t until : 40 = 0; // milliseconds
    std::uint64_t retention : 24 = 0;

    [[nodiscard]] std::uint64_t end() const noexcept { return until + retention * 1'000; }
};
static_assert(sizeof(RivalRecord) == 16);

[[nodiscard]] inline std::uint64_t rival_now() {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<milliseconds>(TickingClock::now().time_since_epoch()).count());
}

/// A map under a lock, and the queue of keys by which a claim drops up to two that have ended.
template <class Map>
class RivalShard {
    using MapKey = typename Map::key_type;

public:
    template <class GivenKey>
    std::uint64_t claim(const GivenKey& key, std::uint64_t now, std::uint64_t retention) {
        const std::scoped_lock lock(mutex_);
        for (int dropped = 0; dropped < 2 && !ends_.empty() && ends_.front().second <= now;
             ++dropped) {
            const auto at = map_.find(ends_.front().first);
            if (at != map_.end() && at->second.end() <= now) {
                map_.erase(at);
            }
            ends_.pop_front();
        }
        const auto [at, fresh] = map_.try_emplace(MapKey(key));
        if (!fresh && (at->second.state != 1 || at->second.until > now)) {
            throw std::logic_error("claimed before");
        }
        auto& record = at->second;
        record.state = 1;
        record.attempts = (record.attempts + 1U) & 0xffU;
        record.fence = ++fence_ & ((1ULL << 53U) - 1);
        record.until = (now + 30'000) & ((1ULL << 40U) - 1);
        record.retention = retention & 0xffffffU;
        ends_.emplace_back(key, record.end());
        return fence_;
    }
    template <class GivenKey>
    void complete(const GivenKey& key, std::uint64_t fence, std::uint64_t now) {
        const std::scoped_lock lock(mutex_);
        const auto at = map_.find(key);
        if (at == map_.end() || at->second.fence != fence || at->second.state != 1) {
            throw std::logic_error("outdated");
        }
        at->second.state = 2;
        at->second.until = now & ((1ULL << 40U) - 1);
    }
    [[nodiscard]] std::size_t size() const { return map_.size(); }

private:
    std::mutex mutex_;
    Map map_;
    std::deque<std::pair<MapKey, std::uint64_t>> ends_;
    std::uint64_t fence_ = 0;
};

struct DigestHash {
    using is_avalanching = void;
    std::size_t operator()(const detail::Digest128& digest) const noexcept { return digest.low; }
};

/// The best hash map at hand, keyed by the same digest, in as many shards.
class BestMap {
#if __has_include(<boost/unordered/unordered_flat_map.hpp>)
    using Map = boost::unordered_flat_map<detail::Digest128, RivalRecord, DigestHash>;
#else
    using Map = std::unordered_map<detail::Digest128, RivalRecord, DigestHash>;
#endif

public:
    static constexpr const char* name = IDEM_BENCH_FLAT_MAP ", 64 shards";
    struct Ticket {
        detail::Digest128 digest;
        std::uint64_t fence;
    };
    explicit BestMap(std::chrono::seconds retention)
        : retention_(static_cast<std::uint64_t>(retention.count()))
        , shards_(64) {}

    void enter() noexcept {
        TickingClock::use(time_);
    }
    Ticket claim(std::string_view id) {
        TickingClock::tick();
        const auto digest = hash_("billing", id);
        return {digest, shards_[digest.high >> 58U].claim(digest, rival_now(), retention_)};
    }
    void complete(const Ticket& ticket) {
        shards_[ticket.digest.high >> 58U].complete(ticket.digest, ticket.fence, rival_now());
    }
    [[nodiscard]] std::size_t size() const {
        std::size_t size = 0;
        for (const auto& shard : shards_) {
            size += shard.size();
        }
        return size;
    }

private:
    TickingClock::rep time_ = 1'000'000'000;
    std::uint64_t retention_;
    detail::MemoryHash hash_;
    std::vector<RivalShard<Map>> shards_;
};

/// What a first version looks like: the text as key, one lock.
class NaiveMap {
public:
    static constexpr const char* name = "std::unordered_map, one mutex";
    struct Ticket {
        std::string id;
        std::uint64_t fence = 0;
    };
    explicit NaiveMap(std::chrono::seconds retention)
        : retention_(static_cast<std::uint64_t>(retention.count())) {}

    void enter() noexcept { TickingClock::use(time_); }
    Ticket claim(std::string_view id) {
        TickingClock::tick();
        std::string key("billing:");
        key += id;
        const auto fence = shard_.claim(key, rival_now(), retention_);
        return {std::move(key), fence};
    }
    void complete(const Ticket& ticket) { shard_.complete(ticket.id, ticket.fence, rival_now()); }

private:
    TickingClock::rep time_ = 1'000'000'000;
    std::uint64_t retention_;
    RivalShard<std::unordered_map<std::string, RivalRecord>> shard_;
};

} // namespace idem::bench

#endif // IDEM_BENCH_MEMORY_RIVALS_HPP
