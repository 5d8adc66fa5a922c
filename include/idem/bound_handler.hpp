// SPDX-License-Identifier: MIT
#ifndef IDEM_BOUND_HANDLER_HPP
#define IDEM_BOUND_HANDLER_HPP

// The handler bound to one message: what Work refers to.

#include <idem/codec.hpp>
#include <idem/handler_check.hpp>
#include <idem/outcome.hpp>

#include <concepts>
#include <cstddef>
#include <optional>
#include <string>
#include <type_traits>

namespace idem::inline v0 {

namespace detail {

/// The handler bound to one message: what Work refers to.
template <class Handler, class Message, class Context>
struct BoundHandler {
    using Result = std::decay_t<typename ResultOf<Handler, Message, Context>::type>;
    using Held = std::conditional_t<std::is_void_v<Result>, std::true_type, Result>;

    Handler& handler;
    const Message& message;
    std::size_t max_result;
    std::optional<Held> value{};
    bool omitted = false;

    bool run(Context& context) {
        value.reset(); // of an earlier run
        auto call = [&]() -> decltype(auto) {
            if constexpr (std::invocable<Handler&, const Message&, Context&>) {
                return handler(message, context);
            } else {
                return handler(message);
            }
        };
        if constexpr (std::is_void_v<Result>) {
            call();
            value.emplace();
        } else {
            value.emplace(call());
        }
        if constexpr (FailureValued<Result>) {
            return value->has_value();
        }
        return true;
    }
    std::string result() {
        if constexpr (std::is_void_v<Result>) {
            return {};
        } else {
            try {
                auto bytes = Codec<Result>::encode(*value);
                if (bytes.size() <= max_result) {
                    return stored_result(bytes);
                }
            } catch (...) { // NOLINT(bugprone-empty-catch): never the handler's failure
            }
            omitted = true;
            return omitted_result();
        }
    }
};

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_BOUND_HANDLER_HPP
