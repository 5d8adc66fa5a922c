// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_RABBITMQ_IDENTITY_HPP
#define IDEM_BROKER_RABBITMQ_IDENTITY_HPP

// What makes two deliveries of RabbitMQ the same message, however the message was read.

#include <idem/broker/delivery.hpp>
#include <idem/broker/rabbitmq_copy.hpp>
#include <idem/detail/rabbitmq_table.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// A producer may have written a number; as text it is the same id.
[[nodiscard]] inline std::optional<Id> rabbit_id(const RabbitValue& value) {
    if (value.text) {
        return Id(*value.text);
    }
    if (value.number) {
        return Id(*value.number);
    }
    return {};
}

template <class Reading>
[[nodiscard]] std::optional<Id> rabbit_cloud_event(const Reading& message) {
    for (const std::string prefix : {"cloudEvents:", "cloudEvents_", "ce-", "ce_"}) {
        const auto source = message.value(prefix + "source").text;
        const auto id = rabbit_id(message.value(prefix + "id"));
        if (source && id) {
            return cloud_event_id(*source, id->view());
        }
    }
    return {};
}

/// By semantics.md 5.1: the header header::key, the property message_id, the header
/// header::message_id, a CloudEvent's source and id; else empty. It has no position: a queue
/// promises no order.
template <class Reading>
[[nodiscard]] Identity rabbit_identity(const Reading& message) {
    auto id = rabbit_id(message.value(header::key));
    if (!id && !message.message_id().empty()) {
        id = Id(message.message_id());
    }
    if (!id) {
        id = rabbit_id(message.value(header::message_id));
    }
    if (!id) {
        id = rabbit_cloud_event(message);
    }
    const auto created = message.value(header::created);
    const auto number = created.number ? std::to_string(*created.number) : std::string();
    return {.id = id ? *id : Id(std::string_view()),
            .fingerprint = fingerprint_of(message.payload()),
            .created = created_of(created.number ? std::string_view(number) : created.text),
            .redelivered = message.redelivered()};
}

/// How often the queue gave it out before, where the queue counts (quorum queues do).
template <class Reading>
[[nodiscard]] std::optional<std::uint64_t> rabbit_earlier_deliveries(const Reading& message) {
    std::optional<std::uint64_t> earlier;
    for (const auto name : {rabbit_header::delivery_count, rabbit_header::acquired_count}) {
        const auto number = message.value(name).number;
        if (number && *number >= 0) {
            const auto count = static_cast<std::uint64_t>(*number);
            earlier = earlier && *earlier > count ? *earlier : count;
        }
    }
    return earlier;
}

/// How often a copy of it was given back through a retry queue.
template <class Reading>
[[nodiscard]] std::uint64_t rabbit_retries(const Reading& message) noexcept {
    std::uint64_t retries = 0;
    for (const char digit : message.value(rabbit_header::retries).text.value_or("")) {
        if (digit < '0' || digit > '9' || retries > 1'000'000'000) {
            return 0;
        }
        retries = retries * 10 + static_cast<std::uint64_t>(digit - '0');
    }
    return retries;
}

} // namespace idem::inline v0::detail

#endif // IDEM_BROKER_RABBITMQ_IDENTITY_HPP
