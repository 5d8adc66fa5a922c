// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SHA1_HPP
#define IDEM_DETAIL_SHA1_HPP

// SHA-1 (FIPS 180-4) at compile time: the name under which Redis keeps a script. Secures nothing.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace idem::inline v0::detail {

/// The digest as 40 lower-case hexadecimal digits.
constexpr std::array<char, 40> sha1(std::string_view text) {
    std::uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    const std::size_t blocks = (text.size() + 8) / 64 + 1;
    auto byte = [&](std::size_t at) -> std::uint32_t {
        if (at < text.size()) {
            return static_cast<unsigned char>(text[at]);
        }
        if (at == text.size()) {
            return 0x80;
        }
        const std::size_t from_end = blocks * 64 - 1 - at; // the length in bits ends the last block
        if (from_end >= 8) {
            return 0;
        }
        return static_cast<unsigned char>(std::uint64_t{text.size()} * 8 >> (8 * from_end));
    };
    for (std::size_t block = 0; block < blocks; ++block) {
        std::uint32_t words[80]{};
        for (std::size_t i = 0; i < 16; ++i) {
            const std::size_t at = block * 64 + i * 4;
            words[i] = byte(at) << 24 | byte(at + 1) << 16 | byte(at + 2) << 8 | byte(at + 3);
        }
        for (std::size_t i = 16; i < 80; ++i) {
            words[i] = std::rotl(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
        }
        std::uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
        for (std::size_t i = 0; i < 80; ++i) {
            const std::uint32_t mixed = i < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                                        : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                                        : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                                                 : (b ^ c ^ d) + 0xca62c1d6;
            const std::uint32_t next = std::rotl(a, 5) + mixed + e + words[i];
            e = d;
            d = c;
            c = std::rotl(b, 30);
            b = a;
            a = next;
        }
        state[0] += a;
        state[1] += b;
        state[2] += c;
        state[3] += d;
        state[4] += e;
    }
    std::array<char, 40> digits{};
    for (std::size_t i = 0; i < digits.size(); ++i) {
        digits[i] = "0123456789abcdef"[state[i / 8] >> (28 - 4 * (i % 8)) & 15];
    }
    return digits;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SHA1_HPP
