// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_RABBITMQ_DELIVERY_HPP
#define IDEM_BROKER_RABBITMQ_DELIVERY_HPP

// A message as RabbitMQ delivered it: to RabbitSource, or to a loop of the user's own.

#include <idem/broker/delivery.hpp>
#include <idem/broker/rabbitmq_identity.hpp>
#include <idem/detail/rabbitmq_client.hpp>
#include <idem/detail/rabbitmq_properties.hpp>
#include <idem/detail/rabbitmq_table.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0 {

namespace detail {
class RabbitConsumer;
}

/// What both readings of a message have in common. Views borrow from the message.
template <class Reading>
class RabbitReading {
public:
    /// The header of that name, where it is text (or bytes).
    [[nodiscard]] std::optional<std::string_view> header(std::string_view name) const noexcept {
        return self().value(name).text;
    }
    /// The header of that name, where it is a whole number.
    [[nodiscard]] std::optional<std::int64_t> number(std::string_view name) const noexcept {
        return self().value(name).number;
    }
    /// The id is that of the header header::key, the property message_id, the header
    /// header::message_id, a CloudEvent (source and id), else empty. Borrows from the message.
    [[nodiscard]] Identity identity() const { return detail::rabbit_identity(self()); }
    /// A hint: not the first time that the queue gives it. A message that comes back through a
    /// retry queue was given back in order, so that it is no suspect.
    [[nodiscard]] bool redelivered() const noexcept {
        return self().flagged() || detail::rabbit_earlier_deliveries(self()).value_or(0) > 0;
    }
    /// How often it was given to somebody, from 1, by retries through us too. Exact on a quorum
    /// queue; a classic one tells the first time from the others.
    [[nodiscard]] std::uint64_t count() const noexcept {
        const std::uint64_t flagged = self().flagged() ? 1 : 0;
        return 1 + detail::rabbit_earlier_deliveries(self()).value_or(flagged) + retries();
    }
    /// How often it was given back through a retry queue.
    [[nodiscard]] std::uint64_t retries() const noexcept { return detail::rabbit_retries(self()); }

private:
    friend Reading;
    RabbitReading() = default;
    [[nodiscard]] const Reading& self() const noexcept {
        return static_cast<const Reading&>(*this);
    }
};

/// Owns the message. Good for settling as long as the channel that gave it.
/// Concurrency: read by any thread.
class RabbitDelivery : public RabbitReading<RabbitDelivery> {
public:
    RabbitDelivery(RabbitDelivery&& other) noexcept = default;
    RabbitDelivery& operator=(RabbitDelivery&& other) noexcept = default;
    RabbitDelivery(const RabbitDelivery&) = delete; // settled once, so there is one of it
    RabbitDelivery& operator=(const RabbitDelivery&) = delete;
    ~RabbitDelivery() = default;

    [[nodiscard]] std::string_view payload() const noexcept { return part(body_, bytes_.size()); }
    /// Where its producer published it to, also after a retry. Empty: the default exchange.
    [[nodiscard]] std::string_view exchange() const noexcept {
        const auto first = header(detail::rabbit_header::exchange);
        return first ? *first : part(exchange_, routing_key_);
    }
    [[nodiscard]] std::string_view routing_key() const noexcept {
        const auto first = header(detail::rabbit_header::routing_key);
        return first ? *first : part(routing_key_, body_);
    }
    /// The property; empty: none.
    [[nodiscard]] std::string_view message_id() const noexcept { return part(message_id_); }

    [[nodiscard]] detail::RabbitValue value(std::string_view name) const noexcept {
        const auto field = detail::field_of(part(headers_), name);
        return field ? field->read() : detail::RabbitValue{};
    }
    [[nodiscard]] bool flagged() const noexcept { return flagged_; }

private:
    friend class detail::RabbitConsumer;
    friend class RabbitSource;
    using Clock = std::chrono::steady_clock;
    using Span = std::pair<std::size_t, std::size_t>;

    /// `body_size`: of what is added afterwards.
    RabbitDelivery(const amqp_basic_deliver_t& envelope,
                   std::string_view properties,
                   std::size_t body_size,
                   std::uint64_t channel_turn,
                   Clock::time_point received)
        : tag_(envelope.delivery_tag)
        , channel_turn_(channel_turn)
        , received_(received)
        , flagged_(envelope.redelivered != 0) {
        bytes_.reserve(properties.size() + envelope.exchange.len + envelope.routing_key.len +
                       body_size);
        bytes_ += properties;
        exchange_ = bytes_.size();
        bytes_ += detail::text_of(envelope.exchange);
        routing_key_ = bytes_.size();
        bytes_ += detail::text_of(envelope.routing_key);
        body_ = bytes_.size();
        const detail::RabbitProperties found(properties);
        const auto span = [&](detail::RabbitProperty which) {
            const auto text = found[which];
            return text.empty() ? Span{} : Span{text.data() - properties.data(), text.size()};
        };
        headers_ = span(detail::RabbitProperty::headers);
        message_id_ = span(detail::RabbitProperty::message_id);
    }
    void add_body(std::string_view fragment) { bytes_ += fragment; }

    [[nodiscard]] std::string_view part(std::size_t begin, std::size_t end) const noexcept {
        return std::string_view(bytes_).substr(begin, end - begin);
    }
    [[nodiscard]] std::string_view part(Span span) const noexcept {
        return std::string_view(bytes_).substr(span.first, span.second);
    }
    [[nodiscard]] std::string_view properties() const noexcept { return part(0, exchange_); }

    std::string bytes_; // properties, exchange, routing key, body
    std::size_t exchange_ = 0, routing_key_ = 0, body_ = 0;
    Span headers_{}, message_id_{};
    std::uint64_t tag_;          // 0: settled
    std::uint64_t channel_turn_; // which of the channels that followed each other gave it
    Clock::time_point received_;
    bool flagged_;
};

/// The same reading of an envelope that amqp_consume_message filled, for a loop of the user's own.
/// Borrows it.
class RabbitMessage : public RabbitReading<RabbitMessage> {
public:
    explicit RabbitMessage(const amqp_envelope_t& envelope) noexcept : envelope_(&envelope) {}
    RabbitMessage(const amqp_envelope_t&&) = delete;

    [[nodiscard]] std::string_view payload() const noexcept {
        return detail::text_of(envelope_->message.body);
    }
    [[nodiscard]] std::string_view exchange() const noexcept {
        const auto first = header(detail::rabbit_header::exchange);
        return first ? *first : detail::text_of(envelope_->exchange);
    }
    [[nodiscard]] std::string_view routing_key() const noexcept {
        const auto first = header(detail::rabbit_header::routing_key);
        return first ? *first : detail::text_of(envelope_->routing_key);
    }
    [[nodiscard]] std::string_view message_id() const noexcept {
        const auto& properties = envelope_->message.properties;
        return (properties._flags & AMQP_BASIC_MESSAGE_ID_FLAG) != 0
                   ? detail::text_of(properties.message_id)
                   : std::string_view();
    }
    [[nodiscard]] detail::RabbitValue value(std::string_view name) const noexcept {
        const auto& properties = envelope_->message.properties;
        const bool some = (properties._flags & AMQP_BASIC_HEADERS_FLAG) != 0;
        for (int at = 0; some && at < properties.headers.num_entries; ++at) {
            const auto& entry = properties.headers.entries[at];
            if (detail::text_of(entry.key) == name) {
                return read(entry.value);
            }
        }
        return {};
    }
    [[nodiscard]] bool flagged() const noexcept { return envelope_->redelivered != 0; }

private:
    static detail::RabbitValue read(const amqp_field_value_t& field) noexcept {
        switch (field.kind) {
        case AMQP_FIELD_KIND_UTF8:
        case AMQP_FIELD_KIND_BYTES:
            return {detail::text_of(field.value.bytes), {}};
        case AMQP_FIELD_KIND_I8:
            return {{}, field.value.i8};
        case AMQP_FIELD_KIND_U8:
            return {{}, field.value.u8};
        case AMQP_FIELD_KIND_I16:
            return {{}, field.value.i16};
        case AMQP_FIELD_KIND_U16:
            return {{}, field.value.u16};
        case AMQP_FIELD_KIND_I32:
            return {{}, field.value.i32};
        case AMQP_FIELD_KIND_U32:
            return {{}, field.value.u32};
        case AMQP_FIELD_KIND_I64:
        case AMQP_FIELD_KIND_U64:
        case AMQP_FIELD_KIND_TIMESTAMP:
            return {{}, field.value.i64};
        default:
            return {};
        }
    }
    const amqp_envelope_t* envelope_;
};

static_assert(KeyedDelivery<RabbitDelivery> && KeyedDelivery<RabbitMessage>);

} // namespace idem::inline v0

#endif // IDEM_BROKER_RABBITMQ_DELIVERY_HPP
