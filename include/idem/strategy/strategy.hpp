// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_STRATEGY_HPP
#define IDEM_STRATEGY_STRATEGY_HPP

// What a strategy implements: the order of claim, handler and completion.

#include <idem/dedup_store.hpp>
#include <idem/outcome.hpp>

#include <concepts>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace idem::inline v0 {

/// One message's call, without its type.
struct Request {
    Key key;
    Fingerprint fingerprint{};
    std::optional<std::uint64_t> version{};
    std::optional<Timestamp> created{};
    seconds retention{604'800};
    unsigned max_attempts = 0;
    std::string_view token{};
    std::optional<Position> position{};
    bool redelivered = false;
    milliseconds max_handler_time{300'000};
    std::stop_token stop{}; ///< the broker took the delivery away, or the process stops

    [[nodiscard]] ClaimRequest claim(milliseconds lease = milliseconds{30'000}) const {
        return {.key = key,
                .fingerprint = fingerprint,
                .lease = lease,
                .retention = retention,
                .max_attempts = max_attempts,
                .created = created};
    }
};

/// The handler bound to its message. A non-owning reference: valid during the strategy's run.
template <class Context>
class Work {
public:
    /// `bound` has `bool run(Context&)` and `std::string result()`, and outlives this.
    template <class Bound>
    explicit Work(Bound& bound) noexcept
        : bound_(&bound)
        , run_([](void* self, Context& context) { return static_cast<Bound*>(self)->run(context); })
        , result_([](void* self) { return static_cast<Bound*>(self)->result(); }) {}

    /// Runs the handler. False: it returned a failure value.
    /// Throws: what the handler throws, nothing else.
    [[nodiscard]] bool run(Context& context) const { return run_(bound_, context); }
    /// The stored form of the result of the last run. What the Codec throws, or a size past the
    /// limit, makes it omitted_result(): neither is the handler's failure (semantics.md 3.7, 5.4).
    [[nodiscard]] std::string result() const { return result_(bound_); }

private:
    void* bound_;
    bool (*run_)(void*, Context&);
    std::string (*result_)(void*);
};

/// The context of a strategy that offers none.
struct NoContext {};

template <class P, class S>
using ContextOf = typename P::template Context<S>;

/// | run(store, request, work) | the verdict; a handler's exception is in it, a store's failure   |
/// |                           | is thrown as StoreError                                          |
/// | guarantee(takes)          | what is promised of a handler that takes, or does not take, the  |
/// |                           | context                                                          |
template <class P, class S>
concept StrategyFor = std::copyable<P> && requires(const P& strategy,
                                                   S& store,
                                                   const Request& request,
                                                   const Work<ContextOf<P, S>>& work) {
    { strategy.run(store, request, work) } -> std::same_as<Verdict>;
    { P::guarantee(true) } -> std::same_as<Guarantee>;
};

/// | run(store, requests, works) | one verdict per message, in order                              |
template <class P, class S>
concept BatchStrategyFor = StrategyFor<P, S> &&
    requires(const P& strategy,
             S& store,
             std::span<const Request> requests,
             std::span<const Work<ContextOf<P, S>>> works) {
    { strategy.run(store, requests, works) } -> std::same_as<std::vector<Verdict>>;
};

namespace detail {

template <class... Fs>
struct Overloaded : Fs... {
    using Fs::operator()...;
};
template <class... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

} // namespace detail

/// The verdict on a key that was not claimed. Requires: not Claimed.
template <class Ticket>
[[nodiscard]] Verdict verdict_of(Claim<Ticket>&& claim) {
    Verdict verdict;
    std::visit(detail::Overloaded{
                   [](Claimed<Ticket>&) {},
                   [&](Completed& done) {
                       const bool kept = !is_omitted(done.result);
                       verdict.status = kept ? Status::replayed : Status::skipped;
                       verdict.bytes = std::move(done.result);
                       verdict.age = done.age;
                   },
                   [&](InProgress& busy) {
                       verdict.status = Status::in_progress;
                       verdict.retry_after = busy.retry_after;
                   },
                   [&](Conflict&) { verdict.status = Status::conflict; },
                   [&](Dead& dead) {
                       verdict.status = Status::dead;
                       verdict.attempts = dead.attempts;
                   },
                   [&](Refused& refused) {
                       verdict.status = Status::refused;
                       verdict.reason = refused.reason;
                   },
                   [&](Parked&) { verdict.status = Status::parked; },
               },
               claim);
    return verdict;
}

namespace detail {

/// Runs the handler and keeps what it threw, so that clean-up happens after the catch block.
template <class Context>
bool run_handler(const Work<Context>& work, Context& context, std::exception_ptr& error) {
    error = nullptr;
    try {
        return work.run(context);
    } catch (...) {
        error = std::current_exception();
        return false;
    }
}

template <class E>
bool holds(const std::exception_ptr& error) {
    if (!error) {
        return false;
    }
    try {
        std::rethrow_exception(error);
    } catch (const E&) {
        return true;
    } catch (...) {
        return false;
    }
}

inline std::string what_of(const std::exception_ptr& error) {
    if (!error) {
        return "the handler returned a failure value";
    }
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& cause) {
        return cause.what();
    } catch (...) {
        return "not a std::exception";
    }
}

inline Verdict executed_verdict(unsigned attempts, bool takeover) {
    Verdict verdict;
    verdict.attempts = attempts;
    verdict.takeover = takeover;
    return verdict;
}

inline Verdict failed_verdict(std::exception_ptr error, unsigned attempts) {
    Verdict verdict;
    verdict.status = Status::failed;
    verdict.attempts = attempts;
    verdict.error = std::move(error);
    return verdict;
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_STRATEGY_HPP
