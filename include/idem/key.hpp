// SPDX-License-Identifier: MIT
#ifndef IDEM_KEY_HPP
#define IDEM_KEY_HPP

// What makes two deliveries the same message.

#include <idem/detail/siphash.hpp>
#include <idem/error.hpp>

#include <charconv>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace idem::inline v0 {

/// Limits of a key, in bytes, the same in every store. Any bytes are allowed, NUL and invalid UTF-8
/// included; an empty id is not.
inline constexpr std::size_t max_scope = 128, max_id = 1'024;

/// Scope and id. The scope names the handler, the id what makes two deliveries the same message.
/// A view: a store copies what it keeps.
struct Key {
    std::string_view scope, id;
    bool operator==(const Key&) const = default;
};

[[nodiscard]] inline bool is_valid(const Key& key) noexcept {
    return !key.scope.empty() && key.scope.size() <= max_scope && !key.id.empty() &&
           key.id.size() <= max_id;
}
/// What is wrong with a key, naming field and limit; empty where nothing is.
[[nodiscard]] inline std::string problem_of(const Key& key) {
    auto too_long = [](const char* field, std::size_t size, std::size_t limit) {
        return std::string("idem: ") + field + " has " + std::to_string(size) +
               " bytes; the limit is " + std::to_string(limit);
    };
    if (key.scope.empty()) {
        return "idem: scope is empty; it names the handler";
    }
    if (key.scope.size() > max_scope) {
        return too_long("scope", key.scope.size(), max_scope);
    }
    if (key.id.empty()) {
        return "idem: id is empty";
    }
    if (key.id.size() > max_id) {
        return too_long("id", key.id.size(), max_id);
    }
    return {};
}

/// For stores: refuses a key past the limits before anything is written.
/// Throws: std::invalid_argument naming the field and the limit.
inline void require_valid(const Key& key) {
    if (!is_valid(key)) {
        throw std::invalid_argument(problem_of(key));
    }
}

/// Text or a number as an id. Borrows an lvalue, a view or a literal; owns a temporary or a number,
/// so that `"p:" + order.id` is safe. A function declared `-> std::string_view` that returns a view
/// of its own temporary cannot be caught.
class Id {
public:
    template <class T>
        requires(std::convertible_to<T, std::string_view> &&
                 !std::same_as<std::remove_cvref_t<T>, Id>)
    Id(T&& text) { // NOLINT(google-explicit-constructor): an id is written as plain text
        using Plain = std::remove_cvref_t<T>;
        constexpr bool borrows = std::is_lvalue_reference_v<T> ||
                                 std::same_as<Plain, std::string_view> || std::is_pointer_v<Plain>;
        if constexpr (borrows) {
            borrowed_ = std::string_view(text);
        } else if constexpr (std::same_as<Plain, std::string>) {
            owned_ = std::forward<T>(text);
            owns_ = true;
        } else {
            owned_ = std::string(std::string_view(text));
            owns_ = true;
        }
    }
    template <std::integral T>
        requires(!std::same_as<T, bool>)
    Id(T number) : owns_(true) { // NOLINT(google-explicit-constructor)
        char digits[24];
        const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
        owned_.assign(digits, end);
    }
    [[nodiscard]] std::string_view view() const noexcept {
        return owns_ ? std::string_view(owned_) : borrowed_;
    }

private:
    std::string owned_;
    std::string_view borrowed_;
    bool owns_ = false;
};

/// Digest of a payload. Two fingerprints conflict where the algorithm is the same and the digest is
/// not; algorithm 0 is no opinion.
struct Fingerprint {
    std::uint64_t high = 0, low = 0;
    std::uint32_t algorithm = 0;
    bool operator==(const Fingerprint&) const = default;
    /// Whether both speak of the payload, and differ.
    [[nodiscard]] bool conflicts_with(const Fingerprint& other) const noexcept {
        return algorithm != 0 && algorithm == other.algorithm &&
               (high != other.high || low != other.low);
    }
};

/// SipHash-2-4-128 under a fixed key: equal on every machine and in every release that knows
/// algorithm 1. Tells payloads apart; it is no proof against one who looks for collisions.
[[nodiscard]] inline Fingerprint fingerprint_of(std::string_view payload) noexcept {
    const auto digest = detail::siphash128(payload, 0x6d656469'2d6d6573, 0x73616765'2d763031);
    return {.high = digest.high, .low = digest.low, .algorithm = 1};
}

/// Where a delivery stands in its partition. `partition` names cluster, topic and its id, and the
/// number; `epoch` is that of the assignment.
struct Position {
    std::string_view partition;
    std::uint64_t offset = 0, epoch = 0;
};

/// What a key function may return instead of a bare id.
struct Identity {
    Id id;
    Fingerprint fingerprint{};
    std::optional<std::uint64_t> version{};
    std::optional<Timestamp> created{}; ///< set once by the producer, the same on every resend
    std::optional<Id> token{}; ///< of OneTimeToken; without one the id is the token, never "spent"
    std::optional<Position> position{};
    bool redelivered = false; ///< a hint: looked up and charged before the handler's transaction
};

} // namespace idem::inline v0

#endif // IDEM_KEY_HPP
