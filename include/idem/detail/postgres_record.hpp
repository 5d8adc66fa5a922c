// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_RECORD_HPP
#define IDEM_DETAIL_POSTGRES_RECORD_HPP

// A record as the server sent it, and what it means for a claim.

#include <idem/dedup_store.hpp>
#include <idem/detail/postgres_schema.hpp>
#include <idem/detail/pq.hpp>
#include <idem/outcome.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace idem::inline v0::detail {

/// A row in the binary format.
class PqBinaryRow {
public:
    PqBinaryRow(const PGresult* result, int row) noexcept : result_(result), row_(row) {}

    [[nodiscard]] bool is_null(int column) const noexcept {
        return PQgetisnull(result_, row_, column) == 1;
    }
    [[nodiscard]] std::string_view bytes(int column) const noexcept {
        return {PQgetvalue(result_, row_, column),
                static_cast<std::size_t>(PQgetlength(result_, row_, column))};
    }
    /// smallint, integer or bigint: big endian, two's complement. Null is 0.
    [[nodiscard]] std::int64_t number(int column) const noexcept {
        const auto text = bytes(column);
        std::uint64_t value = !text.empty() && (text.front() & 0x80) != 0 ? ~std::uint64_t{0} : 0;
        for (const char c : text) {
            value = value << 8 | static_cast<unsigned char>(c);
        }
        return static_cast<std::int64_t>(value);
    }
    [[nodiscard]] bool flag(int column) const noexcept { return number(column) != 0; }

private:
    const PGresult* result_;
    int row_;
};

[[nodiscard]] inline std::string fingerprint_bytes(const Fingerprint& fingerprint) {
    std::string bytes;
    if (fingerprint.algorithm != 0) {
        for (const auto word : {fingerprint.high, fingerprint.low}) {
            for (int shift = 56; shift >= 0; shift -= 8) {
                bytes += static_cast<char>(word >> shift & 0xff);
            }
        }
    }
    return bytes;
}

[[nodiscard]] inline Fingerprint fingerprint_from(std::string_view bytes, std::uint32_t algorithm) {
    Fingerprint fingerprint;
    if (bytes.size() == 16) {
        for (std::size_t at = 0; at < 16; ++at) {
            auto& word = at < 8 ? fingerprint.high : fingerprint.low;
            word = word << 8 | static_cast<unsigned char>(bytes[at]);
        }
        fingerprint.algorithm = algorithm;
    }
    return fingerprint;
}

/// A row of postgres_read.
struct PostgresRecord {
    explicit PostgresRecord(const PqBinaryRow& row)
        : place(static_cast<std::size_t>(row.number(0)) - 1)
        , format(row.number(1))
        , state(static_cast<PostgresState>(row.number(2)))
        , attempts(static_cast<unsigned>(row.number(3)))
        , fingerprint(fingerprint_from(row.bytes(6), static_cast<std::uint32_t>(row.number(4))))
        , fence(row.number(5))
        , owner(row.is_null(7) ? std::nullopt : std::optional<std::string>(row.bytes(7)))
        , result(row.bytes(8))
        , expired(row.flag(9))
        , leased(!row.is_null(10))
        , lease_left(row.number(10))
        , age(row.number(11))
        , holder(row.bytes(12)) {}

    std::size_t place; ///< among those asked for, from 0
    std::int64_t format;
    PostgresState state;
    unsigned attempts;
    Fingerprint fingerprint;
    std::int64_t fence;
    std::optional<std::string> owner;
    std::string result;
    bool expired, leased;
    milliseconds lease_left; ///< of an issued token: the time left for its first redeem
    milliseconds age;
    std::string holder; ///< of a token: the id that redeemed it
};

/// What a record says to a claim that has its lock. Claimed: it is free to take.
/// Throws: StoreError unavailable for a format newer than this program's.
[[nodiscard]] inline Claim<std::monostate> judge(const PostgresRecord& record,
                                                 const ClaimRequest& request) {
    if (record.format > postgres_record_format) {
        throw StoreError(Fault::unavailable,
                         "idem: the record of this key has format " +
                             std::to_string(record.format) + ", this program knows up to " +
                             std::to_string(postgres_record_format) + ": finish the upgrade");
    }
    if (record.expired) {
        return Claimed<std::monostate>{};
    }
    const bool issued = record.state == PostgresState::issued;
    if (issued && request.token.empty()) {
        return Refused{reason::token_unknown}; // a token is no message id
    }
    if (issued && record.lease_left <= milliseconds{0}) {
        return Refused{reason::token_expired};
    }
    if (!issued && !request.token.empty() && record.holder != request.key.id) {
        const bool erased =
            record.holder.empty() && record.state == PostgresState::open && record.attempts == 0;
        if (!erased || !request.token_may_be_new) {
            return Refused{erased ? reason::token_unknown : reason::token_spent};
        }
    }
    const bool other_payload = request.fingerprint.conflicts_with(record.fingerprint);
    if (record.state == PostgresState::open && record.lease_left > milliseconds{0}) {
        return InProgress{record.lease_left}; // wins over a conflict (semantics.md 5.3)
    }
    if (other_payload) {
        return Conflict{};
    }
    switch (record.state) {
    case PostgresState::completed:
        return Completed{record.result, record.age};
    case PostgresState::parked:
        return Parked{};
    case PostgresState::issued:
    case PostgresState::open:
    case PostgresState::dead:
        break;
    }
    if (request.max_attempts > 0 && record.attempts >= request.max_attempts) {
        return Dead{record.attempts};
    }
    return Claimed<std::monostate>{.ticket = {},
                                   .attempt = record.attempts + 1,
                                   .fence = static_cast<std::uint64_t>(record.fence) + 1,
                                   .takeover = record.leased && !issued};
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_RECORD_HPP
