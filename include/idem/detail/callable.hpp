// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_CALLABLE_HPP
#define IDEM_DETAIL_CALLABLE_HPP

// What can be known of a callable at compile time. Stands in for <functional>, which would cost
// every user of the core ten thousand preprocessed lines.

#include <concepts>
#include <type_traits>
#include <utility>

namespace idem::inline v0::detail {

/// The message type is not known from here.
struct Deduced;

// The first parameter of a function, or of a call operator that is neither generic nor overloaded.
template <class Signature>
struct FirstOf {
    using type = Deduced;
};
template <class R, class C, class A, class... As>
struct FirstOf<R (C::*)(A, As...)> {
    using type = A;
};
template <class R, class C, class A, class... As>
struct FirstOf<R (C::*)(A, As...) const> {
    using type = A;
};
template <class R, class C, class A, class... As>
struct FirstOf<R (C::*)(A, As...) noexcept> {
    using type = A;
};
template <class R, class C, class A, class... As>
struct FirstOf<R (C::*)(A, As...) const noexcept> {
    using type = A;
};
template <class R, class A, class... As>
struct FirstOf<R (*)(A, As...)> {
    using type = A;
};
template <class R, class A, class... As>
struct FirstOf<R (*)(A, As...) noexcept> {
    using type = A;
};

template <class F>
struct FirstParameterOf : FirstOf<F> {};
template <class F>
    requires requires {
        &F::operator();
    }
struct FirstParameterOf<F> : FirstOf<decltype(&F::operator())> {};
template <class F>
using FirstParameter = typename FirstParameterOf<std::decay_t<F>>::type;

// The class that a key function speaks of: its parameter's, or that of a pointer to member.
template <class F>
struct SubjectOf {
    using type = std::remove_cvref_t<FirstParameter<F>>;
};
template <class R, class C>
struct SubjectOf<R C::*> {
    using type = C;
};

/// The message type: what the user named, else the handler's parameter, else the key function's
/// subject. Never the key function's first: `&Order::id` of an inherited member names the base.
template <class Named, class KeyOf, class Handler>
using MessageOf = std::conditional_t<
    !std::same_as<Named, Deduced>,
    Named,
    std::conditional_t<!std::same_as<std::remove_cvref_t<FirstParameter<Handler>>, Deduced>,
                       std::remove_cvref_t<FirstParameter<Handler>>,
                       typename SubjectOf<std::decay_t<KeyOf>>::type>>;

/// std::invoke of one argument. A const function: a key function must not change between two calls.
template <class F, class Argument>
constexpr decltype(auto) invoke_on(const F& function, const Argument& argument) {
    if constexpr (std::is_member_object_pointer_v<F>) {
        return (argument.*function); // parenthesised: a reference to the member, not a copy
    } else if constexpr (std::is_member_function_pointer_v<F>) {
        return (argument.*function)();
    } else {
        return function(argument);
    }
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_CALLABLE_HPP
