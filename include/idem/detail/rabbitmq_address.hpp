// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_RABBITMQ_ADDRESS_HPP
#define IDEM_DETAIL_RABBITMQ_ADDRESS_HPP

// How a user names a RabbitMQ server.

#include <idem/detail/rabbitmq_client.hpp>

#include <stdexcept>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

struct RabbitAddress {
    std::string host, user, password, virtual_host;
    int port = 0;

    /// What error texts show. Never the password.
    [[nodiscard]] std::string where() const {
        return host + ":" + std::to_string(port) + " (virtual host " + virtual_host + ")";
    }
};

[[noreturn]] inline void refuse_rabbit_address(const char* problem) {
    throw std::invalid_argument(std::string("idem: RabbitMQ address: ") + problem +
                                "; write amqp://user:password@host:port/vhost, percent-encoded "
                                "(the virtual host / is %2f)");
}

/// Reads amqp://user:password@host:port/vhost; all but the scheme and the host may be left out:
/// guest, guest, 5672, /.
/// Throws: std::invalid_argument; no password is in its text.
inline RabbitAddress parse_rabbit_address(std::string_view text) {
    if (text.find('\0') != std::string_view::npos || text.find("%00") != std::string_view::npos) {
        refuse_rabbit_address("it contains a NUL byte");
    }
    if (text.find('?') != std::string_view::npos) {
        refuse_rabbit_address("nothing may follow a ?, options belong into RabbitOptions");
    }
    std::string url(text); // the parser writes into it, and what it finds points into it
    amqp_connection_info found{};
    if (amqp_parse_url(url.data(), &found) != AMQP_STATUS_OK) {
        refuse_rabbit_address("it is no AMQP URI (bytes above 7f stand there unescaped)");
    }
    if (found.ssl != 0) {
        refuse_rabbit_address("TLS (amqps://) is not supported");
    }
    const std::string_view virtual_host(found.vhost);
    return {.host = found.host,
            .user = found.user,
            .password = found.password,
            .virtual_host = std::string(virtual_host.empty() ? "/" : virtual_host),
            .port = found.port};
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_RABBITMQ_ADDRESS_HPP
