// SPDX-License-Identifier: MIT
// SipHash-2-4-128 gives the published outputs: key 00 01 … 0f, input 00 01 … of each length.
// Source of the vectors: github.com/veorq/SipHash, vectors.h, vectors_sip128.

#include <idem/detail/siphash.hpp>

#include <gtest/gtest.h>

#include <string>

namespace {

struct Vector {
    std::size_t length;
    const char* output;
};

// Every length modulo 8, both sides of the word boundaries, and the longest published input.
constexpr Vector vectors[] = {
    {0, "a3817f04ba25a8e66df67214c7550293"},  {1, "da87c1d86b99af44347659119b22fc45"},
    {2, "8177228da4a45dc7fca38bdef60affe4"},  {3, "9c70b60c5267a94e5f33b6b02985ed51"},
    {4, "f88164c12d9c8faf7d0f6e7c7bcd5579"},  {5, "1368875980776f8854527a07690e9627"},
    {6, "14eeca338b208613485ea0308fd7a15e"},  {7, "a1f1ebbed8dbc153c0b84aa61ff08239"},
    {8, "3b62a9ba6258f5610f83e264f31497b4"},  {9, "264499060ad9baabc47f8b02bb6d71ed"},
    {15, "5493e99933b0a8117e08ec0f97cfc3d9"}, {16, "6ee2a4ca67b054bbfd3315bf85230577"},
    {17, "473d06e8738db89854c066c47ae47740"}, {31, "2939b0183223fafc1723de4f52c43d35"},
    {32, "7c3956ca5eeafc3e363e9d556546eb68"}, {33, "77c6077146f01c32b6b69d5f4ea9ffcf"},
    {55, "67f14984c7da791248e32bb5922583da"}, {56, "1938f2cf72d54ee97e94166fa91d2a36"},
    {62, "5853542321f567a005d547a4f04759bd"}, {63, "5150d1772f50834a503e069a973fbd7c"},
};

std::string hexadecimal(std::uint64_t word) {
    std::string text;
    for (int byte = 0; byte < 8; ++byte, word >>= 8U) {
        text += "0123456789abcdef"[word >> 4U & 0xfU];
        text += "0123456789abcdef"[word & 0xfU];
    }
    return text;
}

TEST(SipHash, gives_the_published_outputs) {
    std::string input;
    for (const auto& vector : vectors) {
        while (input.size() < vector.length) {
            input += static_cast<char>(input.size());
        }
        const auto digest = idem::detail::siphash128(input, 0x0706050403020100, 0x0f0e0d0c0b0a0908);
        EXPECT_EQ(hexadecimal(digest.high) + hexadecimal(digest.low), vector.output)
            << vector.length << " bytes";
    }
}

TEST(SipHash, counts_the_length_modulo_256_and_reads_every_byte) {
    std::string input(300, '\0');
    const auto whole = idem::detail::siphash128(input, 1, 2);
    for (std::size_t at = 0; at < input.size(); ++at) {
        input[at] = '\x80';
        EXPECT_NE(idem::detail::siphash128(input, 1, 2), whole) << "byte " << at;
        input[at] = '\0';
    }
    EXPECT_NE(idem::detail::siphash128(input.substr(1), 1, 2), whole);
    EXPECT_NE(idem::detail::siphash128(input, 2, 1), whole);
}

TEST(SipHash, is_known_at_compile_time) {
    static_assert(idem::detail::siphash128("abc", 1, 2) != idem::detail::siphash128("abd", 1, 2));
}

} // namespace
