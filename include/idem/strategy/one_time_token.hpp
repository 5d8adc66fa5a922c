// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_ONE_TIME_TOKEN_HPP
#define IDEM_STRATEGY_ONE_TIME_TOKEN_HPP

// Solution 3, the one-time token, made sound: issued, redeemed, completed, each step atomic.

#include <idem/strategy/leased_call.hpp>

namespace idem::inline v0 {

/// A lease whose claim redeems a token that the store issued: `store.issue(scope, ttl, intent)`.
/// The message names it by Identity::token; without one its id is the token, and then none is ever
/// "spent". The same message again replays or is in progress; another message with the token is
/// refused, as are unknown and expired ones, each with its reason. At least once, as
/// DistributedLock. The handler takes the message, or the message and a `Lease&`.
/// Cost: two round trips, one for a duplicate.
struct OneTimeToken {
    milliseconds lease{30'000};
    bool client_generated = false; ///< the client makes the token, its first redeem the record
    milliseconds min_remaining{5'000};

    template <class S>
    using Context = Lease;
    static constexpr Guarantee guarantee(bool) noexcept { return Guarantee::at_least_once; }
    template <class S>
    struct Requires {
        static_assert(TokenStore<S>,
                      "idem::OneTimeToken needs a TokenStore: issue(scope, ttl, intent)");
    };

    template <TokenStore S>
    Verdict run(S& store, const Request& request, const Work<Lease>& work) const {
        auto asked = request.claim(lease);
        asked.token = request.token.empty() ? request.key.id : request.token;
        asked.token_may_be_new = client_generated;
        const detail::LeaseTerms terms{lease, min_remaining};
        return detail::run_leased(store, request, asked, terms, work);
    }
};

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_ONE_TIME_TOKEN_HPP
