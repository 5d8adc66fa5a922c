// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_RABBITMQ_PUBLISHER_HPP
#define IDEM_DETAIL_RABBITMQ_PUBLISHER_HPP

// Confirmed publishing to queues, on a connection of its own: neither an error of it nor an alarm of
// the broker, which stops reading from who publishes, touches the connection that consumes.

#include <idem/detail/rabbitmq_connection.hpp>
#include <idem/detail/rabbitmq_frames.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace idem::inline v0::detail {

enum class Published {
    yes,        ///< the broker answers for it
    unroutable, ///< there is no such queue
    refused,    ///< the broker does not take it: the queue is full
    in_doubt,   ///< no confirm came
};

/// Concurrency: one thread.
class RabbitPublisher {
    using Connection = RabbitConnection;

public:
    explicit RabbitPublisher(RabbitLink link) : link_(std::move(link)) {}
    RabbitPublisher(const RabbitPublisher&) = delete;
    RabbitPublisher& operator=(const RabbitPublisher&) = delete;
    ~RabbitPublisher() {
        if (connection_ && blocked_) { // nobody would read the farewell
            connection_->abandon();
        }
    }

    /// Keeps an idle connection alive. Nothing where there is none.
    void serve() noexcept {
        try {
            drain();
        } catch (const StoreError&) {
            connection_.reset(); // who publishes next makes another
        }
    }

    /// Throws: StoreError: unavailable: nothing was published; rejected.
    [[nodiscard]] Published
    publish(std::string_view queue, std::string_view properties, std::string_view body) {
        const auto until = std::chrono::steady_clock::now() + link_.deadline;
        await_readiness(until);
        if (properties.size() + 20 > connection_->frame_max()) {
            throw connection_->error(Fault::rejected,
                                     "a copy of a message for the queue " + std::string(queue) +
                                         " has " + std::to_string(properties.size()) +
                                         " bytes of headers, more than a frame takes");
        }
        frames_.clear();
        append_rabbit_publish(
            frames_, Connection::channel, queue, properties, body, connection_->frame_max());
        if (!connection_->send(frames_)) { // some of it is missing, so nothing was published
            connection_.reset();
            throw StoreError(Fault::unavailable,
                             "idem: RabbitMQ at " + link_.address.where() +
                                 ": a message could not be sent to the queue " +
                                 std::string(queue));
        }
        ++published_;
        return await_confirm(until);
    }

    /// Makes the queue where it is missing. Why the broker did not; nothing where it is there,
    /// whatever its arguments.
    /// Throws: StoreError.
    std::optional<RabbitClosing> declare(std::string_view queue, const amqp_table_t& arguments) {
        auto missing = declare(queue, amqp_empty_table, true);
        if (!missing || missing->code != AMQP_NOT_FOUND) {
            return missing;
        }
        auto refused = declare(queue, arguments, false);
        if (!refused) {
            // A node writes down the names of its quorum queues half a second after the last one
            // was made: killed before that it starts without the queue, and the messages that it
            // had confirmed there (RabbitMQ 3.10.8). So nothing is published until then.
            constexpr milliseconds written_down{1'000};
            std::this_thread::sleep_for(written_down);
        }
        return refused;
    }

    [[nodiscard]] StoreError error(Fault fault, const std::string& what) const {
        return {fault, "idem: RabbitMQ at " + link_.address.where() + ": " + what};
    }

private:
    template <class Step>
    void attempt(const Step& step) {
        try {
            step();
        } catch (const StoreError&) {
            connection_.reset();
            throw;
        }
    }
    void connect() {
        if (connection_ && connection_->is_broken()) {
            connection_.reset();
        }
        if (!connection_) {
            blocked_ = false;
            connection_.emplace(link_);
            attempt([&] { confirm(); });
        }
    }
    std::optional<RabbitClosing>
    declare(std::string_view queue, const amqp_table_t& arguments, bool passive) {
        connect();
        amqp_queue_declare(connection_->native(),
                           Connection::channel,
                           bytes_of(queue),
                           passive ? 1 : 0,
                           1,
                           0,
                           0,
                           arguments);
        std::optional<RabbitClosing> refused;
        attempt([&] {
            refused = connection_->refusal("queue.declare " + std::string(queue));
            if (refused) {
                open();
            }
        });
        return refused;
    }
    void open() {
        connection_->open_channel();
        drain(); // what the channel before still said must not be taken for this one's
        confirm();
    }
    void confirm() {
        published_ = confirmed_ = 0;
        amqp_confirm_select(connection_->native(), Connection::channel);
        if (const auto closing = connection_->refusal("confirm.select")) {
            throw error(fault_of_reply(closing->code), "confirm.select: " + closing->text);
        }
    }

    /// What came in since: an alarm, its end, the end of the connection.
    void drain() {
        while (connection_ && take(connection_->read(milliseconds{0}))) {
        }
    }
    void await_readiness(RabbitDeadline until) {
        serve();
        connect();
        while (blocked_) {
            bool came = false;
            attempt([&] { came = take(connection_->read(left(until))); });
            if (!came) { // kept: another connection would learn of the alarm by publishing
                throw error(Fault::unavailable,
                            "it takes no messages: an alarm of its memory or its disk");
            }
        }
    }
    Published await_confirm(RabbitDeadline until) {
        returned_ = refused_ = false;
        try {
            while (confirmed_ < published_) {
                if (!take(connection_->read(left(until)))) {
                    if (!blocked_) {
                        connection_->abandon(); // its late confirm must not be taken for another's
                    }
                    return Published::in_doubt;
                }
            }
        } catch (const StoreError& failure) {
            connection_.reset();
            if (failure.fault() == Fault::rejected) { // it does not take this one
                throw;
            }
            return Published::in_doubt;
        }
        return refused_ ? Published::refused : returned_ ? Published::unroutable : Published::yes;
    }
    static milliseconds left(RabbitDeadline until) noexcept {
        return std::chrono::ceil<milliseconds>(until - std::chrono::steady_clock::now());
    }

    /// False: there is no frame. Throws: StoreError where channel or connection ended.
    bool take(const amqp_frame_t* frame) {
        if (frame == nullptr) {
            return false;
        }
        if (frame->frame_type == AMQP_FRAME_METHOD) {
            take(frame->payload.method);
        }
        connection_->release();
        return true;
    }
    void take(const amqp_method_t& method) {
        switch (method.id) {
        case AMQP_BASIC_ACK_METHOD: {
            const auto* ack = static_cast<const amqp_basic_ack_t*>(method.decoded);
            confirmed(ack->delivery_tag, false);
            break;
        }
        case AMQP_BASIC_NACK_METHOD: {
            const auto* nack = static_cast<const amqp_basic_nack_t*>(method.decoded);
            confirmed(nack->delivery_tag, true);
            break;
        }
        case AMQP_BASIC_RETURN_METHOD: // comes before the confirm
            returned_ = true;
            break;
        case AMQP_CONNECTION_BLOCKED_METHOD:
            blocked_ = true;
            break;
        case AMQP_CONNECTION_UNBLOCKED_METHOD:
            blocked_ = false;
            break;
        case AMQP_CHANNEL_CLOSE_METHOD:
        case AMQP_CONNECTION_CLOSE_METHOD: {
            const auto closing = connection_->closed(method);
            const auto fault = closing.code == AMQP_PRECONDITION_FAILED
                                   ? Fault::rejected
                                   : fault_of_reply(closing.code);
            throw error(fault, "the broker closed a channel: " + closing.text);
        }
        default:
            break;
        }
    }
    /// One is awaited at a time; an earlier one was given up during an alarm.
    void confirmed(std::uint64_t tag, bool refused) noexcept {
        confirmed_ = tag;
        refused_ = refused;
        returned_ = returned_ && tag == published_;
    }

    RabbitLink link_;
    std::optional<Connection> connection_;
    std::string frames_;
    std::uint64_t published_ = 0, confirmed_ = 0; // on this channel
    bool returned_ = false, refused_ = false;     // what the last confirm said
    bool blocked_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_RABBITMQ_PUBLISHER_HPP
