// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_RABBITMQ_PROPERTIES_HPP
#define IDEM_DETAIL_RABBITMQ_PROPERTIES_HPP

// The properties of a message as they travel.

#include <idem/detail/rabbitmq_table.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace idem::inline v0::detail {

/// By the number of its flag, in the order in which they travel.
enum class RabbitProperty : unsigned {
    content_type = 15,
    content_encoding = 14,
    headers = 13,
    delivery_mode = 12,
    priority = 11,
    correlation_id = 10,
    reply_to = 9,
    expiration = 8,
    message_id = 7,
    timestamp = 6,
    type = 5,
    user_id = 4,
    app_id = 3,
    cluster_id = 2,
};
inline constexpr unsigned first_rabbit_property = 15, last_rabbit_property = 2;

/// Where each property lies in the bytes of a content header, flags included. What is malformed is
/// absent, with all behind it.
class RabbitProperties {
public:
    explicit RabbitProperties(std::string_view bytes) noexcept : bytes_(bytes) {
        std::size_t at = 2;
        const auto flags = amqp_number<std::uint16_t>(bytes);
        for (unsigned bit = first_rabbit_property; bit >= last_rabbit_property; --bit) {
            if ((flags >> bit & 1U) == 0) {
                continue;
            }
            const auto [length, size] = extent(bit, bytes.substr(at < bytes.size() ? at : 0));
            if (at + length + size > bytes.size()) {
                return;
            }
            spans_[bit] = {at + length, size};
            present_ |= 1U << bit;
            at += length + size;
        }
    }
    [[nodiscard]] bool has(RabbitProperty which) const noexcept {
        return (present_ >> static_cast<unsigned>(which) & 1U) != 0;
    }
    /// Without its length; empty where it is absent.
    [[nodiscard]] std::string_view operator[](RabbitProperty which) const noexcept {
        const auto [begin, size] = spans_[static_cast<unsigned>(which)];
        return bytes_.substr(begin, size);
    }

private:
    /// Bytes of the length in front, and of the value.
    static std::pair<std::size_t, std::size_t> extent(unsigned bit,
                                                      std::string_view rest) noexcept {
        switch (static_cast<RabbitProperty>(bit)) {
        case RabbitProperty::headers:
            return {4, amqp_number<std::uint32_t>(rest)};
        case RabbitProperty::delivery_mode:
        case RabbitProperty::priority:
            return {0, 1};
        case RabbitProperty::timestamp:
            return {0, 8};
        default:
            return {1, amqp_number<std::uint8_t>(rest)};
        }
    }
    std::string_view bytes_;
    std::array<std::pair<std::size_t, std::size_t>, first_rabbit_property + 1> spans_{};
    unsigned present_ = 0;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_RABBITMQ_PROPERTIES_HPP
