// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_DELIVERY_HPP
#define IDEM_BROKER_DELIVERY_HPP

// One arrival of a message from a broker, and what makes two of them the same message.

#include <idem/guarantee.hpp>
#include <idem/key.hpp>

#include <charconv>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>

namespace idem::inline v0 {

/// Names of what travels beside a payload: headers, properties, or the fields of a stream entry.
/// Those after `message_id` are what a dead letter carries; `created` also what a producer sets, in
/// milliseconds since 1970 as decimal text, the same on every resend.
namespace header {
inline constexpr std::string_view key = "idempotency-key", message_id = "message-id",
                                  reason = "idem-reason", detail = "idem-detail",
                                  attempts = "idem-attempts", scope = "idem-scope",
                                  origin = "idem-origin", created = "idem-created";
} // namespace header

/// | payload()      | the bytes as they came                                                      |
/// | header(name)   | what travels beside them; none: absent                                      |
/// | identity()     | the id by semantics.md 5.1 (none: empty, so the message is invalid), the    |
/// |                | payload's fingerprint, created, position, redelivered                       |
///
/// Views are good while the delivery lives, and borrow from it. What handlers read never changes:
/// extend() runs beside them.
template <class D>
concept KeyedDelivery = requires(const D& delivery, std::string_view name) {
    { delivery.payload() } -> std::same_as<std::string_view>;
    { delivery.header(name) } -> std::same_as<std::optional<std::string_view>>;
    { delivery.identity() } -> std::same_as<Identity>;
};

/// The key function that asks the delivery for the id its producer gave:
/// `wrap("billing", idem::delivery_id, [](const RedisStreamDelivery& delivery, …) …)`.
struct DeliveryId {
    static constexpr Covers covers = Covers::produced_twice;
    template <KeyedDelivery D>
    Identity operator()(const D& delivery) const {
        return delivery.identity();
    }
};

/// The key function that takes the broker's own position for an id. For messages that carry none: a
/// message that its producer wrote twice has two positions, so that only redeliveries are covered.
/// The text is delivery.position() where there is one, else partition/offset.
struct DeliveryPosition {
    static constexpr Covers covers = Covers::redelivered;
    template <KeyedDelivery D>
    Identity operator()(const D& delivery) const {
        Identity identity = delivery.identity();
        if constexpr (requires { std::string_view(delivery.position()); }) {
            identity.id = Id(std::string(delivery.position()));
        } else if (identity.position) {
            identity.id = Id(std::string(identity.position->partition) + '/' +
                             std::to_string(identity.position->offset));
        } else {
            identity.id = Id("");
        }
        return identity;
    }
};

inline constexpr DeliveryId delivery_id{};
inline constexpr DeliveryPosition delivery_position{}; ///< only by asking for it

namespace detail {

/// The id of a CloudEvent is unique within its source. The source's length keeps `a` + `bc` apart
/// from `ab` + `c`.
[[nodiscard]] inline Id cloud_event_id(std::string_view source, std::string_view id) {
    return {std::to_string(source.size()) + ':' + std::string(source) + std::string(id)};
}

/// The time in a header::created; none where the text is no such number, or past the year 9999.
[[nodiscard]] inline std::optional<Timestamp>
created_of(const std::optional<std::string_view>& text) noexcept {
    milliseconds::rep since{};
    if (!text || text->empty()) {
        return {};
    }
    const char* end = text->data() + text->size();
    const auto parsed = std::from_chars(text->data(), end, since);
    if (parsed.ec != std::errc{} || parsed.ptr != end || since < 0 || since > 253'402'300'799'999) {
        return {};
    }
    return Timestamp(milliseconds(since));
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_BROKER_DELIVERY_HPP
