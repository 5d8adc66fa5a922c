// SPDX-License-Identifier: MIT
#ifndef IDEM_HANDLER_CHECK_HPP
#define IDEM_HANDLER_CHECK_HPP

// What wrap() demands of its arguments, each with the sentence that a user reads first. Every
// condition is a bare concept-id: with `!x` or `a || b` clang 14 prints "due to requirement …"
// before the sentence.

#include <idem/codec.hpp>
#include <idem/detail/callable.hpp>
#include <idem/key.hpp>

#include <concepts>
#include <string_view>
#include <type_traits>

namespace idem::inline v0::detail {

template <class H, class M, class C>
concept HandlerOf = std::invocable<H&, const M&, C&> || std::invocable<H&, const M&>;

template <class Message>
concept KnownMessage = !std::same_as<Message, Deduced>;

/// By value or as const&: a parameter of a generic handler is not known, and judged by HandlerOf.
template <class Parameter>
concept ReadsMessage =
    !std::is_reference_v<Parameter> ||
    (std::is_lvalue_reference_v<Parameter> && std::is_const_v<std::remove_reference_t<Parameter>>);

template <class KeyOf, class Message>
concept KeyedBy = std::invocable<const KeyOf&, const Message&>;

template <class Given>
concept Identifies = std::same_as<std::remove_cvref_t<Given>, Identity> ||
    (std::constructible_from<Id, Given> && !std::floating_point<std::remove_cvref_t<Given>>);

template <class Result>
concept OwnsItself = !(std::convertible_to<Result, std::string_view> &&
                       (std::is_pointer_v<Result> || std::same_as<Result, std::string_view>));

template <class Result>
concept Replayable = Storable<Result>;

template <class Scope>
concept NamesScope = std::convertible_to<Scope, std::string>;

/// The context first, so that a generic `auto& tx` is given it.
template <class Handler, class Message, class Context>
struct ResultOf {
    using type = std::invoke_result_t<Handler&, const Message&>;
};
template <class Handler, class Message, class Context>
    requires std::invocable<Handler&, const Message&, Context&>
struct ResultOf<Handler, Message, Context> {
    using type = std::invoke_result_t<Handler&, const Message&, Context&>;
};

/// Instantiated by wrap() before anything else speaks of these types. The steps stop at the first
/// that fails, so that its sentence is the first error.
template <class Message, class KeyOf, class Handler, class Context>
struct WrapCheck {
    static constexpr bool message() {
        static_assert(KnownMessage<Message>,
                      "idem: neither callable names the message type; write "
                      "wrap<Message>(scope, key_of, handler)");
        return KnownMessage<Message>;
    }
    static constexpr bool handler() {
        static_assert(ReadsMessage<FirstParameter<Handler>>,
                      "idem: the handler must take const Message& (or a copy): a rerun must see "
                      "the same message");
        if constexpr (ReadsMessage<FirstParameter<Handler>>) {
            static_assert(HandlerOf<Handler, Message, Context>,
                          "idem: the handler must be callable as handler(const Message&) or "
                          "handler(const Message&, Context&)");
            return HandlerOf<Handler, Message, Context>;
        }
        return false;
    }
    static constexpr bool key() {
        static_assert(KeyedBy<KeyOf, Message>,
                      "idem: the handler and the key function take different messages");
        if constexpr (KeyedBy<KeyOf, Message>) {
            using Given = std::invoke_result_t<const KeyOf&, const Message&>;
            static_assert(
                Identifies<Given>,
                "idem: the key function must return a string, a number or idem::Identity");
            return Identifies<Given>;
        }
        return false;
    }
    static constexpr bool result() {
        using Result = std::decay_t<typename ResultOf<Handler, Message, Context>::type>;
        static_assert(OwnsItself<Result>, "idem: a view cannot be replayed; return std::string");
        if constexpr (OwnsItself<Result>) {
            static_assert(Replayable<Result>,
                          "idem: the handler's result has no Codec; specialise idem::Codec<T>, or "
                          "return void, a string or a number");
            return Replayable<Result>;
        }
        return false;
    }
    static constexpr bool all() {
        if constexpr (message()) {
            if constexpr (handler()) {
                if constexpr (key()) {
                    return result();
                }
            }
        }
        return false;
    }
};

} // namespace idem::inline v0::detail

#endif // IDEM_HANDLER_CHECK_HPP
