// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_RABBITMQ_CONNECTION_HPP
#define IDEM_DETAIL_RABBITMQ_CONNECTION_HPP

// A connection to RabbitMQ with one channel, on which no call outlives its deadline.

#include <idem/detail/rabbitmq_address.hpp>
#include <idem/detail/rabbitmq_client.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <optional>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/socket.h>

namespace idem::inline v0::detail {

using RabbitDeadline = std::chrono::steady_clock::time_point;

/// How a connection is made.
struct RabbitLink {
    RabbitAddress address;
    milliseconds deadline{5'000};
    seconds heartbeat{30};
    std::string name; ///< what the broker's own lists of connections show
};

/// Broken at the first error of transport, and then of no more use.
/// Concurrency: one thread.
class RabbitConnection {
public:
    static constexpr amqp_channel_t channel = 1;

    /// Opens the connection and its channel. Throws: StoreError unavailable, rejected.
    explicit RabbitConnection(const RabbitLink& link)
        : where_("RabbitMQ at " + link.address.where())
        , deadline_(link.deadline)
        , state_(amqp_new_connection()) {
        try {
            connect(link);
            open_channel();
        } catch (...) {
            amqp_destroy_connection(state_);
            throw;
        }
    }
    RabbitConnection(const RabbitConnection&) = delete;
    RabbitConnection& operator=(const RabbitConnection&) = delete;
    /// Takes leave of the broker: a socket that is closed with something unread in it may take away
    /// what was written before.
    ~RabbitConnection() {
        if (!broken_) {
            amqp_connection_close(state_, AMQP_REPLY_SUCCESS);
        }
        amqp_destroy_connection(state_);
    }

    [[nodiscard]] bool is_broken() const noexcept { return broken_; }
    /// It is closed without a farewell, which would wait for an answer once more.
    void abandon() noexcept { broken_ = true; }
    [[nodiscard]] amqp_connection_state_t native() const noexcept { return state_; }
    [[nodiscard]] const std::string& where() const noexcept { return where_; }
    [[nodiscard]] std::size_t frame_max() const noexcept {
        return static_cast<std::size_t>(amqp_get_frame_max(state_));
    }
    [[nodiscard]] StoreError error(Fault fault, const std::string& what) const {
        return {fault, "idem: " + where_ + ": " + what};
    }

    /// The channel anew, after the broker closed it.
    void open_channel() {
        amqp_channel_open(state_, channel);
        if (const auto closing = refusal("channel.open")) {
            throw error(fault_of_reply(closing->code), "channel.open: " + closing->text);
        }
    }
    /// How the last synchronous call ended: nothing where it did well, else why the broker closed
    /// the channel. Throws: StoreError where the connection is lost.
    std::optional<RabbitClosing> refusal(const std::string& call) {
        const auto reply = amqp_get_rpc_reply(state_);
        if (reply.reply_type == AMQP_RESPONSE_NORMAL) {
            return {};
        }
        if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION) {
            return closed(reply.reply);
        }
        broken_ = true;
        throw error(Fault::unavailable,
                    call + ": " + amqp_error_string2(reply.library_error) +
                        "; it is connected anew");
    }
    /// The broker closed the channel: why. Throws: StoreError where it closed the connection.
    RabbitClosing closed(const amqp_method_t& method) {
        auto closing = closing_of(method);
        if (method.id == AMQP_CHANNEL_CLOSE_METHOD) {
            amqp_channel_close_ok_t answer{};
            amqp_send_method(state_, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &answer);
            return closing;
        }
        broken_ = true;
        throw error(fault_of_reply(closing.code), "the broker closed it: " + closing.text);
    }

    /// The next frame, waited for at most `time`; 0: what is there. Good until release(). Serves
    /// the heartbeats. Throws: StoreError unavailable where the connection is lost.
    const amqp_frame_t* read(milliseconds time) {
        const auto patience = timeval_of(time);
        const int status = amqp_simple_wait_frame_noblock(state_, &frame_, &patience);
        if (status == AMQP_STATUS_OK) {
            return &frame_;
        }
        if (status == AMQP_STATUS_TIMEOUT) {
            return nullptr;
        }
        broken_ = true;
        throw error(Fault::unavailable, amqp_error_string2(status));
    }
    /// What frames were read so far may go.
    void release() noexcept { amqp_maybe_release_buffers(state_); }

    /// All of it is on its way; false: not all, and the connection is broken.
    [[nodiscard]] bool send(std::string_view frames) {
        const auto until = std::chrono::steady_clock::now() + deadline_;
        const int socket = amqp_get_sockfd(state_);
        while (!frames.empty()) {
            const auto sent =
                ::send(socket, frames.data(), frames.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
            if (sent >= 0) {
                frames.remove_prefix(static_cast<std::size_t>(sent));
            } else if (errno != EINTR &&
                       ((errno != EAGAIN && errno != EWOULDBLOCK) || !takes_more(socket, until))) {
                broken_ = true;
                return false;
            }
        }
        return true;
    }

private:
    static bool takes_more(int socket, RabbitDeadline until) noexcept {
        const auto left = std::chrono::ceil<milliseconds>(until - std::chrono::steady_clock::now());
        pollfd entry{.fd = socket, .events = POLLOUT, .revents = 0};
        return left.count() > 0 && ::poll(&entry, 1, static_cast<int>(left.count())) > 0;
    }
    static amqp_table_entry_t entry(const char* name, amqp_field_value_kind_t kind) noexcept {
        amqp_table_entry_t made{};
        made.key = amqp_cstring_bytes(name);
        made.value.kind = static_cast<std::uint8_t>(kind);
        made.value.value.boolean = 1;
        return made;
    }
    void connect(const RabbitLink& link) {
        auto patience = timeval_of(deadline_);
        auto* socket = amqp_tcp_socket_new(state_);
        if (socket == nullptr) {
            throw error(Fault::unavailable, "no memory for a socket");
        }
        const int status = amqp_socket_open_noblock(
            socket, link.address.host.c_str(), link.address.port, &patience);
        if (status != AMQP_STATUS_OK) {
            throw error(Fault::unavailable,
                        std::string("cannot connect: ") + amqp_error_string2(status));
        }
        amqp_set_handshake_timeout(state_, &patience);
        amqp_set_rpc_timeout(state_, &patience);
        // Without the first the broker drops a consumer in silence, without the second it says
        // nothing of an alarm that keeps it from reading.
        std::array abilities{entry("consumer_cancel_notify", AMQP_FIELD_KIND_BOOLEAN),
                             entry("connection.blocked", AMQP_FIELD_KIND_BOOLEAN),
                             entry("basic.nack", AMQP_FIELD_KIND_BOOLEAN),
                             entry("publisher_confirms", AMQP_FIELD_KIND_BOOLEAN)};
        std::array about{entry("capabilities", AMQP_FIELD_KIND_TABLE),
                         entry("connection_name", AMQP_FIELD_KIND_UTF8)};
        about[0].value.value.table = {static_cast<int>(abilities.size()), abilities.data()};
        about[1].value.value.bytes = bytes_of(link.name);
        const amqp_table_t properties{static_cast<int>(about.size()), about.data()};
        const auto reply = amqp_login_with_properties(state_,
                                                      link.address.virtual_host.c_str(),
                                                      0,
                                                      AMQP_DEFAULT_FRAME_SIZE,
                                                      static_cast<int>(link.heartbeat.count()),
                                                      &properties,
                                                      AMQP_SASL_METHOD_PLAIN,
                                                      link.address.user.c_str(),
                                                      link.address.password.c_str());
        if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION) {
            const auto closing = closing_of(reply.reply);
            throw error(fault_of_reply(closing.code), "it lets nobody in: " + closing.text);
        }
        if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
            throw error(Fault::unavailable,
                        std::string("login: ") + amqp_error_string2(reply.library_error));
        }
    }

    std::string where_;
    milliseconds deadline_;
    amqp_connection_state_t state_;
    amqp_frame_t frame_{};
    bool broken_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_RABBITMQ_CONNECTION_HPP
