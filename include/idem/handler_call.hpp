// SPDX-License-Identifier: MIT
#ifndef IDEM_HANDLER_CALL_HPP
#define IDEM_HANDLER_CALL_HPP

// One call of a wrapped handler: from the message to the strategy's request, and from its verdict
// back to an outcome.

#include <idem/bound_handler.hpp>
#include <idem/call_site.hpp>
#include <idem/detail/callable.hpp>
#include <idem/observer.hpp>
#include <idem/strategy/position.hpp>
#include <idem/strategy/strategy.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace idem::inline v0 {

namespace detail {

/// The steps of a call, for a store, a strategy and a handler of these types.
template <class Store, class Strategy, class Message, class Handler>
struct HandlerCall {
    using Context = ContextOf<Strategy, Store>;
    using Bound = BoundHandler<Handler, Message, Context>;
    using ConstBound = BoundHandler<const Handler, Message, Context>;
    using result_type = typename Bound::Result;
    using Site = CallSite<Store, Strategy>;
    using Answer = Outcome<result_type>;
    static constexpr bool takes_context = std::invocable<Handler&, const Message&, Context&>;

    template <class KeyOf, class H>
    static Answer one(const Site& site,
                      const KeyOf& key_of,
                      H& handler,
                      const Message& message,
                      std::stop_token stop,
                      const Identity* facts) {
        return handled(site,
                       key_of,
                       handler,
                       message,
                       std::move(stop),
                       facts,
                       [&](const Request& request, const Work<Context>& work) {
                           return site.strategy.run(*site.store, request, work);
                       });
    }

    template <class KeyOf, class H>
    static Answer
    within(const Site& site, const KeyOf& key_of, H& handler, Context& tx, const Message& message) {
        return handled(site,
                       key_of,
                       handler,
                       message,
                       {},
                       nullptr,
                       [&](const Request& request, const Work<Context>& work) {
                           return site.strategy.template run_in<Store>(tx, request, work);
                       });
    }

    template <class KeyOf, class H>
    static std::vector<Answer> batch(const Site& site,
                                     const KeyOf& key_of,
                                     H& handler,
                                     std::span<const Message> messages,
                                     const std::stop_token& stop,
                                     std::span<const Identity> facts) {
        std::vector<Identity> identities;
        std::vector<BoundHandler<H, Message, Context>> bounds;
        std::vector<Verdict> verdicts(messages.size());
        std::vector<Request> requests;
        std::vector<Work<Context>> works;
        std::vector<std::size_t> of;
        identities.reserve(messages.size());
        bounds.reserve(messages.size());
        requests.reserve(messages.size());
        works.reserve(messages.size());
        of.reserve(messages.size());
        PassedOver held; // behind one whose key is not known yet nothing of its partition starts
        for (std::size_t i = 0; i < messages.size(); ++i) {
            bounds.push_back({handler, messages[i], site.options.max_result});
            const Identity* known = i < facts.size() ? &facts[i] : nullptr;
            if (!held.is_empty() && held.holds(position_of(messages[i], known))) {
                verdicts[i] = waiting();
                continue;
            }
            if (auto over = identify(key_of, messages[i], known, identities)) {
                verdicts[i] = std::move(*over);
                if (verdicts[i].settlement().action == Action::retry) {
                    held.behind(position_of(messages[i], known));
                }
                continue;
            }
            auto request = request_of(site, identities.back(), stop);
            if (auto refused = refusal(request)) {
                tell(site, request.key, *refused, false, start_of(site));
                verdicts[i] = std::move(*refused);
                continue;
            }
            requests.push_back(std::move(request));
            works.emplace_back(bounds.back());
            of.push_back(i);
        }
        const auto started = start_of(site);
        if (!of.empty()) {
            auto answers = told(site, requests, started, [&] {
                return site.strategy.run(*site.store,
                                         std::span<const Request>(requests),
                                         std::span<const Work<Context>>(works));
            });
            for (std::size_t n = 0; n < of.size(); ++n) {
                verdicts[of[n]] = std::move(answers[n]);
                tell(site, requests[n].key, verdicts[of[n]], bounds[of[n]].omitted, started);
            }
        }
        std::vector<Answer> outcomes;
        outcomes.reserve(messages.size());
        for (std::size_t i = 0; i < messages.size(); ++i) {
            auto value = value_of(verdicts[i], bounds[i]);
            outcomes.emplace_back(std::move(verdicts[i]), std::move(value));
        }
        return outcomes;
    }

    /// A plain call gives the handler's exception back.
    template <class Step>
    static Answer rethrowing(const Step& step) {
        Answer outcome = step();
        if (outcome.status() == Status::failed && outcome.error()) {
            std::rethrow_exception(outcome.error());
        }
        return outcome;
    }
    template <class Step>
    static Answer guarded(const Step& step) noexcept {
        try {
            return step();
        } catch (const StoreError& error) {
            Verdict verdict = failed_verdict(std::current_exception(), 0);
            verdict.fault = error.fault();
            return Answer(std::move(verdict));
        } catch (...) { // the key function's
            return Answer(failed_verdict(std::current_exception(), 0));
        }
    }

private:
    using Time = std::chrono::steady_clock::time_point;

    template <class KeyOf, class H, class Run>
    static Answer handled(const Site& site,
                          const KeyOf& key_of,
                          H& handler,
                          const Message& message,
                          std::stop_token stop,
                          const Identity* facts,
                          const Run& run) {
        Identity identity = identity_of(key_of, message);
        if (facts != nullptr) {
            fill(identity, *facts);
        }
        const auto request = request_of(site, identity, std::move(stop));
        BoundHandler<H, Message, Context> bound{handler, message, site.options.max_result};
        const auto started = start_of(site);
        return Answer(
            std::in_place,
            [&]() -> Verdict {
                if (auto refused = refusal(request)) {
                    return std::move(*refused);
                }
                return told(site, {&request, 1}, started, [&] {
                    return run(request, Work<Context>(bound));
                });
            },
            [&](const Verdict& verdict) {
                tell(site, request.key, verdict, bound.omitted, started);
                return value_of(verdict, bound);
            });
    }

    template <class KeyOf>
    static Identity identity_of(const KeyOf& key_of, const Message& message) {
        using Given = std::invoke_result_t<const KeyOf&, const Message&>;
        if constexpr (std::same_as<std::remove_cvref_t<Given>, Identity>) {
            return invoke_on(key_of, message);
        } else {
            return {.id = Id(invoke_on(key_of, message))};
        }
    }
    /// Where it stands, as far as that is known without its key.
    static std::optional<Position> position_of(const Message& message,
                                               const Identity* facts) noexcept {
        if (facts != nullptr) {
            return facts->position;
        }
        if constexpr (requires {
                          { message.identity() } -> std::same_as<Identity>;
                      }) {
            try {
                return message.identity().position;
            } catch (...) { // NOLINT(bugprone-empty-catch): of none that is known
            }
        }
        return {};
    }
    /// Of one message in a batch, whose key function's exception is its own verdict.
    template <class KeyOf>
    static std::optional<Verdict> identify(const KeyOf& key_of,
                                           const Message& message,
                                           const Identity* facts,
                                           std::vector<Identity>& identities) {
        try {
            identities.push_back(identity_of(key_of, message));
            if (facts != nullptr) {
                fill(identities.back(), *facts);
            }
            return {};
        } catch (...) {
            return failed_verdict(std::current_exception(), 0);
        }
    }
    static Request request_of(const Site& site, const Identity& identity, std::stop_token stop) {
        Request request{.key = {site.scope, identity.id.view()},
                        .fingerprint = identity.fingerprint,
                        .version = identity.version,
                        .created = identity.created,
                        .retention = site.options.retention,
                        .max_attempts = site.options.max_attempts,
                        .token = identity.token ? identity.token->view() : std::string_view{},
                        .position = identity.position,
                        .redelivered = identity.redelivered,
                        .max_handler_time = site.options.max_handler_time};
        request.stop = std::move(stop);
        return request;
    }
    template <class AnyBound>
    static std::optional<typename Bound::Held> value_of(const Verdict& verdict, AnyBound& bound) {
        if (verdict.status == Status::replayed) {
            if constexpr (std::is_void_v<result_type>) {
                return std::true_type{};
            } else {
                return decoded(verdict.bytes);
            }
        }
        const bool failure_value = // the caller's to see
            FailureValued<result_type> && verdict.status == Status::failed && !verdict.error;
        if (verdict.status == Status::executed || failure_value) {
            return std::move(bound.value);
        }
        return {}; // of a run that was rolled back, if any
    }
    /// None where another release wrote something that this result type cannot read.
    static std::optional<typename Bound::Held> decoded(const std::string& stored) {
        if (stored.empty() || stored.front() != value_mark) {
            return {};
        }
        try {
            return Codec<result_type>::decode(std::string_view(stored).substr(1));
        } catch (...) {
            return {};
        }
    }
    /// A store's failure goes on to the caller, and the observer is told of it.
    template <class Step>
    static auto
    told(const Site& site, std::span<const Request> requests, Time started, const Step& step) {
        try {
            return step();
        } catch (const StoreError& error) {
            auto failed = failed_verdict(std::current_exception(), 0);
            failed.fault = error.fault();
            for (const auto& request : requests) {
                tell(site, request.key, failed, false, started);
            }
            throw;
        }
    }
    static Time start_of(const Site& site) {
        return site.options.observer == nullptr ? Time{} : std::chrono::steady_clock::now();
    }
    static void
    tell(const Site& site, const Key& key, const Verdict& verdict, bool omitted, Time started) {
        if (site.options.observer == nullptr) {
            return;
        }
        site.options.observer->on({.key = key,
                                   .status = verdict.status,
                                   .threw = verdict.error != nullptr && !verdict.fault,
                                   .took = std::chrono::steady_clock::now() - started,
                                   .fault = verdict.fault,
                                   .attempts = verdict.attempts,
                                   .takeover = verdict.takeover,
                                   .age = verdict.age,
                                   .retention = site.options.retention,
                                   .result_omitted = omitted});
    }
};

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_HANDLER_CALL_HPP
