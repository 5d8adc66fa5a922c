// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_MEMORY_HASH_HPP
#define IDEM_DETAIL_MEMORY_HASH_HPP

// What the memory store files a key under.

#include <idem/detail/nonce.hpp>
#include <idem/detail/siphash.hpp>

#include <cstdint>
#include <cstring>
#include <string_view>

namespace idem::inline v0::detail {

/// SipHash-2-4-128 under a key that nobody knows, so that no one who chooses ids can make two of
/// them meet, or crowd one place of the table. Differs from store to store.
class MemoryHash {
public:
    MemoryHash() {
        const auto nonce = draw_nonce();
        std::memcpy(&key0_, nonce.data(), sizeof key0_);
        std::memcpy(&key1_, nonce.data() + sizeof key0_, sizeof key1_);
    }
    /// The lengths come first, so that no two keys make one sequence of words.
    [[nodiscard]] Digest128 operator()(std::string_view scope, std::string_view id) const noexcept {
        SipState state(key0_, key1_);
        state.absorb(std::uint64_t{scope.size()} << 32U | id.size());
        absorb(state, scope);
        absorb(state, id);
        return state.finish();
    }

private:
    template <class Word>
    static std::uint64_t word_at(const char* bytes) noexcept {
        Word word = 0;
        std::memcpy(&word, bytes, sizeof word);
        return word;
    }
    /// In words of the machine's own order; the last one reaches back over bytes already taken.
    static void absorb(SipState& state, std::string_view bytes) noexcept {
        const char* const data = bytes.data();
        const std::size_t size = bytes.size();
        if (size >= 8) {
            for (std::size_t at = 0; at + 8 < size; at += 8) {
                state.absorb(word_at<std::uint64_t>(data + at));
            }
            state.absorb(word_at<std::uint64_t>(data + size - 8));
        } else if (size >= 4) {
            state.absorb(word_at<std::uint32_t>(data) | word_at<std::uint32_t>(data + size - 4)
                                                            << 32U);
        } else if (size > 0) {
            state.absorb(word_at<std::uint8_t>(data) |
                         word_at<std::uint8_t>(data + size / 2) << 8U |
                         word_at<std::uint8_t>(data + size - 1) << 16U);
        }
    }

    std::uint64_t key0_ = 0, key1_ = 0;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_MEMORY_HASH_HPP
