// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_TICKET_HPP
#define IDEM_DETAIL_POSTGRES_TICKET_HPP

// What the owner of a lease proves itself by, and how requests and tickets travel as arrays.

#include <idem/detail/postgres_claims.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// Of one claim. Self-contained.
struct PostgresTicket {
    std::string scope, id;
    std::string nonce; ///< 128 random bits; those of one batch share them
    std::uint64_t fence = 0;
    seconds retention{};
    unsigned max_attempts = 0;
    [[nodiscard]] Key key() const noexcept { return {scope, id}; }
};

namespace detail {

[[nodiscard]] inline double lease_seconds(milliseconds lease) noexcept {
    constexpr milliseconds longest = std::chrono::hours{24 * 3'650};
    const auto kept = std::clamp(lease, milliseconds{0}, longest);
    return static_cast<double>(kept.count()) / 1'000;
}

/// The places of `keys`, in the order of the keys: whoever locks several does it in one order.
template <class KeyAt>
[[nodiscard]] std::vector<std::size_t> in_key_order(std::vector<std::size_t> places,
                                                    const KeyAt& key_at) {
    std::sort(places.begin(), places.end(), [&](std::size_t left, std::size_t right) {
        const Key a = key_at(left), b = key_at(right);
        return std::pair(a.scope, a.id) < std::pair(b.scope, b.id);
    });
    return places;
}

/// Calls found(place, row) for each row of `result`, whose columns 0 and 1 are scope and id, and
/// which keeps the order of `places` nearly always.
template <class KeyAt, class Found>
void match_rows(const PGresult* result,
                const std::vector<std::size_t>& places,
                const KeyAt& key_at,
                const Found& found) {
    std::size_t at = 0;
    for (int number = 0; number < PQntuples(result); ++number) {
        const PqBinaryRow row(result, number);
        const Key key{row.bytes(0), row.bytes(1)};
        for (std::size_t tried = 0; tried < places.size(); ++tried, ++at) {
            const auto place = places[at % places.size()];
            if (key_at(place) == key) {
                found(place, row);
                break;
            }
        }
    }
}

/// What a claim's record is filed under: a token where it names one.
[[nodiscard]] inline Key filed_under(const ClaimRequest& request) noexcept {
    return {request.key.scope, request.token.empty() ? request.key.id : request.token};
}

/// Columns of what is to be claimed, as parameters of postgres_lease_new.
[[nodiscard]] inline std::vector<PqParameter>
lease_columns(const std::string& nonce,
              std::span<const ClaimRequest> requests,
              const std::vector<std::int64_t>& locks,
              const std::vector<std::size_t>& places) {
    std::vector<std::string_view> scopes, ids, prints, holders;
    std::vector<std::int64_t> lock_column;
    std::vector<double> leases, retentions;
    std::vector<std::int32_t> algorithms;
    std::vector<std::string> digests;
    digests.reserve(places.size());
    for (const auto place : places) {
        const auto& asked = requests[place];
        scopes.push_back(asked.key.scope);
        ids.push_back(filed_under(asked).id);
        holders.push_back(asked.token.empty() ? std::string_view() : asked.key.id);
        prints.push_back(digests.emplace_back(fingerprint_bytes(asked.fingerprint)));
        lock_column.push_back(locks[place]);
        leases.push_back(lease_seconds(asked.lease));
        retentions.push_back(retention_seconds(asked.retention));
        algorithms.push_back(static_cast<std::int32_t>(asked.fingerprint.algorithm));
    }
    return {bytes_parameter(nonce),
            bytes_array(scopes),
            bytes_array(ids),
            number_array(lock_column),
            number_array(leases),
            number_array(retentions),
            number_array(algorithms),
            bytes_array(prints),
            bytes_array(holders)};
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_DETAIL_POSTGRES_TICKET_HPP
