// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_BATCH_HPP
#define IDEM_STRATEGY_BATCH_HPP

// Several messages at once: which of them are the same, and what a duplicate in the batch comes to.

#include <idem/detail/siphash.hpp>
#include <idem/strategy/position.hpp>
#include <idem/strategy/strategy.hpp>

#include <bit>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace idem::inline v0::detail {

/// For each request the index of the first one of the same key: its own where it is the first.
inline std::vector<std::size_t> first_of_each_key(std::span<const Request> requests) {
    constexpr auto none = ~std::size_t{0};
    std::vector<std::size_t> seen(std::bit_ceil(2 * requests.size() + 1), none); // by hash
    std::vector<std::size_t> firsts;
    firsts.reserve(requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i) {
        const auto& key = requests[i].key;
        auto at = siphash128(key.id, 0, 0).low & (seen.size() - 1);
        while (seen[at] != none && requests[seen[at]].key != key) {
            at = (at + 1) & (seen.size() - 1);
        }
        if (seen[at] == none) {
            seen[at] = i;
        }
        firsts.push_back(seen[at]);
    }
    return firsts;
}

/// What a duplicate within the batch comes to, once the first of its key is decided: it follows the
/// first, and another payload is a conflict, the first wins (semantics.md 6.7).
inline Verdict follow(const Verdict& first,
                      const std::string& result,
                      const Request& leader,
                      const Request& duplicate) {
    const bool done = first.status == Status::executed || first.status == Status::replayed ||
                      first.status == Status::skipped;
    Verdict verdict;
    if (done && duplicate.fingerprint.conflicts_with(leader.fingerprint)) {
        verdict.status = Status::conflict;
        return verdict;
    }
    if (first.status == Status::conflict && duplicate.fingerprint != leader.fingerprint) {
        verdict.status = Status::in_progress; // perhaps the record's own payload: let it be asked
        return verdict;
    }
    if (first.status != Status::executed) {
        return first;
    }
    verdict.status = is_omitted(result) ? Status::skipped : Status::replayed;
    verdict.bytes = result;
    return verdict;
}

/// The partitions of which a message of this batch will come again: nothing behind it may overtake
/// it (semantics.md 6.9). A request without a position stands in no order.
class HeldPartitions {
public:
    [[nodiscard]] bool hold(const Request& request) const noexcept { return held_.holds(request); }
    void note(const Request& request, const Verdict& verdict) {
        if (comes_again(verdict)) {
            held_.behind(request);
        }
    }

private:
    static bool comes_again(const Verdict& verdict) {
        return verdict.status == Status::in_progress ||
               (verdict.status == Status::failed && !holds<Unprocessable>(verdict.error));
    }
    PassedOver held_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_STRATEGY_BATCH_HPP
