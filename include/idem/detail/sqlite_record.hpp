// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_RECORD_HPP
#define IDEM_DETAIL_SQLITE_RECORD_HPP

// A record as it was read, and what it means for a claim.

#include <idem/dedup_store.hpp>
#include <idem/detail/sqlite_call.hpp>
#include <idem/detail/sqlite_schema.hpp>
#include <idem/settlement.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace idem::inline v0::detail {

inline std::int64_t sqlite_millis(Timestamp time) noexcept {
    return time.time_since_epoch().count();
}
/// Not below zero, and at most a century, so that no sum overflows.
inline milliseconds sqlite_span(seconds time) noexcept {
    constexpr seconds longest{std::int64_t{100} * 366 * 86'400};
    return time < seconds{0} ? seconds{0} : time < longest ? time : longest;
}
/// The same of a lease: at most ten years.
inline milliseconds sqlite_span_of_lease(milliseconds lease) noexcept {
    constexpr milliseconds longest = std::chrono::hours{24 * 3'650};
    return lease < milliseconds{0} ? milliseconds{0} : lease < longest ? lease : longest;
}
inline std::array<char, 16> sqlite_fingerprint_bytes(const Fingerprint& print) noexcept {
    std::array<char, 16> bytes{};
    for (std::size_t at = 0; at < 16; ++at) {
        const auto half = at < 8 ? print.high : print.low;
        bytes[at] = static_cast<char>(half >> (8 * (7 - at % 8)) & 0xff);
    }
    return bytes;
}
inline Fingerprint sqlite_fingerprint(std::string_view bytes, std::int64_t algorithm) noexcept {
    Fingerprint print;
    if (bytes.size() == 16) {
        print.algorithm = static_cast<std::uint32_t>(algorithm);
        for (std::size_t at = 0; at < 16; ++at) {
            auto& half = at < 8 ? print.high : print.low;
            half = half << 8U | static_cast<unsigned char>(bytes[at]);
        }
    }
    return print;
}
/// What fits into `note`.
inline std::string_view sqlite_note(std::string_view why) noexcept {
    constexpr std::size_t longest = 1'024;
    return why.substr(0, longest);
}
/// Throws: StoreError unavailable.
inline void require_known_format(std::int64_t format) {
    if (format > sqlite_record_format) {
        throw StoreError(Fault::unavailable,
                         "idem: the record of this key has format " + std::to_string(format) +
                             ", this program knows up to " + std::to_string(sqlite_record_format) +
                             ": upgrade it");
    }
}

/// A row of sqlite_read.
struct SqliteRecord {
    explicit SqliteRecord(const SqliteCall& call)
        : format(call.integer(0))
        , state(static_cast<SqliteState>(call.integer(1)))
        , fingerprint(sqlite_fingerprint(call.bytes(2), call.integer(3)))
        , attempts(static_cast<unsigned>(call.integer(4)))
        , result(call.bytes(5))
        , changed(call.integer(6))
        , expires(call.integer(7))
        , lease_until(call.integer(8))
        , fence(call.integer(9))
        , owner(call.bytes(10))
        , holder(call.bytes(11)) {}

    [[nodiscard]] bool expired(Timestamp now) const noexcept {
        return expires <= sqlite_millis(now);
    }
    /// As an operator's erase leaves it.
    [[nodiscard]] bool blank() const noexcept {
        return state == SqliteState::open && attempts == 0 && lease_until == 0 && holder.empty() &&
               fingerprint.algorithm == 0;
    }
    /// Not below zero where the clock was set back.
    [[nodiscard]] milliseconds age(Timestamp now) const noexcept {
        return milliseconds{sqlite_millis(now) > changed ? sqlite_millis(now) - changed : 0};
    }

    std::int64_t format;
    SqliteState state;
    Fingerprint fingerprint;
    unsigned attempts;
    std::string result;
    std::int64_t changed, expires, lease_until, fence;
    std::string owner, holder;
};

/// What is known of a key whose record is not there, or counts as absent.
inline Claim<std::monostate> sqlite_judge_absent(const ClaimRequest& request) {
    if (!request.token.empty() && !request.token_may_be_new) {
        return Refused{reason::token_unknown};
    }
    return Claimed<std::monostate>{};
}

/// What a record says to a claim. Claimed: it is free to take, by who has the write lock.
/// Throws: StoreError unavailable for a format newer than this program's.
inline Claim<std::monostate> sqlite_judge(const std::optional<SqliteRecord>& record,
                                          const ClaimRequest& request,
                                          Timestamp now) {
    if (record) {
        require_known_format(record->format);
    }
    if (!record || record->expired(now)) {
        return sqlite_judge_absent(request);
    }
    const milliseconds lease_left{record->lease_until - sqlite_millis(now)};
    if (record->state == SqliteState::issued) {
        if (request.token.empty()) {
            return Refused{reason::token_unknown}; // a token is no message id
        }
        if (lease_left <= milliseconds{0}) {
            return Refused{reason::token_expired};
        }
    } else if (!request.token.empty() && record->holder != request.key.id) {
        return record->blank() ? sqlite_judge_absent(request) : Refused{reason::token_spent};
    }
    if (record->state == SqliteState::open && lease_left > milliseconds{0}) {
        return InProgress{lease_left}; // wins over a conflict (semantics.md 5.3)
    }
    if (request.fingerprint.conflicts_with(record->fingerprint)) {
        return Conflict{};
    }
    switch (record->state) {
    case SqliteState::completed:
        return Completed{record->result, record->age(now)};
    case SqliteState::parked:
        return Parked{};
    case SqliteState::issued:
    case SqliteState::open:
    case SqliteState::dead: // for the limit of this request, which may be another by now
        break;
    }
    if (request.max_attempts > 0 && record->attempts >= request.max_attempts) {
        return Dead{record->attempts};
    }
    return Claimed<std::monostate>{.ticket = {},
                                   .attempt = record->attempts + 1,
                                   .takeover = record->state == SqliteState::open &&
                                               record->lease_until != 0};
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_RECORD_HPP
