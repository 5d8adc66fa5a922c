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

inline Identity merged(Identity identity, const Identity* facts) {
    if (facts == nullptr) {
        return identity;
    }
    if (identity.fingerprint.algorithm == 0) {
        identity.fingerprint = facts->fingerprint;
    }
    auto fill = [](auto& open, const auto& fact) {
        if (!open) {
            open = fact;
        }
    };
    fill(identity.version, facts->version);
    fill(identity.created, facts->created);
    fill(identity.token, facts->token);
    fill(identity.position, facts->position);
    identity.redelivered = identity.redelivered || facts->redelivered;
    return identity;
}

/// Why a message cannot be handled at all; nothing was written.
inline std::optional<Verdict> refusal(const Request& request) {
    Verdict verdict;
    verdict.status = Status::invalid;
    if (verdict.detail = problem_of(request.key); !verdict.detail.empty()) {
        return verdict;
    }
    if (request.token.size() > max_id) {
        verdict.detail = "idem: token has " + std::to_string(request.token.size()) +
                         " bytes; the limit is " + std::to_string(max_id);
        return verdict;
    }
    if (request.created &&
        *request.created + request.retention < std::chrono::system_clock::now()) {
        verdict.reason = reason::too_old; // absence of a record proves nothing
        return verdict;
    }
    return {};
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_CALL_SITE_HPP
