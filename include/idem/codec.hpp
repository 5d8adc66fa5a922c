// SPDX-License-Identifier: MIT
#ifndef IDEM_CODEC_HPP
#define IDEM_CODEC_HPP

// How a handler's result becomes the bytes that are kept, and comes back for a duplicate.

#include <charconv>
#include <concepts>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace idem::inline v0 {

/// Specialise for a result type of your own: `static std::string encode(const T&)` and
/// `static T decode(std::string_view)`. What encode throws is not the handler's failure: the
/// message counts as executed, without a stored result. What decode throws makes value() throw
/// ResultUnavailable; it never reruns the handler.
template <class T>
struct Codec;

/// The result itself, any bytes.
template <>
struct Codec<std::string> {
    static std::string encode(const std::string& value) { return value; }
    static std::string decode(std::string_view bytes) { return std::string(bytes); }
};

template <>
struct Codec<bool> {
    static std::string encode(bool value) { return value ? "1" : "0"; }
    static bool decode(std::string_view bytes) {
        if (bytes != "0" && bytes != "1") {
            throw std::invalid_argument("idem: the stored result is no bool");
        }
        return bytes == "1";
    }
};

/// Numbers as decimal text that reads back to the same value.
template <class T>
    requires(std::is_arithmetic_v<T> && !std::same_as<T, bool>)
struct Codec<T> {
    static std::string encode(T value) {
        char text[64];
        return {text, std::to_chars(text, text + sizeof text, value).ptr};
    }
    static T decode(std::string_view bytes) {
        T value{};
        const char* end = bytes.data() + bytes.size();
        const auto parsed = std::from_chars(bytes.data(), end, value);
        if (parsed.ec != std::errc{} || parsed.ptr != end) {
            throw std::invalid_argument("idem: the stored result is no such number");
        }
        return value;
    }
};

/// What a handler may return: nothing, or a type with a Codec.
template <class T>
concept Storable = std::is_void_v<T> || requires(const T& value, std::string_view bytes) {
    { Codec<T>::encode(value) } -> std::same_as<std::string>;
    { Codec<T>::decode(bytes) } -> std::same_as<T>;
};

/// std::expected, tl::expected and their like: a value that holds an error is a *failure*, rolled
/// back or given back, never recorded. A final refusal ("card declined") is a plain value instead.
template <class T>
concept FailureValued = requires(const T& result) {
    typename T::value_type;
    { result.has_value() } -> std::same_as<bool>;
    result.error();
};

/// A successful expected-like result is kept as its value.
template <FailureValued T>
    requires Storable<typename T::value_type>
struct Codec<T> {
    static std::string encode(const T& result) {
        if constexpr (std::is_void_v<typename T::value_type>) {
            return {};
        } else {
            return Codec<typename T::value_type>::encode(*result);
        }
    }
    static T decode(std::string_view bytes) {
        if constexpr (std::is_void_v<typename T::value_type>) {
            return T{};
        } else {
            return T(Codec<typename T::value_type>::decode(bytes));
        }
    }
};

} // namespace idem::inline v0

#endif // IDEM_CODEC_HPP
