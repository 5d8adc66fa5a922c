// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_RABBITMQ_CONSUMER_HPP
#define IDEM_BROKER_RABBITMQ_CONSUMER_HPP

// The connection that consumes: what comes in, and the tags that go back.

#include <idem/broker/rabbitmq_delivery.hpp>
#include <idem/broker/rabbitmq_options.hpp>
#include <idem/detail/rabbitmq_connection.hpp>
#include <idem/detail/rabbitmq_frames.hpp>
#include <idem/settlement.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

/// Its channels follow each other, and with a channel die the tags that it gave.
/// Concurrency: one thread.
class RabbitConsumer {
    using Connection = RabbitConnection;
    using Clock = std::chrono::steady_clock;

public:
    RabbitConsumer(RabbitLink link, const RabbitOptions& options)
        : link_(std::move(link))
        , options_(options) {}
    RabbitConsumer(const RabbitConsumer&) = delete;
    RabbitConsumer& operator=(const RabbitConsumer&) = delete;
    ~RabbitConsumer() { cancel(); }

    /// What came in and was not taken yet; empty after a loss.
    [[nodiscard]] std::deque<RabbitDelivery>& ready() noexcept { return ready_; }
    [[nodiscard]] bool is_ours(const RabbitDelivery& delivery) const noexcept {
        return delivery.tag_ != 0 && delivery.channel_turn_ == turn_;
    }

    /// Consumes where it does not yet. Throws: StoreError.
    void connect() {
        guarded([this] {
            if (!connection_) {
                connection_.emplace(link_);
                channel_open_ = true;
            }
            if (!channel_open_) {
                connection_->open_channel();
                while (const auto* frame = connection_->read(milliseconds{0})) {
                    take(*frame); // of the channel before, put aside by a call that it ended
                }
                channel_open_ = true;
            }
            if (!consuming_) {
                consume();
                consuming_ = true;
            }
        });
    }
    /// Is given no more, until connect(); what is on its way comes in.
    /// Also before a close: where a channel or a connection is closed right after some acks, a
    /// quorum queue takes back as many as ninety of them (RabbitMQ 3.10.8), and the answer to a
    /// cancel comes after them.
    void cancel() noexcept {
        if (!connection_ || !consuming_) {
            return;
        }
        try {
            guarded([this] {
                amqp_basic_cancel(
                    connection_->native(), Connection::channel, bytes_of(consumer_tag_));
                require("basic.cancel");
                consuming_ = false;
            });
            serve(milliseconds{0});
        } catch (const StoreError&) { // lost, and nothing is given any more
        }
    }
    /// Takes in what has come; with nothing in hand it waits, at most `time`, for something. Serves
    /// the heartbeats. Throws: StoreError where the channel is lost.
    void serve(milliseconds time) {
        if (!connection_) {
            return;
        }
        now_ = Clock::now();
        const auto until = now_ + time;
        guarded([&] {
            auto wait = ready_.empty() ? time : milliseconds{0};
            while (const auto* frame = connection_->read(wait)) {
                take(*frame);
                wait = milliseconds{0};
                if (ready_.empty() && time > wait) {
                    now_ = Clock::now();
                    wait = until > now_ ? std::chrono::ceil<milliseconds>(until - now_) : wait;
                }
            }
        });
    }

    /// One frame each, sent together.
    std::vector<Settled> acknowledge(std::span<RabbitDelivery* const> deliveries) {
        std::vector<Settled> answers(deliveries.size(), Settled::lost);
        frames_.clear();
        for (std::size_t i = 0; i < deliveries.size(); ++i) {
            if (is_ours(*deliveries[i])) {
                append_rabbit_ack(
                    frames_, Connection::channel, std::exchange(deliveries[i]->tag_, 0));
                answers[i] = Settled::yes;
            }
        }
        if (!send()) {
            for (auto& answer : answers) {
                answer = answer == Settled::yes ? Settled::in_doubt : answer;
            }
        }
        return answers;
    }
    Settled requeue(RabbitDelivery& delivery) {
        if (!is_ours(delivery)) {
            return Settled::lost;
        }
        frames_.clear();
        append_rabbit_requeue(frames_, Connection::channel, std::exchange(delivery.tag_, 0));
        return send() ? Settled::yes : Settled::in_doubt;
    }

private:
    template <class Step>
    void guarded(const Step& step) {
        try {
            step();
        } catch (const StoreError&) {
            lose();
            throw;
        }
    }
    bool send() {
        if (frames_.empty() || connection_->send(frames_)) {
            return true;
        }
        lose();
        return false;
    }
    /// No tag of the channel is used again.
    void lose() noexcept {
        ++turn_;
        ready_.clear();
        coming_.reset();
        deliver_.reset();
        channel_open_ = consuming_ = false;
        if (connection_ && connection_->is_broken()) {
            connection_.reset();
        }
    }

    void consume() {
        amqp_basic_qos(connection_->native(),
                       Connection::channel,
                       0,
                       static_cast<std::uint16_t>(options_.prefetch),
                       0);
        require("basic.qos");
        std::vector<amqp_table_entry_t> arguments;
        for (const auto& [name, value] : options_.consumer_arguments) {
            arguments.push_back(argument(name, value));
        }
        const auto* answer =
            amqp_basic_consume(connection_->native(),
                               Connection::channel,
                               bytes_of(options_.queue),
                               bytes_of(options_.consumer_tag),
                               0,
                               0,
                               0,
                               {static_cast<int>(arguments.size()), arguments.data()});
        require("basic.consume " + options_.queue);
        consumer_tag_ = text_of(answer->consumer_tag);
    }
    void require(const std::string& call) {
        if (const auto closing = connection_->refusal(call)) {
            // Of a queue's arguments or a consumer's: waiting does not mend it.
            const auto fault = closing->code == AMQP_PRECONDITION_FAILED && closing->of_a_call
                                   ? Fault::rejected
                                   : fault_of_reply(closing->code);
            throw connection_->error(fault, call + ": " + closing->text);
        }
    }
    static amqp_table_entry_t argument(const std::string& name,
                                       const RabbitArguments::value_type::second_type& value) {
        amqp_table_entry_t entry{};
        entry.key = bytes_of(name);
        if (const auto* text = std::get_if<std::string>(&value)) {
            entry.value.kind = AMQP_FIELD_KIND_UTF8;
            entry.value.value.bytes = bytes_of(*text);
        } else if (const auto* number = std::get_if<std::int64_t>(&value)) {
            entry.value.kind = AMQP_FIELD_KIND_I64;
            entry.value.value.i64 = *number;
        } else {
            entry.value.kind = AMQP_FIELD_KIND_BOOLEAN;
            entry.value.value.boolean = std::get<bool>(value) ? 1 : 0;
        }
        return entry;
    }

    // ---- frames ---------------------------------------------------------------------------------
    void take(const amqp_frame_t& frame) {
        if (frame.channel != 0 && !channel_open_) {
            // Its tags are dead, and on the next channel would be those of other messages.
        } else if (frame.frame_type == AMQP_FRAME_METHOD) {
            take(frame.payload.method);
        } else if (frame.frame_type == AMQP_FRAME_HEADER && deliver_) {
            const auto& content = frame.payload.properties;
            missing_ = content.body_size;
            coming_.emplace(RabbitDelivery(*deliver_,
                                           text_of(content.raw),
                                           static_cast<std::size_t>(content.body_size),
                                           turn_,
                                           now_));
            deliver_.reset();
        } else if (frame.frame_type == AMQP_FRAME_BODY && coming_) {
            coming_->add_body(text_of(frame.payload.body_fragment));
            missing_ -= frame.payload.body_fragment.len;
        }
        if (coming_ && missing_ == 0) {
            ready_.push_back(std::move(*coming_));
            coming_.reset();
        }
        if (!deliver_) { // else its text lies in the buffers
            connection_->release();
        }
    }
    void take(const amqp_method_t& method) {
        switch (method.id) {
        case AMQP_BASIC_DELIVER_METHOD:
            deliver_ = *static_cast<const amqp_basic_deliver_t*>(method.decoded);
            break;
        case AMQP_BASIC_CANCEL_METHOD: // the queue is gone, or moved: consume() will tell
            consuming_ = false;
            break;
        case AMQP_CHANNEL_CLOSE_METHOD:
        case AMQP_CONNECTION_CLOSE_METHOD: {
            const auto closing = connection_->closed(method);
            throw connection_->error(fault_of_reply(closing.code),
                                     "the broker closed the channel: " + closing.text);
        }
        default:
            break;
        }
    }

    RabbitLink link_;
    const RabbitOptions& options_; // the source's
    std::optional<Connection> connection_;
    bool channel_open_ = false, consuming_ = false;
    std::uint64_t turn_ = 1;
    std::deque<RabbitDelivery> ready_;
    std::optional<amqp_basic_deliver_t> deliver_; // whose content header comes next
    std::optional<RabbitDelivery> coming_;        // whose body comes next
    std::uint64_t missing_ = 0;                   // bytes of it
    Clock::time_point now_{};
    std::string frames_, consumer_tag_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_BROKER_RABBITMQ_CONSUMER_HPP
