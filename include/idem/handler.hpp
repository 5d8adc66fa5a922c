// SPDX-License-Identifier: MIT
#ifndef IDEM_HANDLER_HPP
#define IDEM_HANDLER_HPP

// A handler that was wrapped: what a service calls, or hands to idem::run.

#include <idem/dedup_store.hpp>
#include <idem/detail/callable.hpp>
#include <idem/guarantee.hpp>
#include <idem/handler_call.hpp>
#include <idem/handler_check.hpp>
#include <idem/strategy/strategy.hpp>

#include <concepts>
#include <cstddef>
#include <exception>
#include <span>
#include <stop_token>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace idem::inline v0 {

namespace detail {

/// The least of what key function, strategy and store say they cover; silence is produced_twice.
template <class... Parts>
constexpr Covers least_covers() {
    auto covers = Covers::produced_twice;
    auto lower = [&]<class Part>(std::type_identity<Part>) {
        if constexpr (requires {
                          { Part::covers } -> std::convertible_to<Covers>;
                      }) {
            covers = Part::covers < covers ? Part::covers : covers;
        }
    };
    (lower(std::type_identity<Parts>{}), ...);
    return covers;
}

template <class T>
inline constexpr bool is_span = false;
template <class T, std::size_t N>
inline constexpr bool is_span<std::span<T, N>> = true;

} // namespace detail

/// A handler bound to its scope, key function, strategy and store. Made by
/// IdempotentConsumer::wrap. Owns handler and key function, borrows the store.
/// Concurrency: const calls from any number of threads, as far as the user's handler, key function
/// and codec allow them; a handler with a mutable call operator has no const call, and is called by
/// one thread at a time.
template <class Store, class Strategy, class Message, class KeyOf, class Handler>
class IdempotentHandler {
    using Context = ContextOf<Strategy, Store>;
    using Call = detail::HandlerCall<Store, Strategy, Message, Handler>;

public:
    using message_type = Message;
    using result_type = typename Call::result_type;
    static constexpr bool takes_context = Call::takes_context;
    static constexpr Guarantee guarantee = Strategy::guarantee(takes_context);
    static constexpr Covers covers = detail::least_covers<KeyOf, Strategy, Store>();
    static constexpr bool shareable = detail::HandlerOf<const Handler, Message, Context>;
    static constexpr bool batches = BatchStrategyFor<Strategy, Store>;

    IdempotentHandler(Store& store,
                      Strategy strategy,
                      const ConsumerOptions& options,
                      std::string scope,
                      KeyOf key_of,
                      Handler handler)
        : site_{&store, std::move(strategy), options, std::move(scope)}
        , key_of_(std::move(key_of))
        , handler_(std::move(handler)) {}

    /// Handles the message once.
    /// Throws: the handler's exception unchanged, what the key function throws, and StoreError.
    Outcome<result_type> operator()(const Message& message,
                                    std::stop_token stop = {}) const requires shareable {
        return Call::rethrowing([&] { return call(handler_, message, std::move(stop), nullptr); });
    }
    Outcome<result_type> operator()(const Message& message,
                                    std::stop_token stop = {}) requires(!shareable) {
        return Call::rethrowing([&] { return call(handler_, message, std::move(stop), nullptr); });
    }

    /// The same for loops: every exception becomes a `failed` outcome with error().
    Outcome<result_type> handle(const Message& message,
                                std::stop_token stop = {}) const noexcept requires shareable {
        return Call::guarded([&] { return call(handler_, message, std::move(stop), nullptr); });
    }
    /// `facts` are what the delivery knows, and fill what the key function left open; its id is not
    /// among them.
    Outcome<result_type> handle(const Message& message,
                                std::stop_token stop,
                                const Identity& facts) const noexcept requires shareable {
        return Call::guarded([&] { return call(handler_, message, std::move(stop), &facts); });
    }

    /// One outcome per message, in order; a handler's exception becomes `failed` with error().
    /// `facts`: none, or one per message. Each message runs by the strategy's own rules for
    /// batches.
    /// Throws: StoreError.
    std::vector<Outcome<result_type>> batch(std::span<const Message> messages,
                                            const std::stop_token& stop = {},
                                            std::span<const Identity> facts = {}) const
        requires(shareable&& batches) {
        return Call::batch(site_, key_of_, handler_, messages, stop, facts);
    }
    // Of a deduced type, so that its sentence is the first error. Not for a span, with which concepts
    // ask whether there are batches.
    template <class Messages, class... Rest>
        requires(!batches && !detail::is_span<std::remove_cvref_t<Messages>>)
    auto batch(Messages&&, Rest&&...) const {
        static_assert(BatchStrategyFor<Strategy, Store>,
                      "idem: batch() needs a BatchStore and a strategy that runs spans");
    }

    /// Inside a transaction that the user has open: PGconn*, sqlite3*. Nothing may be acked before
    /// the user's own COMMIT answered, hence Uncommitted. The transaction is left open, with the
    /// handler's writes undone where the outcome is `failed`.
    /// Throws: the handler's exception unchanged, and StoreError.
    template <class Native>
        requires JoinableStore<Store, Native> Uncommitted<result_type>
        within(Native native, const Message& message)
    const {
        auto tx = site_.store->join(native);
        return Uncommitted<result_type>(
            Call::rethrowing([&] { return Call::within(site_, key_of_, handler_, tx, message); }));
    }

private:
    template <class H>
    Outcome<result_type>
    call(H& handler, const Message& message, std::stop_token stop, const Identity* facts) const {
        return Call::one(site_, key_of_, handler, message, std::move(stop), facts);
    }

    detail::CallSite<Store, Strategy> site_;
    KeyOf key_of_;
    Handler handler_;
};

} // namespace idem::inline v0

#endif // IDEM_HANDLER_HPP
