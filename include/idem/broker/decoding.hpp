// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_DECODING_HPP
#define IDEM_BROKER_DECODING_HPP

// Between a delivery's bytes and a handler that takes a message.

#include <idem/broker/delivery.hpp>
#include <idem/outcome.hpp>
#include <idem/strategy/position.hpp>

#include <concepts>
#include <cstddef>
#include <exception>
#include <new>
#include <span>
#include <stop_token>
#include <type_traits>
#include <utility>
#include <vector>

namespace idem::inline v0 {

namespace detail {

template <class Handler, class Message>
concept TakesFacts = requires(const Handler& handler,
                              const Message& message,
                              const Identity& facts) {
    handler.handle(message, std::stop_token{}, facts);
};

template <class Handler, class Message>
concept BatchesWithFacts = requires(const Handler& handler,
                                    std::span<const Message> messages,
                                    std::span<const Identity> facts) {
    {
        handler.batch(messages, std::stop_token{}, facts)[0].settlement()
        } -> std::same_as<Settlement>;
};

/// What a decoder threw: its own wish (RetryLater, Unprocessable), a lack of memory, or `invalid`.
inline Verdict undecodable(std::exception_ptr error) {
    Verdict verdict;
    try {
        std::rethrow_exception(error);
    } catch (const RetryLater&) {
        verdict.status = Status::failed;
        verdict.error = std::move(error);
    } catch (const Unprocessable&) {
        verdict.status = Status::failed;
        verdict.error = std::move(error);
    } catch (const std::bad_alloc&) {
        verdict.status = Status::failed;
        verdict.error = std::move(error);
    } catch (const std::exception& cause) {
        verdict.status = Status::invalid;
        verdict.reason = reason::undecodable;
        verdict.detail = cause.what();
    } catch (...) {
        verdict.status = Status::invalid;
        verdict.reason = reason::undecodable;
        verdict.detail = "not a std::exception";
    }
    return verdict;
}

} // namespace detail

/// A handler of messages, made one of deliveries. Made by decoding().
template <class Decode, class Handler>
class DecodingHandler {
    template <class D>
    using Message = std::decay_t<std::invoke_result_t<const Decode&, const D&>>;
    template <class D>
    using Answer = decltype(std::declval<const Handler&>().handle(std::declval<const Message<D>&>(),
                                                                  std::stop_token{}));

public:
    DecodingHandler(Decode decode, Handler handler)
        : decode_(std::move(decode))
        , handler_(std::move(handler)) {}

    /// The delivery's facts (raw payload's fingerprint, creation time, position, redelivered)
    /// survive decoding where the handler takes them.
    template <KeyedDelivery D>
        requires std::invocable<const Decode&, const D&>
    [[nodiscard]] auto handle(const D& delivery, std::stop_token stop) const noexcept -> Answer<D> {
        try {
            const Message<D> message = decode_(delivery);
            return handled(delivery, message, std::move(stop));
        } catch (...) { // only the decoder's: handle is noexcept
            return Answer<D>(detail::undecodable(std::current_exception()));
        }
    }

    /// One outcome per delivery; those that do not decode are not part of the handler's batch, nor
    /// is what stands in a partition behind one whose decoder asked for later.
    /// Throws: as the handler's batch.
    template <KeyedDelivery D>
        requires std::invocable<const Decode&, const D&> &&
            detail::BatchesWithFacts<Handler, Message<D>>
    [[nodiscard]] auto batch(std::span<const D> deliveries, const std::stop_token& stop) const {
        std::vector<Message<D>> messages;
        std::vector<Identity> facts;
        std::vector<Verdict> failures(deliveries.size());
        std::vector<bool> decoded(deliveries.size());
        messages.reserve(deliveries.size());
        facts.reserve(deliveries.size());
        detail::PassedOver held;
        for (std::size_t i = 0; i < deliveries.size(); ++i) {
            std::optional<Position> position; // borrows from the delivery
            try {
                auto identity = deliveries[i].identity();
                position = identity.position;
                if (held.holds(position)) {
                    failures[i] = detail::waiting();
                    continue;
                }
                messages.push_back(decode_(deliveries[i]));
                facts.push_back(std::move(identity));
                decoded[i] = true;
            } catch (...) {
                failures[i] = detail::undecodable(std::current_exception());
                if (failures[i].settlement().action == Action::retry) {
                    held.behind(position);
                }
            }
        }
        auto handled = handler_.batch(
            std::span<const Message<D>>(messages), stop, std::span<const Identity>(facts));
        if (messages.size() == deliveries.size()) {
            return handled;
        }
        decltype(handled) outcomes;
        outcomes.reserve(deliveries.size());
        for (std::size_t i = 0, next = 0; i < deliveries.size(); ++i) {
            if (decoded[i]) {
                if (next == handled.size()) { // it answered too few: the loop knows what to do
                    break;
                }
                outcomes.push_back(std::move(handled[next++]));
            } else {
                outcomes.emplace_back(std::move(failures[i]));
            }
        }
        return outcomes;
    }

private:
    template <class D>
    auto handled(const D& delivery, const Message<D>& message, std::stop_token stop) const {
        if constexpr (detail::TakesFacts<Handler, Message<D>>) {
            return handler_.handle(message, std::move(stop), delivery.identity());
        } else {
            return handler_.handle(message, std::move(stop));
        }
    }

    Decode decode_;
    Handler handler_;
};

/// `run(source, decoding(parse, bill), stop)`: `parse` takes the delivery and returns the message.
/// What it throws makes the message `invalid`, so it is dead-lettered as reason::undecodable;
/// RetryLater and Unprocessable keep their meaning.
/// Concurrency: `parse` is called from every handler thread.
template <class Decode, class Handler>
[[nodiscard]] DecodingHandler<Decode, Handler> decoding(Decode decode, Handler handler) {
    return {std::move(decode), std::move(handler)};
}

} // namespace idem::inline v0

#endif // IDEM_BROKER_DECODING_HPP
