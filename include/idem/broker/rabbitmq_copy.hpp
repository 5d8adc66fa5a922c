// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_RABBITMQ_COPY_HPP
#define IDEM_BROKER_RABBITMQ_COPY_HPP

// The properties of a message's copy in a retry queue or the dead-letter queue.

#include <idem/broker/delivery.hpp>
#include <idem/detail/rabbitmq_properties.hpp>
#include <idem/detail/rabbitmq_table.hpp>

#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0::detail {

/// What travels with a copy in a retry queue beside the message's own headers.
namespace rabbit_header {
inline constexpr std::string_view exchange = "idem-exchange", routing_key = "idem-routing-key",
                                  retries = "idem-retries", expiration = "idem-expiration",
                                  user_id = "idem-user-id", delivery_count = "x-delivery-count",
                                  acquired_count = "x-acquired-count", death = "x-death",
                                  earlier_death = "idem-x-death";
} // namespace rabbit_header

using RabbitHeader = std::pair<std::string_view, std::string_view>;

/// Whether a copy goes without it: it belongs to the place of the message in its queue, or would
/// route the copy elsewhere, or is set anew.
[[nodiscard]] inline bool is_left_behind(std::string_view name,
                                         std::span<const RabbitHeader> added) noexcept {
    for (const auto& [set, value] : added) {
        if (set == name) {
            return true;
        }
    }
    return name == rabbit_header::delivery_count || name == rabbit_header::acquired_count ||
           name == "CC" || name == "BCC" || name == header::reason || name == header::detail ||
           name == header::attempts || name == header::origin;
}

/// The properties of a copy: all that the message had, x-death too, and `added`.
/// Left out, because the broker would act on them: the expiration (the copy would vanish from the
/// dead-letter queue, and leave a retry queue early) and the user id (the broker refuses that of
/// another user, 406); both become headers. Persistent, so that a confirm means what it says.
///
/// `comes_back`: through a dead-lettering retry queue. A broker never dead-letters a message to a
/// queue that its x-death names (with no reject since): it would stay in the retry queue for ever,
/// and some thirty of them keep all others there (33 did, in 3.10). So the x-death that it came with
/// goes by another name.
[[nodiscard]] inline std::string copied_properties(const RabbitProperties& of,
                                                   std::span<const RabbitHeader> added,
                                                   bool comes_back) {
    std::string table;
    auto add = [&table](std::string_view name, std::string_view value) {
        append_amqp_short(table, name);
        table += 'S';
        append_amqp_long(table, value);
    };
    const bool is_first =
        comes_back && !field_of(of[RabbitProperty::headers], rabbit_header::earlier_death);
    RabbitTable headers(of[RabbitProperty::headers]);
    while (const auto field = headers.next()) {
        if (comes_back && field->name == rabbit_header::death) {
            if (is_first) { // else it is a retry queue's
                append_amqp_short(table, rabbit_header::earlier_death);
                table += field->all.substr(1 + field->name.size());
            }
        } else if (!is_left_behind(field->name, added)) {
            table += field->all;
        }
    }
    if (of.has(RabbitProperty::expiration)) {
        add(rabbit_header::expiration, of[RabbitProperty::expiration]);
    }
    if (of.has(RabbitProperty::user_id)) {
        add(rabbit_header::user_id, of[RabbitProperty::user_id]);
    }
    for (const auto& [name, value] : added) {
        add(name, value);
    }

    std::string bytes(2, '\0');
    unsigned flags = 0;
    for (unsigned bit = first_rabbit_property; bit >= last_rabbit_property; --bit) {
        const auto which = static_cast<RabbitProperty>(bit);
        if (which == RabbitProperty::headers) {
            append_amqp_long(bytes, table);
        } else if (which == RabbitProperty::delivery_mode) {
            bytes += '\2';
        } else if (!of.has(which) || which == RabbitProperty::expiration ||
                   which == RabbitProperty::user_id) {
            continue;
        } else if (which == RabbitProperty::priority || which == RabbitProperty::timestamp) {
            bytes += of[which];
        } else {
            append_amqp_short(bytes, of[which]);
        }
        flags |= 1U << bit;
    }
    bytes[0] = static_cast<char>(flags >> 8);
    bytes[1] = static_cast<char>(flags & 0xff);
    return bytes;
}

} // namespace idem::inline v0::detail

#endif // IDEM_BROKER_RABBITMQ_COPY_HPP
