// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_CLAIMS_HPP
#define IDEM_DETAIL_REDIS_CLAIMS_HPP

// Any number of claims in two pipelines at most.

#include <idem/detail/redis_claim.hpp>

#include <cstddef>
#include <exception>
#include <optional>
#include <vector>

namespace idem::inline v0::detail {

struct RedisClaimsTaken {
    std::vector<std::optional<RedisClaim::Answer>> answers; ///< all there where error is null
    std::exception_ptr error{}; ///< of the first claim that failed; all replies were read

    /// False: it failed, and the error is kept.
    template <class Read>
    bool settle(std::size_t at, const Read& read) {
        try {
            answers[at] = read();
            return true;
        } catch (...) {
            error = error ? error : std::current_exception();
            return false;
        }
    }
};

/// The plain writes first, then the script for what they did not settle. Harmless to repeat: a
/// claim that was won already is recognised by its nonce.
/// Cost: one round trip, two where some key needs the script (three where the server forgot it).
template <class Link>
RedisClaimsTaken
take_redis_claims(Link& link, const std::vector<RedisClaim>& claims, Deadline deadline) {
    RedisClaimsTaken taken{.answers =
                               std::vector<std::optional<RedisClaim::Answer>>(claims.size())};
    std::vector<std::size_t> plain, scripted;
    RedisPipeline pipeline;
    pipeline.reserve(claims.size() * 384);
    for (std::size_t i = 0; i < claims.size(); ++i) {
        (claims[i].append_plain(pipeline) ? plain : scripted).push_back(i);
    }
    if (!plain.empty()) {
        const auto replies = link.exchange(pipeline, deadline);
        for (std::size_t at = 0; at < plain.size(); ++at) {
            const auto i = plain[at];
            const auto read = [&] {
                return claims[i].read_plain(link.where(), *replies[2 * at], *replies[2 * at + 1]);
            };
            if (taken.settle(i, read) && !taken.answers[i]) {
                scripted.push_back(i);
            }
        }
    }
    if (scripted.empty() || taken.error) {
        return taken;
    }
    const auto replies = redis_claim_script.run_all(
        link,
        scripted.size(),
        [&](std::size_t at) { return claims[scripted[at]].script_arguments(); },
        deadline);
    for (std::size_t at = 0; at < scripted.size(); ++at) {
        taken.settle(scripted[at], [&] {
            return std::optional(claims[scripted[at]].read_script(link.where(), *replies[at]));
        });
    }
    return taken;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_CLAIMS_HPP
