// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SIPHASH_HPP
#define IDEM_DETAIL_SIPHASH_HPP

// SipHash-2-4 with a 128-bit result (Aumasson and Bernstein, 2012; reference vectors in the tests).

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace idem::inline v0::detail {

struct Digest128 {
    std::uint64_t high = 0, low = 0;
    bool operator==(const Digest128&) const = default;
};

class SipState {
public:
    constexpr SipState(std::uint64_t key0, std::uint64_t key1) noexcept
        : v0_(0x736f6d65'70736575 ^ key0)
        , v1_(0x646f7261'6e646f6d ^ key1 ^ 0xee)
        , v2_(0x6c796765'6e657261 ^ key0)
        , v3_(0x74656462'79746573 ^ key1) {}

    constexpr void absorb(std::uint64_t word) noexcept {
        v3_ ^= word;
        round();
        round();
        v0_ ^= word;
    }
    constexpr Digest128 finish() noexcept {
        v2_ ^= 0xee;
        const std::uint64_t first = squeeze();
        v1_ ^= 0xdd;
        return {.high = first, .low = squeeze()};
    }

private:
    constexpr void round() noexcept {
        v0_ += v1_;
        v1_ = std::rotl(v1_, 13) ^ v0_;
        v0_ = std::rotl(v0_, 32);
        v2_ += v3_;
        v3_ = std::rotl(v3_, 16) ^ v2_;
        v0_ += v3_;
        v3_ = std::rotl(v3_, 21) ^ v0_;
        v2_ += v1_;
        v1_ = std::rotl(v1_, 17) ^ v2_;
        v2_ = std::rotl(v2_, 32);
    }
    constexpr std::uint64_t squeeze() noexcept {
        for (int i = 0; i < 4; ++i) {
            round();
        }
        return v0_ ^ v1_ ^ v2_ ^ v3_;
    }
    std::uint64_t v0_, v1_, v2_, v3_;
};

/// `high` is the first eight bytes of the reference output and `low` the last, each little endian.
constexpr Digest128
siphash128(std::string_view bytes, std::uint64_t key0, std::uint64_t key1) noexcept {
    SipState state(key0, key1);
    auto byte = [&](std::size_t at) {
        return std::uint64_t{static_cast<unsigned char>(bytes[at])};
    };
    const std::size_t whole = bytes.size() / 8 * 8;
    for (std::size_t at = 0; at < whole; at += 8) {
        std::uint64_t word = 0;
        if (std::endian::native == std::endian::little && !std::is_constant_evaluated()) {
            std::memcpy(&word, bytes.data() + at, sizeof word); // one load
        } else {
            for (std::size_t i = 0; i < 8; ++i) {
                word |= byte(at + i) << (8 * i);
            }
        }
        state.absorb(word);
    }
    std::uint64_t last = std::uint64_t{bytes.size() & 0xff} << 56;
    for (std::size_t at = whole; at < bytes.size(); ++at) {
        last |= byte(at) << (8 * (at - whole));
    }
    state.absorb(last);
    return state.finish();
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SIPHASH_HPP
