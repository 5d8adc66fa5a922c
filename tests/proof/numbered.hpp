// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_NUMBERED_HPP
#define IDEM_TESTS_PROOF_NUMBERED_HPP

// Payloads that carry a number.

#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace idem::proof {

inline std::string message_of(std::size_t number) {
    return "payment " + std::to_string(number);
}
/// None: no message of ours.
inline std::optional<std::size_t> number_of(std::string_view message) {
    constexpr std::string_view prefix = "payment ";
    std::size_t number = 0;
    if (!message.starts_with(prefix)) {
        return {};
    }
    message.remove_prefix(prefix.size());
    const auto* const end = message.data() + message.size();
    const auto [stopped, error] = std::from_chars(message.data(), end, number);
    return error == std::errc() && stopped == end ? std::optional(number) : std::nullopt;
}

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_NUMBERED_HPP
