// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_RABBITMQ_FRAMES_HPP
#define IDEM_DETAIL_RABBITMQ_FRAMES_HPP

// The frames of AMQP 0-9-1 that we write ourselves: rabbitmq-c sends each ack by itself, and waits
// without a deadline where a socket is full.

#include <idem/detail/rabbitmq_client.hpp>
#include <idem/detail/rabbitmq_table.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

inline void append_rabbit_frame(std::string& to,
                                std::uint8_t type,
                                amqp_channel_t channel,
                                std::string_view payload) {
    append_amqp(to, type);
    append_amqp(to, channel);
    append_amqp_long(to, payload);
    to += static_cast<char>(AMQP_FRAME_END);
}

/// basic.ack of one tag.
inline void append_rabbit_ack(std::string& to, amqp_channel_t channel, std::uint64_t tag) {
    append_amqp(to, std::uint8_t{AMQP_FRAME_METHOD});
    append_amqp(to, channel);
    append_amqp(to, std::uint32_t{13});
    append_amqp(to, std::uint32_t{AMQP_BASIC_ACK_METHOD});
    append_amqp(to, tag);
    to += '\0'; // not multiple
    to += static_cast<char>(AMQP_FRAME_END);
}
/// basic.nack of one tag, to be given again.
inline void append_rabbit_requeue(std::string& to, amqp_channel_t channel, std::uint64_t tag) {
    std::string method;
    append_amqp(method, std::uint32_t{AMQP_BASIC_NACK_METHOD});
    append_amqp(method, tag);
    method += '\2'; // not multiple, requeue
    append_rabbit_frame(to, AMQP_FRAME_METHOD, channel, method);
}
/// basic.publish, mandatory, by the default exchange to the queue of that name.
inline void append_rabbit_publish(std::string& to,
                                  amqp_channel_t channel,
                                  std::string_view queue,
                                  std::string_view properties,
                                  std::string_view body,
                                  std::size_t frame_max) {
    std::string payload;
    append_amqp(payload, std::uint32_t{AMQP_BASIC_PUBLISH_METHOD});
    append_amqp(payload, std::uint16_t{0});
    append_amqp_short(payload, "");
    append_amqp_short(payload, queue);
    payload += '\1'; // mandatory
    append_rabbit_frame(to, AMQP_FRAME_METHOD, channel, payload);
    payload.clear();
    append_amqp(payload, std::uint16_t{AMQP_BASIC_CLASS});
    append_amqp(payload, std::uint16_t{0});
    append_amqp(payload, std::uint64_t{body.size()});
    payload += properties;
    append_rabbit_frame(to, AMQP_FRAME_HEADER, channel, payload);
    const std::size_t most = frame_max - 8;
    for (std::size_t at = 0; at < body.size(); at += most) {
        append_rabbit_frame(to, AMQP_FRAME_BODY, channel, body.substr(at, most));
    }
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_RABBITMQ_FRAMES_HPP
