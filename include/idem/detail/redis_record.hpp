// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_RECORD_HPP
#define IDEM_DETAIL_REDIS_RECORD_HPP

// The bytes under which Redis remembers a key, and the name of those bytes. No server is needed to
// read this page, or to test it.
//
// | bytes  | field       |                                                                        |
// |--------|-------------|------------------------------------------------------------------------|
// | 0–1    | I1          | ours, and the version of the format                                    |
// | 2      | state       | one of RedisState                                                      |
// | 3      | form        | '0' + 1: a holder follows, + 2: an earlier lease had run out, + 4: a   |
// |        |             | completed record has a fingerprint                                     |
// | 4–19   | nonce       | of the claim, never reused                                             |
// | 20–39  | fingerprint | algorithm (4), high (8), low (8); algorithm 0: none                    |
// | 40–44  | grace       | ms by which the key outlives the lease, which is over at PTTL <= grace |
// | 45–48  | attempts    | charged so far, the present one included                               |
// | 49–56  | fence       | µs; 0: (PEXPIRETIME − lease − grace) × 1000 of the claim               |
// | 57–72  | holder      | of a token: digest of the message's id                                 |
// | …      | text        | free, parked: why                                                      |
//
// A completed record, of which there are many, keeps what a duplicate asks for and no more: I1, C,
// form, six bytes of the nonce (so that its owner may repeat the completion, and nobody else), the
// retention in seconds (4), fingerprint (20) and holder (16) where there are any, the result.
//
// Numbers are big endian. A record in progress never changes while it is owned, so that the ticket
// is its exact bytes and every transition of the owner one compare-and-set; renewing moves the
// expiry alone. Whoever changes these tables makes the version I2 and goes on reading I1
// (semantics.md 5.5).

#include <idem/detail/nonce.hpp>
#include <idem/detail/siphash.hpp>
#include <idem/key.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

enum class RedisState : char {
    in_progress = 'P',
    free = 'F',
    completed = 'C',
    parked = 'K',
    dead = 'D',
    lapsed = 'L', ///< dead, and its last lease ran out: the late owner may still complete it
    issued = 'T', ///< a token before its first redeem
};

struct RedisRecord {
    RedisState state = RedisState::in_progress;
    bool takeover = false;
    std::string nonce = std::string(16, '\0');
    Fingerprint fingerprint{};
    milliseconds grace{0};
    std::uint32_t attempts = 1;
    std::uint64_t fence = 0;
    std::string holder{}; ///< 16 bytes, or none
    std::string text{};
};

inline constexpr std::string_view redis_format = "I1";
inline constexpr std::size_t redis_header = 57, redis_completed_header = 14,
                             redis_completed_nonce = 6, redis_fingerprint = 20, redis_holder = 16;
/// What five bytes of grace hold, about 34 years.
inline constexpr milliseconds longest_redis_life{(1LL << 40) - 1};

inline void append_big_endian(std::string& bytes, std::uint64_t value, unsigned width) {
    while (width-- > 0) {
        bytes += static_cast<char>(value >> (8 * width));
    }
}
[[nodiscard]] inline std::uint64_t big_endian(std::string_view bytes) noexcept {
    std::uint64_t value = 0;
    for (const char byte : bytes) {
        value = value << 8 | static_cast<unsigned char>(byte);
    }
    return value;
}

inline void append_redis_fingerprint(std::string& bytes, const Fingerprint& fingerprint) {
    append_big_endian(bytes, fingerprint.algorithm, 4);
    append_big_endian(bytes, fingerprint.high, 8);
    append_big_endian(bytes, fingerprint.low, 8);
}
[[nodiscard]] inline Fingerprint redis_fingerprint_of(std::string_view bytes) noexcept {
    return {.high = big_endian(bytes.substr(4, 8)),
            .low = big_endian(bytes.substr(12, 8)),
            .algorithm = static_cast<std::uint32_t>(big_endian(bytes.substr(0, 4)))};
}

/// Of a completed record nonce and grace are kept as the table says, attempts and fence are not.
[[nodiscard]] inline std::string pack_redis_record(const RedisRecord& record) {
    const bool completed = record.state == RedisState::completed;
    const bool marked = completed && record.fingerprint.algorithm != 0;
    std::string bytes;
    bytes.reserve(redis_header + record.holder.size() + record.text.size());
    bytes += redis_format;
    bytes += static_cast<char>(record.state);
    bytes += static_cast<char>('0' + (record.holder.empty() ? 0 : 1) +
                               (record.takeover && !completed ? 2 : 0) + (marked ? 4 : 0));
    if (completed) {
        bytes.append(record.nonce, 0, redis_completed_nonce);
        append_big_endian(bytes, static_cast<std::uint64_t>(record.grace.count()) / 1'000, 4);
        if (marked) {
            append_redis_fingerprint(bytes, record.fingerprint);
        }
    } else {
        bytes += record.nonce;
        append_redis_fingerprint(bytes, record.fingerprint);
        append_big_endian(bytes, static_cast<std::uint64_t>(record.grace.count()), 5);
        append_big_endian(bytes, record.attempts, 4);
        append_big_endian(bytes, record.fence, 8);
    }
    bytes += record.holder;
    bytes += record.text;
    return bytes;
}

/// Nothing where the bytes are no record of this format.
[[nodiscard]] inline std::optional<RedisRecord> unpack_redis_record(std::string_view bytes) {
    if (bytes.size() < redis_completed_header || !bytes.starts_with(redis_format) ||
        std::string_view("PFCKDLT").find(bytes[2]) == std::string_view::npos || bytes[3] < '0' ||
        bytes[3] > '7') {
        return {};
    }
    RedisRecord record{.state = static_cast<RedisState>(bytes[2])};
    const bool completed = record.state == RedisState::completed;
    const auto form = static_cast<unsigned>(bytes[3] - '0');
    const bool held = (form & 1U) != 0, marked = (form & 4U) != 0;
    const std::size_t fixed =
        completed ? redis_completed_header + (marked ? redis_fingerprint : 0) : redis_header;
    const std::size_t text = fixed + (held ? redis_holder : 0);
    if (bytes.size() < text || (form & (completed ? 2U : 4U)) != 0) {
        return {};
    }
    if (completed) {
        record.nonce = bytes.substr(4, redis_completed_nonce);
        record.grace = std::chrono::seconds(big_endian(bytes.substr(10, 4)));
        record.attempts = 0;
        if (marked) {
            record.fingerprint = redis_fingerprint_of(bytes.substr(redis_completed_header));
        }
    } else {
        record.takeover = (form & 2U) != 0;
        record.nonce = bytes.substr(4, 16);
        record.fingerprint = redis_fingerprint_of(bytes.substr(20));
        record.grace = milliseconds(big_endian(bytes.substr(40, 5)));
        record.attempts = static_cast<std::uint32_t>(big_endian(bytes.substr(45, 4)));
        record.fence = big_endian(bytes.substr(49, 8));
    }
    record.holder = bytes.substr(fixed, text - fixed);
    record.text = bytes.substr(text);
    return record;
}

/// Whether the bytes begin as a record of a later release does: I2 … I9.
[[nodiscard]] inline bool is_newer_redis_record(std::string_view bytes) noexcept {
    return bytes.size() > 2 && bytes[0] == 'I' && bytes[1] > redis_format[1] && bytes[1] <= '9';
}

/// The Redis key of a message: prefix:{tag}scope size:scope:id. The sizes make it unambiguous, the
/// id is whole, so that no collision can lose a message. The tag, which a cluster hashes instead of
/// the key, comes before everything of the user's, for ids may hold braces (semantics.md 4.8).
[[nodiscard]] inline std::string redis_key(std::string_view prefix, const Key& key) {
    std::string named = std::to_string(key.scope.size());
    named += ':';
    named += key.scope;
    named += ':';
    named += key.id;
    std::string tag;
    append_big_endian(tag, siphash128(named, 0x72656469'732d6b65, 0x79207461'672d7631).high, 3);
    std::string full;
    full.reserve(prefix.size() + named.size() + 9);
    full += prefix;
    full += ":{";
    full += hexadecimal(tag);
    full += '}';
    full += named;
    return full;
}

/// Who holds a token: 128 bits of the message's id.
[[nodiscard]] inline std::string redis_holder_of(std::string_view id) {
    const auto digest = siphash128(id, 0x746f6b65'6e2d686f, 0x6c646572'2d763031);
    std::string bytes;
    append_big_endian(bytes, digest.high, 8);
    append_big_endian(bytes, digest.low, 8);
    return bytes;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_RECORD_HPP
