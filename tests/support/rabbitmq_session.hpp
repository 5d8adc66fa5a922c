// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_RABBITMQ_SESSION_HPP
#define IDEM_TESTS_SUPPORT_RABBITMQ_SESSION_HPP

// A plain connection to RabbitMQ, for what a test does beside the library.

#include <idem/detail/rabbitmq_client.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace idem::testing_support {

/// A message as a test publishes or gets it. Numbers among the headers are read as text.
struct RabbitLetter {
    std::string body;
    std::string message_id{};
    std::map<std::string, std::string> headers{};
    std::map<std::string, std::int64_t> numbers{}; ///< headers that are published as numbers
    std::string expiration{}, user_id{}, correlation_id{}, content_type{};
    std::string exchange{}, routing_key{}; ///< of a message that was got
    int delivery_mode = 2;
    bool redelivered = false;
    std::uint64_t tag = 0;
};
/// Arguments of a declaration: numbers where the text is one.
using RabbitArguments = std::map<std::string, std::string>;

/// A base, so that it goes also where the constructor of a session throws.
class RabbitSessionState {
public:
    RabbitSessionState() = default;
    RabbitSessionState(const RabbitSessionState&) = delete;
    RabbitSessionState& operator=(const RabbitSessionState&) = delete;
    ~RabbitSessionState() { amqp_destroy_connection(connection_); }

protected:
    amqp_connection_state_t connection_ = amqp_new_connection();
};

/// Concurrency: one thread. Throws std::runtime_error with what the broker said.
class RabbitSession : private RabbitSessionState {
public:
    explicit RabbitSession(const std::string& address) {
        std::string url = address;
        amqp_connection_info where{};
        check(amqp_parse_url(url.data(), &where), "address");
        timeval time{.tv_sec = 30, .tv_usec = 0};
        check(amqp_socket_open_noblock(
                  amqp_tcp_socket_new(connection_), where.host, where.port, &time),
              "connect");
        amqp_set_handshake_timeout(connection_, &time);
        check(amqp_login(connection_,
                         where.vhost,
                         0,
                         131'072,
                         0,
                         AMQP_SASL_METHOD_PLAIN,
                         where.user,
                         where.password),
              "login");
        amqp_channel_open(connection_, 1);
        check("channel.open");
        amqp_confirm_select(connection_, 1);
        check("confirm.select");
    }
    /// Whether a server there lets a client in.
    static bool answers(const std::string& address) noexcept {
        try {
            const RabbitSession session(address);
            return true;
        } catch (const std::exception&) {
            return false;
        }
    }
    [[nodiscard]] amqp_connection_state_t native() const noexcept { return connection_; }

    /// Durable. "x-queue-type" = "quorum" makes it one of those.
    void declare(const std::string& queue, const RabbitArguments& arguments = {}) {
        auto entries = entries_of(arguments);
        amqp_queue_declare(connection_, 1, bytes(queue), 0, 1, 0, 0, table(entries));
        check("queue.declare " + queue);
    }
    void remove(const std::string& queue) {
        amqp_queue_delete(connection_, 1, bytes(queue), 0, 0);
        check("queue.delete " + queue);
    }
    /// Whether it is there: asked on a connection of its own, for the answer no closes a channel.
    static bool has(const std::string& address, const std::string& queue) {
        RabbitSession session(address);
        amqp_queue_declare(session.connection_, 1, bytes(queue), 1, 0, 0, 0, amqp_empty_table);
        return amqp_get_rpc_reply(session.connection_).reply_type == AMQP_RESPONSE_NORMAL;
    }
    /// Messages that are ready: neither given to a consumer and unacked nor on their way.
    unsigned ready(const std::string& queue) { return passive(queue)->message_count; }
    unsigned consumers(const std::string& queue) { return passive(queue)->consumer_count; }

    /// To the queue of that name, confirmed.
    void publish(const std::string& queue, const RabbitLetter& letter) {
        send(queue, letter);
        confirmed(1);
    }
    /// All of them, then all confirms.
    void publish(const std::string& queue, const std::vector<RabbitLetter>& letters) {
        for (const auto& letter : letters) {
            send(queue, letter);
        }
        confirmed(letters.size());
    }

    /// The next one that is ready; it stays unacked until ack(), give_back() or the end of this.
    std::optional<RabbitLetter> get(const std::string& queue, bool acked = false) {
        const auto reply = amqp_basic_get(connection_, 1, bytes(queue), acked ? 1 : 0);
        check(reply, "basic.get " + queue);
        if (reply.reply.id == AMQP_BASIC_GET_EMPTY_METHOD) {
            return {};
        }
        const auto* got = static_cast<const amqp_basic_get_ok_t*>(reply.reply.decoded);
        RabbitLetter letter;
        letter.tag = got->delivery_tag;
        letter.redelivered = got->redelivered != 0;
        letter.exchange = detail::text_of(got->exchange);
        letter.routing_key = detail::text_of(got->routing_key);
        amqp_message_t message;
        check(amqp_read_message(connection_, 1, &message, 0), "the content of a message");
        take(message, letter);
        amqp_destroy_message(&message);
        amqp_maybe_release_buffers(connection_);
        return letter;
    }
    /// All that are ready, taken off the queue.
    std::vector<RabbitLetter> drain(const std::string& queue) {
        std::vector<RabbitLetter> letters;
        while (auto letter = get(queue, true)) {
            letters.push_back(std::move(*letter));
        }
        return letters;
    }
    void ack(const RabbitLetter& letter) {
        check(amqp_basic_ack(connection_, 1, letter.tag, 0), "basic.ack");
    }
    void give_back(const RabbitLetter& letter) {
        check(amqp_basic_nack(connection_, 1, letter.tag, 0, 1), "basic.nack");
    }
    /// Waits until all frames that were sent before were carried out.
    void flush() { passive(""); }

private:
    static amqp_bytes_t bytes(const std::string& text) { return detail::bytes_of(text); }
    static amqp_table_t table(std::vector<amqp_table_entry_t>& entries) {
        return {static_cast<int>(entries.size()), entries.data()};
    }
    static amqp_table_entry_t number(const std::string& name, std::int64_t value) {
        amqp_table_entry_t entry{};
        entry.key = bytes(name);
        entry.value.kind = AMQP_FIELD_KIND_I64;
        entry.value.value.i64 = value;
        return entry;
    }
    static amqp_table_entry_t text(const std::string& name, const std::string& value) {
        amqp_table_entry_t entry{};
        entry.key = bytes(name);
        entry.value.kind = AMQP_FIELD_KIND_UTF8;
        entry.value.value.bytes = bytes(value);
        return entry;
    }
    static std::vector<amqp_table_entry_t> entries_of(const RabbitArguments& arguments) {
        std::vector<amqp_table_entry_t> entries;
        for (const auto& [name, value] : arguments) {
            const bool digits =
                !value.empty() && value.find_first_not_of("0123456789") == std::string::npos;
            entries.push_back(digits ? number(name, std::stoll(value)) : text(name, value));
        }
        return entries;
    }
    [[noreturn]] static void refuse(const std::string& what, const std::string& why) {
        throw std::runtime_error("RabbitMQ: " + what + ": " + why);
    }
    static void check(int status, const std::string& what) {
        if (status != AMQP_STATUS_OK) {
            refuse(what, amqp_error_string2(status));
        }
    }
    static void check(const amqp_rpc_reply_t& reply, const std::string& what) {
        if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION) {
            refuse(what, detail::closing_of(reply.reply).text);
        }
        if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
            refuse(what, amqp_error_string2(reply.library_error));
        }
    }
    void check(const std::string& what) { check(amqp_get_rpc_reply(connection_), what); }
    const amqp_queue_declare_ok_t* passive(const std::string& queue) {
        if (queue.empty()) {
            amqp_basic_qos(connection_, 1, 0, 0, 0);
            check("basic.qos");
            return nullptr;
        }
        const auto* answer =
            amqp_queue_declare(connection_, 1, bytes(queue), 1, 0, 0, 0, amqp_empty_table);
        check("queue.declare " + queue);
        return answer;
    }

    void send(const std::string& queue, const RabbitLetter& letter) {
        std::vector<amqp_table_entry_t> headers;
        for (const auto& [name, value] : letter.headers) {
            headers.push_back(text(name, value));
        }
        for (const auto& [name, value] : letter.numbers) {
            headers.push_back(number(name, value));
        }
        amqp_basic_properties_t properties{};
        auto set = [&](amqp_flags_t flag, amqp_bytes_t& field, const std::string& value) {
            if (!value.empty()) {
                properties._flags |= flag;
                field = bytes(value);
            }
        };
        set(AMQP_BASIC_MESSAGE_ID_FLAG, properties.message_id, letter.message_id);
        set(AMQP_BASIC_EXPIRATION_FLAG, properties.expiration, letter.expiration);
        set(AMQP_BASIC_USER_ID_FLAG, properties.user_id, letter.user_id);
        set(AMQP_BASIC_CORRELATION_ID_FLAG, properties.correlation_id, letter.correlation_id);
        set(AMQP_BASIC_CONTENT_TYPE_FLAG, properties.content_type, letter.content_type);
        properties._flags |= AMQP_BASIC_DELIVERY_MODE_FLAG;
        properties.delivery_mode = static_cast<std::uint8_t>(letter.delivery_mode);
        if (!headers.empty()) {
            properties._flags |= AMQP_BASIC_HEADERS_FLAG;
            properties.headers = table(headers);
        }
        check(amqp_basic_publish(connection_,
                                 1,
                                 amqp_empty_bytes,
                                 bytes(queue),
                                 1,
                                 0,
                                 &properties,
                                 bytes(letter.body)),
              "basic.publish");
    }
    void confirmed(std::size_t count) {
        const std::uint64_t last = published_ += count;
        while (confirmed_ < last) {
            amqp_frame_t frame;
            timeval time{.tv_sec = 60, .tv_usec = 0};
            check(amqp_simple_wait_frame_noblock(connection_, &frame, &time), "a confirm");
            if (frame.frame_type != AMQP_FRAME_METHOD) {
                continue;
            }
            if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) {
                refuse("basic.publish", "not confirmed");
            }
            const auto* ack = static_cast<const amqp_basic_ack_t*>(frame.payload.method.decoded);
            confirmed_ = ack->multiple != 0 ? ack->delivery_tag : confirmed_ + 1;
            amqp_maybe_release_buffers(connection_);
        }
    }

    static std::string number_text(const amqp_field_value_t& value) {
        switch (value.kind) {
        case AMQP_FIELD_KIND_I64:
        case AMQP_FIELD_KIND_TIMESTAMP:
            return std::to_string(value.value.i64);
        case AMQP_FIELD_KIND_I32:
            return std::to_string(value.value.i32);
        case AMQP_FIELD_KIND_BOOLEAN:
            return value.value.boolean != 0 ? "true" : "false";
        default:
            return std::string("of kind ") + static_cast<char>(value.kind);
        }
    }
    static void take(const amqp_message_t& message, RabbitLetter& letter) {
        letter.body = detail::text_of(message.body);
        const auto& properties = message.properties;
        auto read = [&](amqp_flags_t flag, const amqp_bytes_t& field, std::string& value) {
            value = (properties._flags & flag) != 0 ? std::string(detail::text_of(field)) : "";
        };
        read(AMQP_BASIC_MESSAGE_ID_FLAG, properties.message_id, letter.message_id);
        read(AMQP_BASIC_EXPIRATION_FLAG, properties.expiration, letter.expiration);
        read(AMQP_BASIC_USER_ID_FLAG, properties.user_id, letter.user_id);
        read(AMQP_BASIC_CORRELATION_ID_FLAG, properties.correlation_id, letter.correlation_id);
        read(AMQP_BASIC_CONTENT_TYPE_FLAG, properties.content_type, letter.content_type);
        letter.delivery_mode =
            (properties._flags & AMQP_BASIC_DELIVERY_MODE_FLAG) != 0 ? properties.delivery_mode : 1;
        if ((properties._flags & AMQP_BASIC_HEADERS_FLAG) == 0) {
            return;
        }
        for (int at = 0; at < properties.headers.num_entries; ++at) {
            const auto& entry = properties.headers.entries[at];
            const bool is_text = entry.value.kind == AMQP_FIELD_KIND_UTF8 ||
                                 entry.value.kind == AMQP_FIELD_KIND_BYTES;
            letter.headers.emplace(detail::text_of(entry.key),
                                   is_text ? std::string(detail::text_of(entry.value.value.bytes))
                                           : number_text(entry.value));
        }
    }

    std::uint64_t published_ = 0, confirmed_ = 0;
};

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_RABBITMQ_SESSION_HPP
