// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_NONCE_HPP
#define IDEM_DETAIL_NONCE_HPP

// Numbers that nobody drew before and nobody can guess.

#include <cerrno>
#include <cstddef>
#include <string>
#include <string_view>
#include <sys/random.h>
#include <system_error>

namespace idem::inline v0::detail {

/// Random bytes from the kernel. Nothing is kept between two calls, so parent and child of a fork
/// never draw the same.
/// Cost: one getrandom(2).
/// Throws: std::system_error.
[[nodiscard]] inline std::string draw_random(std::size_t size) {
    std::string bytes(size, '\0');
    std::size_t filled = 0;
    while (filled < bytes.size()) {
        const ssize_t drawn = ::getrandom(bytes.data() + filled, bytes.size() - filled, 0);
        if (drawn >= 0) {
            filled += static_cast<std::size_t>(drawn);
        } else if (errno != EINTR) {
            throw std::system_error(errno, std::generic_category(), "idem: getrandom");
        }
    }
    return bytes;
}

inline constexpr std::size_t nonce_size = 16;

/// 128 random bits. Cost, Throws: as draw_random().
[[nodiscard]] inline std::string draw_nonce() {
    return draw_random(nonce_size);
}

[[nodiscard]] inline std::string hexadecimal(std::string_view bytes) {
    std::string text;
    text.reserve(bytes.size() * 2);
    for (const char byte : bytes) {
        text += "0123456789abcdef"[static_cast<unsigned char>(byte) >> 4];
        text += "0123456789abcdef"[static_cast<unsigned char>(byte) & 15];
    }
    return text;
}

/// A token for OneTimeToken: 32 hexadecimal digits. Throws: as draw_nonce().
[[nodiscard]] inline std::string fresh_token() {
    return hexadecimal(draw_nonce());
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_NONCE_HPP
