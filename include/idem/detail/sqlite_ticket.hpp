// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_TICKET_HPP
#define IDEM_DETAIL_SQLITE_TICKET_HPP

// What the owner of a lease proves itself by, and what a claim by lease is filed under.

#include <idem/dedup_store.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// Of one claim. Self-contained.
struct SqliteTicket {
    std::string scope, id;
    std::string nonce; ///< 128 random bits
    std::uint64_t fence = 0;
    seconds retention{};
    unsigned max_attempts = 0;
    [[nodiscard]] Key key() const noexcept { return {scope, id}; }
};

namespace detail {

/// What a claim's record is filed under: a token where it names one.
[[nodiscard]] inline Key sqlite_filed_under(const ClaimRequest& request) noexcept {
    return {request.key.scope, request.token.empty() ? request.key.id : request.token};
}

/// Throws: std::invalid_argument for a key past the limits; std::logic_error for equal keys.
inline void require_sqlite_claimable(std::span<const ClaimRequest> requests) {
    std::vector<std::pair<std::string_view, std::string_view>> keys;
    keys.reserve(requests.size());
    for (const auto& request : requests) {
        const auto filed = sqlite_filed_under(request);
        require_valid(request.key);
        require_valid(filed);
        keys.emplace_back(filed.scope, filed.id);
    }
    std::sort(keys.begin(), keys.end());
    if (std::adjacent_find(keys.begin(), keys.end()) != keys.end()) {
        throw std::logic_error("idem: the keys of a batch must differ");
    }
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_DETAIL_SQLITE_TICKET_HPP
