// SPDX-License-Identifier: MIT
#ifndef IDEM_SETTLEMENT_HPP
#define IDEM_SETTLEMENT_HPP

// What the broker is to be told of a delivery, and why.

#include <idem/error.hpp>

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0 {

/// The reasons of a settlement, stable text that dead letters carry.
namespace reason {
inline constexpr std::string_view handler_failed = "the handler failed",
                                  retry_later = "the handler asked to retry later",
                                  unprocessable = "unprocessable", in_progress = "in progress",
                                  conflict = "same key, other payload", dead = "attempts used up",
                                  parked = "outcome unknown", token_unknown = "token unknown",
                                  token_spent = "token spent", token_expired = "token expired",
                                  invalid_key = "invalid key", undecodable = "undecodable",
                                  too_old = "older than the retention",
                                  trimmed = "trimmed before it was handled",
                                  version_unknown = "the row to update does not exist yet",
                                  store_unavailable = "store unavailable",
                                  store_in_doubt = "store in doubt", lease_lost = "lease lost",
                                  store_rejected = "store rejected",
                                  stopped = "stopped before the handler started";
} // namespace reason

/// How settling a delivery ended. `lost`: the delivery was no longer ours, nothing was done.
enum class [[nodiscard]] Settled : std::uint8_t{yes, lost, in_doubt};

enum class Action { ack, retry, dead_letter, stop };

/// What the broker is to be told of one delivery. `stop`: settle nothing and end the loop, a human
/// must act.
struct Settlement {
    using enum Action;
    Action action = ack;
    milliseconds delay{0};     ///< of a retry: the earliest next claim
    std::string_view reason{}; ///< one of idem::reason
    std::string detail{};      ///< what() of the cause
    unsigned attempts = 0;
};

namespace detail {

inline constexpr milliseconds first_retry{200};

inline Settlement settlement_of_fault(Fault fault, std::string what) {
    switch (fault) {
    case Fault::unavailable:
        return {Action::retry, first_retry, reason::store_unavailable, std::move(what)};
    case Fault::in_doubt:
        return {Action::retry, first_retry, reason::store_in_doubt, std::move(what)};
    case Fault::lease_lost:
        return {Action::retry, first_retry, reason::lease_lost, std::move(what)};
    case Fault::rejected:
        break;
    }
    return {Action::stop, milliseconds{0}, reason::store_rejected, std::move(what)};
}

/// What a handler's own exception asks for. A StoreError in here comes from a nested consumer and
/// is a failure like any other (semantics.md 3.9).
inline Settlement settlement_of_handler(const std::exception_ptr& error) {
    if (!error) {
        return {Action::retry, first_retry, reason::handler_failed};
    }
    try {
        std::rethrow_exception(error);
    } catch (const RetryLater& later) {
        return {Action::retry, later.delay(), reason::retry_later};
    } catch (const Unprocessable& cause) {
        return {Action::dead_letter, milliseconds{0}, reason::unprocessable, cause.what()};
    } catch (const std::exception& cause) {
        return {Action::retry, first_retry, reason::handler_failed, cause.what()};
    } catch (...) {
        return {Action::retry, first_retry, reason::handler_failed, "not a std::exception"};
    }
}

} // namespace detail

/// The settlement for what a plain call threw, for those with a loop of their own.
[[nodiscard]] inline Settlement settlement_of(const std::exception_ptr& error) noexcept {
    try {
        if (error) {
            std::rethrow_exception(error);
        }
    } catch (const StoreError& cause) {
        return detail::settlement_of_fault(cause.fault(), cause.what());
    } catch (...) {
        return detail::settlement_of_handler(error);
    }
    return detail::settlement_of_handler(error);
}

} // namespace idem::inline v0

#endif // IDEM_SETTLEMENT_HPP
