// SPDX-License-Identifier: MIT
#ifndef IDEM_CALL_SITE_HPP
#define IDEM_CALL_SITE_HPP

// What every call of one wrapped handler shares, and what a message must be to be handled at all.

#include <idem/key.hpp>
#include <idem/observer.hpp>
#include <idem/outcome.hpp>
#include <idem/strategy/strategy.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>

namespace idem::inline v0 {

struct ConsumerOptions {
    seconds retention{604'800};             ///< must outlive the longest redelivery
    unsigned max_attempts = 0;              ///< then dead-letter; 0: no limit
    std::size_t max_result = 65'536;        ///< bytes; a larger result is not kept
    milliseconds max_handler_time{300'000}; ///< then the handler is asked to stop
    Observer* observer = nullptr;           ///< borrowed
};

namespace detail {

/// What every call of one wrapped handler shares.
template <class Store, class Strategy>
struct CallSite {
    Store* store;
    Strategy strategy;
    ConsumerOptions options;
    std::string scope;
};

/// Fills what the key function left open.
inline void fill(Identity& identity, const Identity& facts) {
    if (identity.fingerprint.algorithm == 0) {
        identity.fingerprint = facts.fingerprint;
    }
    auto take = [](auto& open, const auto& fact) {
        if (!open) {
            open = fact;
        }
    };
    take(identity.version, facts.version);
    take(identity.created, facts.created);
    take(identity.token, facts.token);
    take(identity.position, facts.position);
    identity.redelivered = identity.redelivered || facts.redelivered;
}

/// Why a message cannot be handled at all; nothing was written.
inline std::optional<Verdict> refusal(const Request& request) {
    if (!is_valid(request.key)) {
        return Verdict{.status = Status::invalid, .detail = problem_of(request.key)};
    }
    if (request.token.size() > max_id) {
        return Verdict{.status = Status::invalid,
                       .detail = "idem: token has " + std::to_string(request.token.size()) +
                                 " bytes; the limit is " + std::to_string(max_id)};
    }
    if (request.created &&
        *request.created + request.retention < std::chrono::system_clock::now()) {
        // absence of a record proves nothing
        return Verdict{.status = Status::invalid, .reason = reason::too_old};
    }
    return {};
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_CALL_SITE_HPP
