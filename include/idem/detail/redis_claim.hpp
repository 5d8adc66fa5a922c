// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_CLAIM_HPP
#define IDEM_DETAIL_REDIS_CLAIM_HPP

// One claim against Redis: what is sent, and what the answers mean. Sends nothing itself, so that
// any number of claims share a pipeline.

#include <idem/dedup_store.hpp>
#include <idem/detail/hiredis.hpp>
#include <idem/detail/redis_record.hpp>
#include <idem/detail/redis_record_scripts.hpp>
#include <idem/outcome.hpp>

#include <array>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0::detail {

/// A key for an error text: what is not printable as \xNN, and not more than a line of it.
[[nodiscard]] inline std::string printable_redis_key(std::string_view key) {
    std::string text;
    for (const char byte : key.substr(0, 120)) {
        if (byte >= ' ' && byte <= '~' && byte != '\\') {
            text += byte;
        } else {
            text += "\\x" + hexadecimal({&byte, 1});
        }
    }
    return key.size() > 120 ? text + "…" : text;
}

/// Proof of a won claim. Opaque to others.
struct RedisTicket {
    std::string key;    ///< of Redis
    std::string record; ///< its exact bytes while the claim stands
    std::uint64_t fence = 0;
};

/// Throws: std::invalid_argument where lease or retention is not within what a record holds.
inline void require_redis_times(milliseconds lease, milliseconds retention, const char* name) {
    if (lease <= milliseconds{0}) {
        throw std::invalid_argument(std::string("idem: ") + name + " must be greater than 0");
    }
    if (retention <= milliseconds{0}) {
        throw std::invalid_argument("idem: retention must be greater than 0");
    }
    if (lease > longest_redis_life || retention > longest_redis_life - lease) {
        throw std::invalid_argument(
            std::string("idem: ") + name + " and retention are together longer than " +
            std::to_string(longest_redis_life.count()) + " ms, the limit of the Redis stores");
    }
}

class RedisClaim {
public:
    using Answer = Claim<RedisTicket>;

    /// `nonce`: drawn for this claim alone. Every sending of it carries the same.
    /// Throws: std::invalid_argument for a key, token, lease or retention past the limits.
    RedisClaim(std::string_view prefix, const ClaimRequest& request, std::string_view nonce)
        : needs_issue_(!request.token.empty() && !request.token_may_be_new) {
        require_valid(request.key);
        const bool by_token = !request.token.empty();
        if (by_token && request.token.size() > max_id) {
            throw std::invalid_argument("idem: token has " + std::to_string(request.token.size()) +
                                        " bytes; the limit is " + std::to_string(max_id));
        }
        require_redis_times(request.lease, request.retention, "lease");
        life_ = request.lease + request.retention;
        key_ = redis_key(prefix, {request.key.scope, by_token ? request.token : request.key.id});
        record_ = {.nonce = std::string(nonce),
                   .fingerprint = request.fingerprint,
                   .grace = request.retention};
        if (by_token) {
            record_.holder = redis_holder_of(request.key.id);
        }
        packed_ = pack_redis_record(record_);
        px_ = std::to_string(life_.count());
        limit_ = std::to_string(request.max_attempts);
    }

    /// The common case in one write: SET NX GET PX makes the record or answers the one in the way,
    /// PEXPIRETIME tells the server's time. False, and nothing added: only the script will do.
    [[nodiscard]] bool append_plain(RedisPipeline& pipeline) const {
        if (needs_issue_) {
            return false;
        }
        pipeline.append({"SET", key_, packed_, "NX", "GET", "PX", px_});
        pipeline.append({"PEXPIRETIME", key_});
        return true;
    }
    /// Nothing: the record in the way needs the script.
    /// Throws: StoreError unavailable or rejected.
    [[nodiscard]] std::optional<Answer>
    read_plain(const std::string& where, RedisValue found, RedisValue expiry) const {
        refuse_error(where, found);
        refuse_error(where, expiry);
        if (found.is_nil()) {
            return claimed(packed_, record_, require_expiry(where, expiry));
        }
        const auto record = read_record(where, found.text());
        if (record.state == RedisState::in_progress && record.nonce == record_.nonce) {
            return claimed(std::string(found.text()), record, require_expiry(where, expiry));
        }
        if (record.state == RedisState::completed) {
            return completed(record, expiry.integer());
        }
        return {};
    }

    /// The arguments of redis_claim_script.
    [[nodiscard]] std::array<std::string_view, 5> script_arguments() const {
        return {key_, packed_, px_, limit_, needs_issue_ ? "0" : "1"};
    }
    /// Throws: StoreError unavailable or rejected.
    [[nodiscard]] Answer read_script(const std::string& where, RedisValue answer) const {
        refuse_error(where, answer);
        if (answer.is_integer()) {
            return claimed(packed_, record_, require_expiry(where, answer));
        }
        if (!answer.is_array()) {
            static_cast<void>(read_record(where, answer.text()));
        }
        const auto kind = answer[0].text();
        switch (kind.empty() ? '?' : kind.front()) {
        case 'T': {
            std::string ticket(answer[1].text());
            const auto record = read_record(where, ticket);
            return claimed(std::move(ticket), record, answer[2].integer());
        }
        case 'P':
            return InProgress{milliseconds(answer[1].integer())};
        case 'C':
            return completed(read_record(where, answer[1].text()), answer[2].integer());
        case 'X':
            return Conflict{};
        case 'D':
            return Dead{static_cast<unsigned>(answer[1].integer())};
        case 'K':
            return Parked{};
        case 'U':
            return Refused{reason::token_unknown};
        case 'S':
            return Refused{reason::token_spent};
        case 'E':
            return Refused{reason::token_expired};
        default:
            throw StoreError(Fault::rejected, "idem: Redis at " + where + ": unknown answer");
        }
    }
    [[nodiscard]] const std::string& key() const noexcept { return key_; }

private:
    void refuse_error(const std::string& where, RedisValue answer) const {
        if (answer.is_error()) {
            throw redis_error(where + " (key " + printable_redis_key(key_) + ")", answer.text());
        }
    }
    /// Its expiry as the server's time. A key that is gone in the same write was flushed.
    [[nodiscard]] long long require_expiry(const std::string& where, RedisValue expiry) const {
        if (expiry.integer() <= 0) {
            throw StoreError(Fault::unavailable,
                             "idem: Redis at " + where +
                                 " lost the record at once; look for a "
                                 "FLUSH, or for other programs that write below the prefix");
        }
        return expiry.integer();
    }
    [[nodiscard]] RedisRecord read_record(const std::string& where, std::string_view bytes) const {
        if (auto record = unpack_redis_record(bytes)) {
            return std::move(*record);
        }
        const std::string what = "idem: Redis at " + where + ": key " + printable_redis_key(key_);
        if (is_newer_redis_record(bytes)) {
            throw StoreError(Fault::unavailable,
                             what + " was written by a newer release of idem; upgrade this one");
        }
        throw StoreError(Fault::rejected,
                         what + " holds something that is not a record of idem and is left as it "
                                "is; choose another prefix");
    }
    [[nodiscard]] Answer
    claimed(std::string bytes, const RedisRecord& record, long long expiry) const {
        const auto made = static_cast<std::uint64_t>(expiry - life_.count());
        const std::uint64_t fence = record.fence != 0 ? record.fence : made * 1'000;
        return Claimed<RedisTicket>{.ticket = {key_, std::move(bytes), fence},
                                    .attempt = record.attempts,
                                    .fence = fence,
                                    .takeover = record.takeover};
    }
    [[nodiscard]] Answer completed(const RedisRecord& record, long long expiry) const {
        if (!record_.holder.empty() && record.holder != record_.holder) {
            return Refused{reason::token_spent};
        }
        if (record.fingerprint.conflicts_with(record_.fingerprint)) {
            return Conflict{};
        }
        // By our clock against the server's: good enough to tell an age in days from the retention.
        const auto now = std::chrono::floor<milliseconds>(std::chrono::system_clock::now());
        const auto age = now.time_since_epoch() - (milliseconds(expiry) - record.grace);
        return Completed{.result = record.text,
                         .age = age > milliseconds{0} ? age : milliseconds{0}};
    }

    bool needs_issue_;
    milliseconds life_{0};
    std::string key_, packed_, px_, limit_;
    RedisRecord record_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_CLAIM_HPP
