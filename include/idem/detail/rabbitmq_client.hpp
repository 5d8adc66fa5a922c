// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_RABBITMQ_CLIENT_HPP
#define IDEM_DETAIL_RABBITMQ_CLIENT_HPP

// rabbitmq-c, and what its answers mean.

#include <idem/error.hpp>

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#include <rabbitmq-c/tcp_socket.h>
#else // before 0.12
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#endif

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <sys/time.h>

namespace idem::inline v0::detail {

[[nodiscard]] inline std::string_view text_of(const amqp_bytes_t& bytes) noexcept {
    return bytes.len == 0 ? std::string_view()
                          : std::string_view(static_cast<const char*>(bytes.bytes), bytes.len);
}
/// rabbitmq-c does not write through it.
[[nodiscard]] inline amqp_bytes_t bytes_of(std::string_view text) noexcept {
    return {text.size(), const_cast<char*>(text.data())};
}
[[nodiscard]] inline timeval timeval_of(milliseconds time) noexcept {
    const auto left = time < milliseconds{0} ? milliseconds{0} : time;
    return {.tv_sec = static_cast<time_t>(left.count() / 1000),
            .tv_usec = static_cast<suseconds_t>(left.count() % 1000 * 1000)};
}

/// What the broker gave for a reason when it closed a channel or a connection.
struct RabbitClosing {
    std::uint16_t code = 0;
    std::string text;
    bool of_a_call = false; ///< it names the method that it refuses; a consumer timeout names none
};
[[nodiscard]] inline RabbitClosing closing_of(const amqp_method_t& method) {
    if (method.id == AMQP_CHANNEL_CLOSE_METHOD) {
        const auto* close = static_cast<const amqp_channel_close_t*>(method.decoded);
        return {close->reply_code, std::string(text_of(close->reply_text)), close->class_id != 0};
    }
    if (method.id == AMQP_CONNECTION_CLOSE_METHOD) {
        const auto* close = static_cast<const amqp_connection_close_t*>(method.decoded);
        return {close->reply_code, std::string(text_of(close->reply_text)), close->class_id != 0};
    }
    return {0, "an unexpected method", false};
}

/// By the reply code of AMQP 0-9-1 alone. What is left out mends by itself: a forced close (320),
/// an internal error (541), a lack of resources (506), a consumer timeout (406, on a channel that
/// consumes).
[[nodiscard]] inline Fault fault_of_reply(std::uint16_t code) noexcept {
    switch (code) {
    case AMQP_INVALID_PATH:
    case AMQP_ACCESS_REFUSED:
    case AMQP_NOT_FOUND:
    case AMQP_RESOURCE_LOCKED:
    case AMQP_NOT_ALLOWED:
    case AMQP_NOT_IMPLEMENTED:
        return Fault::rejected;
    default:
        return Fault::unavailable;
    }
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_RABBITMQ_CLIENT_HPP
