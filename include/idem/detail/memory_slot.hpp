// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_MEMORY_SLOT_HPP
#define IDEM_DETAIL_MEMORY_SLOT_HPP

// One record of the memory store: 32 bytes, and elsewhere what few records have.

#include <idem/detail/memory_extra.hpp>
#include <idem/error.hpp>

#include <cstddef>
#include <cstdint>

namespace idem::inline v0::detail {

/// A moment of the store's clock, in whole milliseconds of its life. What shall last counts from
/// `above`, what is over is judged by `below`: so nothing ends early.
struct MemoryMoment {
    std::uint64_t below = 0, above = 0;
};

enum class MemoryState : std::uint8_t {
    issued,
    free,
    in_progress,
    completed,
    completed_with_nul, // a result of one NUL byte, which omitted_result() is
    parked,
};

/// A record that nobody claimed yet; it becomes a slot's.
struct MemoryNewRecord {
    std::uint64_t hash, rest;
    MemoryExtra* extra;

    [[nodiscard]] std::size_t extra_bytes() const noexcept {
        return extra != nullptr ? extra->bytes() : 0;
    }
};

/// A record. Its key is told by `hash` and by either the rest of its digest or the key's text.
class alignas(32) MemorySlot {
public:
    MemorySlot() = default;
    explicit MemorySlot(const MemoryNewRecord& fresh) noexcept
        : hash_(fresh.hash)
        , rest_(fresh.extra == nullptr ? fresh.rest : reinterpret_cast<std::uint64_t>(fresh.extra))
        , has_extra_(fresh.extra == nullptr ? 0U : 1U) {}

    [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }
    /// Grows with every claim in a shard, so that it names one claim of one key. 53 bits of
    /// microseconds since 1970 last until 2255.
    [[nodiscard]] std::uint64_t fence() const noexcept { return fence_; }
    void set_fence(std::uint64_t fence) noexcept { fence_ = fence & ((1ULL << 53U) - 1); }
    [[nodiscard]] MemoryState state() const noexcept { return static_cast<MemoryState>(state_); }
    void set_state(MemoryState state) noexcept { state_ = static_cast<std::uint8_t>(state) & 7U; }
    [[nodiscard]] bool is_completed() const noexcept {
        return state() == MemoryState::completed || state() == MemoryState::completed_with_nul;
    }

    /// In progress: the end of the lease. Issued: the last moment of the first redeem. Otherwise
    /// the last change.
    [[nodiscard]] std::uint64_t until() const noexcept { return until_; }
    void set_until(std::uint64_t moment) noexcept {
        until_ = moment < longest ? moment & longest : longest;
    }
    void set_lease(const MemoryMoment& now, milliseconds lease) noexcept {
        const auto length = lease.count() > 0 ? static_cast<std::uint64_t>(lease.count()) : 0;
        set_until(length < longest ? now.above + length : longest);
    }
    /// Rounded up to hours above 97 days.
    void set_retention(seconds retention) noexcept {
        const auto count =
            retention.count() > 0 ? static_cast<std::uint64_t>(retention.count()) : 0;
        const auto hours = count / 3'600 + (count % 3'600 != 0 ? 1 : 0);
        retention_ = count < in_hours
                         ? count & (in_hours - 1)
                         : (hours < in_hours ? hours & (in_hours - 1) : in_hours - 1) | in_hours;
    }
    /// The moment at which the record is forgotten.
    [[nodiscard]] std::uint64_t end() const noexcept {
        const std::uint64_t unit = retention_ < in_hours ? 1'000 : 3'600'000;
        return until_ + (retention_ & (in_hours - 1)) * unit;
    }

    [[nodiscard]] std::uint32_t attempts() const noexcept {
        return attempts_ < many ? attempts_ : extra()->parts().attempts;
    }
    /// Throws: std::bad_alloc, and nothing changed, where they come to be more than the slot holds.
    void set_attempts(std::uint32_t attempts) {
        if (attempts_ == many) {
            extra()->set_attempts(attempts);
        } else if (attempts < many) {
            attempts_ = attempts & many;
        } else {
            change_extra([&](MemoryParts& parts) { parts.attempts = attempts; });
            attempts_ = many;
        }
    }

    [[nodiscard]] const MemoryExtra* extra() const noexcept {
        // NOLINTNEXTLINE(performance-no-int-to-ptr): a pointer or a number, in one word
        return has_extra_ != 0 ? reinterpret_cast<const MemoryExtra*>(rest_) : nullptr;
    }
    [[nodiscard]] MemoryExtra* extra() noexcept {
        // NOLINTNEXTLINE(performance-no-int-to-ptr)
        return has_extra_ != 0 ? reinterpret_cast<MemoryExtra*>(rest_) : nullptr;
    }
    [[nodiscard]] std::uint64_t rest() const noexcept {
        return has_extra_ != 0 ? extra()->rest() : rest_;
    }
    [[nodiscard]] std::size_t extra_bytes() const noexcept {
        return has_extra_ != 0 ? extra()->bytes() : 0;
    }
    /// Throws: std::bad_alloc, and nothing changed.
    template <class Change>
    void change_extra(const Change& change) {
        auto* old = extra();
        auto parts = old != nullptr ? old->parts() : MemoryParts{.rest = rest_};
        change(parts);
        if (parts.is_needed() || old != nullptr) {
            rest_ = reinterpret_cast<std::uint64_t>(MemoryExtra::make(parts));
            has_extra_ = 1;
            MemoryExtra::free(old);
        }
    }
    void free_extra() noexcept { MemoryExtra::free(extra()); }

private:
    static constexpr std::uint64_t longest = (1ULL << 40U) - 1; // 34 years
    static constexpr std::uint64_t in_hours = 1ULL << 23U;
    static constexpr std::uint32_t many = 127;

    std::uint64_t hash_ = 0;
    std::uint64_t rest_ = 0; // or the address of the extra, which then has it
    std::uint64_t fence_ : 53 = 0;
    std::uint64_t state_ : 3 = 0;
    std::uint64_t has_extra_ : 1 = 0;
    std::uint64_t attempts_ : 7 = 0;
    std::uint64_t until_ : 40 = 0;
    std::uint64_t retention_ : 24 = 0;
};
static_assert(sizeof(MemorySlot) == 32 && sizeof(void*) <= sizeof(std::uint64_t));

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_MEMORY_SLOT_HPP
