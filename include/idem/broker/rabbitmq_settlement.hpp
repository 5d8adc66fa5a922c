// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_RABBITMQ_SETTLEMENT_HPP
#define IDEM_BROKER_RABBITMQ_SETTLEMENT_HPP

// Settlements for a consumer loop of the user's own, over rabbitmq-c.

#include <idem/broker/rabbitmq_delivery.hpp>
#include <idem/broker/rabbitmq_forwarding.hpp>
#include <idem/broker/rabbitmq_options.hpp>
#include <idem/detail/rabbitmq_address.hpp>
#include <idem/detail/rabbitmq_client.hpp>

#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0 {

/// Carries out settlements as RabbitSource does, for envelopes that your own connection received
/// (manual ack). Acks go by your connection, on the envelope's channel; copies go by a connection
/// of the settler's own, made at the first that is needed. Of the options it reads the queue's and
/// the dead-letter queue's name, declare_queues, heartbeat and deadline.
/// Concurrency: one thread, that of your connection.
class RabbitSettler {
public:
    /// `address`: amqp://user:password@host:port/vhost.
    /// Throws: std::invalid_argument naming what is wrong with the address or the options.
    RabbitSettler(std::string_view address, RabbitOptions options)
        : options_(detail::checked(std::move(options)))
        , forwarding_({.address = detail::parse_rabbit_address(address),
                       .deadline = options_.deadline,
                       .heartbeat = options_.heartbeat,
                       .name = "idem retries and dead letters of " + options_.queue},
                      options_) {}

    /// Requires: the channel that gave the envelope is open, and it was not settled before: a
    /// second ack of a tag closes the channel.
    /// `stop` tells nothing: it stays unacked. A retry is not held here: it leaves the queue for
    /// its delay. in_doubt: the connection broke; make another, the queue gives the message again.
    /// Throws: StoreError unavailable (nothing happened), rejected.
    Settled settle(amqp_connection_state_t connection,
                   const amqp_envelope_t& envelope,
                   const Settlement& settlement) {
        const RabbitMessage message(envelope);
        std::string properties;
        if (settlement.action == Action::retry || settlement.action == Action::dead_letter) {
            properties = encoded(envelope.message.properties);
        }
        Tag tag{connection, envelope};
        return forwarding_.settle({.properties = properties,
                                   .exchange = message.exchange(),
                                   .routing_key = message.routing_key(),
                                   .body = message.payload(),
                                   .retries = message.retries()},
                                  settlement,
                                  tag);
    }
    /// Keeps the settler's own connection alive; call it more often than the heartbeat, or let it
    /// be made anew when it is needed.
    void serve() noexcept { forwarding_.serve(); }

private:
    struct Tag {
        amqp_connection_state_t connection;
        const amqp_envelope_t& envelope;
        [[nodiscard]] Settled ack() const {
            return on_its_way(
                amqp_basic_ack(connection, envelope.channel, envelope.delivery_tag, 0));
        }
        [[nodiscard]] Settled requeue() const {
            return on_its_way(
                amqp_basic_nack(connection, envelope.channel, envelope.delivery_tag, 0, 1));
        }
        static Settled on_its_way(int status) {
            return status == AMQP_STATUS_OK ? Settled::yes : Settled::in_doubt;
        }
    };
    /// As they travelled. Throws: StoreError rejected, where they are larger than any frame.
    static std::string encoded(const amqp_basic_properties_t& properties) {
        constexpr std::size_t most = std::size_t{64} << 20;
        std::string bytes(4'096, '\0');
        for (;;) {
            const int size =
                amqp_encode_properties(AMQP_BASIC_CLASS,
                                       const_cast<amqp_basic_properties_t*>(&properties),
                                       detail::bytes_of(bytes));
            if (size >= 0) {
                bytes.resize(static_cast<std::size_t>(size));
                return bytes;
            }
            if (bytes.size() >= most) {
                throw StoreError(Fault::rejected,
                                 std::string("idem: the properties of a message: ") +
                                     amqp_error_string2(size));
            }
            bytes.resize(bytes.size() * 8);
        }
    }

    RabbitOptions options_;
    detail::RabbitForwarding forwarding_;
};

} // namespace idem::inline v0

#endif // IDEM_BROKER_RABBITMQ_SETTLEMENT_HPP
