// SPDX-License-Identifier: MIT
#ifndef IDEM_CONSUMER_HPP
#define IDEM_CONSUMER_HPP

// Store and strategy together: what wraps a service's handlers.

#include <idem/handler.hpp>

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace idem::inline v0 {

namespace detail {

// Base of the consumer, so that the strategy's own sentence is the first error.
template <class Strategy, class Store>
struct Demands {};
template <class Strategy, class Store>
    requires requires {
        typename Strategy::template Requires<Store>;
    }
struct Demands<Strategy, Store> : Strategy::template Requires<Store> {};

struct NoMessage {};

} // namespace detail

/// Wraps handlers so that a message that is delivered again, or produced twice, takes effect once,
/// as far as store and strategy promise (the wrapped handler's `guarantee` and `covers`).
/// Borrows the store, which outlives the consumer and all that it wrapped. Copies are cheap.
/// Concurrency: const; shared by any number of threads as the store is.
template <class Store, class Strategy>
class IdempotentConsumer : private detail::Demands<Strategy, Store> {
    static_assert(StrategyFor<Strategy, Store>,
                  "idem: this strategy cannot run over this store; the note below names what is "
                  "missing");

public:
    using Context = ContextOf<Strategy, Store>;

    IdempotentConsumer(Store& store, Strategy strategy, ConsumerOptions options = {})
        : store_(&store)
        , strategy_(std::move(strategy))
        , options_(options) {}
    IdempotentConsumer(const Store&&, Strategy, ConsumerOptions = {}) = delete; // would dangle

    /// Binds a handler to its scope, which names it and is shared with no other: two handlers of
    /// one message keep apart records. `key_of` takes the message and returns a string, a number or
    /// an Identity; it may be a pointer to member. The handler takes the message, or the message
    /// and a Context&. The message type is the handler's parameter, else that of key_of, else
    /// named: wrap<Message>(…).
    /// Throws: std::invalid_argument where the scope is empty or past max_scope.
    template <class Message = detail::Deduced, class KeyOf, class Handler>
    [[nodiscard]] auto wrap(std::string scope, KeyOf key_of, Handler handler) const {
        using Taken = detail::MessageOf<Message, KeyOf, Handler>;
        if constexpr (detail::WrapCheck<Taken, KeyOf, Handler, Context>::all()) {
            require_valid({scope, "any id"});
            return IdempotentHandler<Store, Strategy, Taken, KeyOf, Handler>(*store_,
                                                                             strategy_,
                                                                             options_,
                                                                             std::move(scope),
                                                                             std::move(key_of),
                                                                             std::move(handler));
        }
    }
    template <class Message = detail::Deduced, class KeyOf, class Handler>
    auto wrap(KeyOf, Handler) const {
        static_assert(detail::NamesScope<KeyOf>,
                      "idem: wrap needs the handler's scope first: wrap(scope, key_of, handler)");
    }

    /// One call without a message type: `consumer("billing", order.id, [&] { … })`; the handler
    /// takes nothing, or a Context&.
    /// Throws: std::invalid_argument for the scope, the handler's exception unchanged, StoreError.
    template <class Handler>
    auto operator()(std::string_view scope, const Identity& identity, Handler&& handler) const {
        using detail::NoMessage;
        auto key_of = [&identity](const NoMessage&) { return identity; };
        if constexpr (std::invocable<Handler&, Context&>) {
            return wrap<NoMessage>(std::string(scope),
                                   key_of,
                                   [&](const NoMessage&, Context& context) -> decltype(auto) {
                                       return handler(context);
                                   })({});
        } else {
            return wrap<NoMessage>(
                std::string(scope), key_of, [&](const NoMessage&) -> decltype(auto) {
                    return handler();
                })({});
        }
    }
    template <class Handler>
    auto operator()(std::string_view scope, Id id, Handler&& handler) const {
        return (*this)(scope, Identity{.id = std::move(id)}, handler);
    }

private:
    Store* store_;
    Strategy strategy_;
    ConsumerOptions options_;
};

} // namespace idem::inline v0

#endif // IDEM_CONSUMER_HPP
