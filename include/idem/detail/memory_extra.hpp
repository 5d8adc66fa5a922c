// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_MEMORY_EXTRA_HPP
#define IDEM_DETAIL_MEMORY_EXTRA_HPP

// What a record of the memory store holds beside its slot, in one allocation: most have nothing.

#include <idem/key.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string_view>

namespace idem::inline v0::detail {

/// The parts of a MemoryExtra; texts are views into it.
struct MemoryParts {
    std::uint64_t rest = 0;    // of the digest
    std::string_view key{};    // as memory_key_is() reads it; none in a compact store
    std::string_view holder{}; // of a token: the id that redeemed it
    std::string_view result{};
    Fingerprint fingerprint{};
    std::uint32_t attempts = 0; // where the slot has no room for them

    [[nodiscard]] bool is_wide() const noexcept {
        return fingerprint.algorithm != 0 || attempts != 0;
    }
    [[nodiscard]] bool is_needed() const noexcept {
        return !key.empty() || !holder.empty() || !result.empty() || is_wide();
    }
};

/// A header, the wide part where there is one, then the texts of key, holder and result.
class MemoryExtra {
    struct Wide {
        std::uint64_t high, low;
        std::uint32_t algorithm, attempts;
    };

public:
    /// Requires: texts below 4 GiB, key and holder within the limits of a key.
    [[nodiscard]] static MemoryExtra* make(const MemoryParts& parts) {
        const auto size = sizeof(MemoryExtra) + (parts.is_wide() ? sizeof(Wide) : 0) +
                          parts.key.size() + parts.holder.size() + parts.result.size();
        auto* extra = new (::operator new(size)) MemoryExtra(parts);
        char* end = reinterpret_cast<char*>(extra + 1);
        if (parts.is_wide()) {
            const Wide wide{parts.fingerprint.high,
                            parts.fingerprint.low,
                            parts.fingerprint.algorithm,
                            parts.attempts};
            std::memcpy(end, &wide, sizeof wide);
            end += sizeof wide;
        }
        for (const auto text : {parts.key, parts.holder, parts.result}) {
            if (!text.empty()) {
                std::memcpy(end, text.data(), text.size());
                end += text.size();
            }
        }
        return extra;
    }
    static void free(MemoryExtra* extra) noexcept { ::operator delete(extra); }

    [[nodiscard]] MemoryParts parts() const noexcept {
        MemoryParts parts{.rest = rest_};
        const char* at = reinterpret_cast<const char*>(this + 1);
        if (wide_ != 0) {
            Wide wide{};
            std::memcpy(&wide, at, sizeof wide);
            parts.fingerprint = {wide.high, wide.low, wide.algorithm};
            parts.attempts = wide.attempts;
            at += sizeof wide;
        }
        parts.key = {at, key_size_};
        parts.holder = {at + key_size_, holder_size_};
        parts.result = {at + key_size_ + holder_size_, result_size_};
        return parts;
    }
    [[nodiscard]] std::uint64_t rest() const noexcept { return rest_; }
    [[nodiscard]] std::string_view key() const noexcept {
        return {reinterpret_cast<const char*>(this + 1) + (wide_ != 0 ? sizeof(Wide) : 0),
                key_size_};
    }
    /// Requires: attempts that are kept here already.
    void set_attempts(std::uint32_t attempts) noexcept {
        std::memcpy(reinterpret_cast<char*>(this + 1) + offsetof(Wide, attempts),
                    &attempts,
                    sizeof attempts);
    }
    /// With what the allocator adds.
    [[nodiscard]] std::size_t bytes() const noexcept {
        return allocator_adds + sizeof(MemoryExtra) + (wide_ != 0 ? sizeof(Wide) : 0) + key_size_ +
               holder_size_ + result_size_;
    }
    static constexpr std::size_t allocator_adds = 16;

private:
    explicit MemoryExtra(const MemoryParts& parts) noexcept
        : rest_(parts.rest)
        , result_size_(static_cast<std::uint32_t>(parts.result.size()))
        , key_size_(static_cast<std::uint16_t>(parts.key.size()))
        , holder_size_(static_cast<std::uint16_t>(parts.holder.size() & 0x7fffU))
        , wide_(parts.is_wide() ? 1U : 0U) {}

    std::uint64_t rest_;
    std::uint32_t result_size_;
    std::uint16_t key_size_;
    std::uint16_t holder_size_ : 15;
    std::uint16_t wide_ : 1;
};
static_assert(sizeof(MemoryExtra) == 16 && max_scope < 256 && 1 + max_scope + max_id < 0x8000);

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_MEMORY_EXTRA_HPP
