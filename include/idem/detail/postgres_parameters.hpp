// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_PARAMETERS_HPP
#define IDEM_DETAIL_POSTGRES_PARAMETERS_HPP

// Values on their way to the server.

#include <idem/detail/nonce.hpp>
#include <idem/detail/pq.hpp>

#include <charconv>
#include <concepts>
#include <cstddef>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace idem::inline v0::detail {

[[nodiscard]] inline PqParameter bytes_parameter(std::string_view bytes) {
    return {.value = std::string(bytes), .binary = true};
}
template <class Number>
[[nodiscard]] PqParameter number_parameter(Number value) {
    char digits[64];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    return {.value = std::string(digits, end)};
}

/// bytea[] as text; hexadecimal, so that nothing in it needs quoting.
[[nodiscard]] inline PqParameter bytes_array(const std::vector<std::string_view>& items) {
    std::string text = "{";
    for (const auto item : items) {
        text.append(text.size() > 1 ? "," : "");
        text.append(R"("\\x)").append(hexadecimal(item)).append("\"");
    }
    return {.value = text + "}"};
}
template <class Number>
[[nodiscard]] PqParameter number_array(const std::vector<Number>& items) {
    std::string text = "{";
    for (const auto item : items) {
        text.append(text.size() > 1 ? "," : "").append(std::to_string(item));
    }
    return {.value = text + "}"};
}

template <class T>
struct OptionalValue : std::false_type {};
template <class T>
struct OptionalValue<std::optional<T>> : std::true_type {};

/// What execute() and post() take: text, numbers, bool, bytes (a span of std::byte, or anything
/// that converts to one), std::optional of these, nullopt, nullptr.
template <class T>
[[nodiscard]] PqParameter parameter_of(const T& value) {
    if constexpr (std::is_same_v<T, std::nullptr_t> || std::is_same_v<T, std::nullopt_t>) {
        return {};
    } else if constexpr (OptionalValue<T>::value) {
        return value ? parameter_of(*value) : PqParameter{};
    } else if constexpr (std::is_same_v<T, bool>) {
        return {.value = value ? "t" : "f"};
    } else if constexpr (std::is_same_v<T, char>) {
        return parameter_of(std::string_view(&value, 1));
    } else if constexpr (std::is_arithmetic_v<T>) {
        return number_parameter(value);
    } else if constexpr (std::convertible_to<const T&, std::string_view>) {
        const std::string_view text = value;
        if (text.find('\0') != std::string_view::npos) {
            throw std::invalid_argument(
                "idem: a text parameter holds a NUL byte, which PostgreSQL's "
                "text cannot; pass std::as_bytes(std::span(value)) for bytea");
        }
        return {.value = std::string(text)};
    } else {
        static_assert(std::convertible_to<const T&, std::span<const std::byte>>,
                      "idem: a parameter must be text, a number, bool, bytes or std::optional of "
                      "these");
        const std::span<const std::byte> bytes = value;
        return {.value = std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
                .binary = true};
    }
}

/// What may be kept as text in any encoding: others' bytes become '?'.
[[nodiscard]] inline std::string plain_note(std::string_view text) {
    std::string note(text.substr(0, 1'000));
    for (char& c : note) {
        if (c < ' ' || c > '~') {
            c = c == '\n' || c == '\t' ? ' ' : '?';
        }
    }
    return note;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_PARAMETERS_HPP
