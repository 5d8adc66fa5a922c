// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_MEMORY_SHARD_HPP
#define IDEM_DETAIL_MEMORY_SHARD_HPP

// A part of the memory store's records, under one lock, and the rules by which they change.

#include <idem/dedup_store.hpp>
#include <idem/outcome.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0::detail {

/// The scope's length first, so that no two keys make one text. max_scope fits in a byte.
inline std::string memory_key(std::string_view scope, std::string_view id) {
    std::string key;
    key.reserve(1 + scope.size() + id.size());
    key += static_cast<char>(scope.size());
    key += scope;
    key += id;
    return key;
}

/// Names one claim of one key.
struct MemoryTicket {
    std::string key;
    std::uint64_t fence = 0;
    seconds retention{0};
};

template <class Clock>
class MemoryShard {
public:
    using Time = typename Clock::time_point;
    struct Record;
    using ByExpiry = std::multimap<Time, Record*>;
    enum class State : std::uint8_t { issued, free, in_progress, completed, parked };

    struct Record {
        const std::string* key = nullptr; // the map's own
        State state = State::free;
        Fingerprint fingerprint{};
        std::uint64_t fence = 0;
        unsigned attempts = 0;
        Time lease_until{}; // of an issued token: the last moment of its first redeem
        Time changed{};
        std::string result{};
        std::string holder{}; // of a token: the id that redeemed it
        typename ByExpiry::iterator expiry{};
    };

    mutable std::mutex mutex; // held by the store around every call below

    /// `total` counts the records of all shards: raised by the store, lowered here.
    void count_in(std::atomic<std::size_t>& total) noexcept { total_ = &total; }
    [[nodiscard]] std::size_t size() const noexcept { return records_.size(); }

    /// The record of a key, unless it is past its retention.
    [[nodiscard]] Record* find(const std::string& key, Time now) {
        const auto at = records_.find(key);
        if (at == records_.end()) {
            return nullptr;
        }
        if (at->second.expiry->first <= now) {
            drop(at->second);
            return nullptr;
        }
        return &at->second;
    }
    [[nodiscard]] Record& add(const std::string& key, const Fingerprint& fingerprint) {
        const auto at = records_.try_emplace(key).first;
        auto& record = at->second;
        record.key = &at->first;
        record.fingerprint = fingerprint;
        record.expiry = by_expiry_.emplace(Time::max(), &record);
        return record;
    }
    /// Two at most, so that no claim pays for many, and none is left behind for long. False: none.
    bool drop_expired(Time now) {
        int dropped = 0;
        for (; dropped < 2 && !by_expiry_.empty() && by_expiry_.begin()->first <= now; ++dropped) {
            drop(*by_expiry_.begin()->second);
        }
        return dropped > 0;
    }
    /// Drops the completed record nearest to its end. False: there is none.
    bool evict() {
        for (const auto& [expiry, record] : by_expiry_) {
            if (record->state == State::completed) {
                drop(*record);
                return true;
            }
        }
        return false;
    }

    /// Why a key cannot be taken; none where it can.
    [[nodiscard]] std::optional<Claim<MemoryTicket>>
    refusal(const Record& record, const ClaimRequest& request, Time now) const {
        const bool issued = record.state == State::issued;
        if (issued && record.lease_until < now) {
            return Refused{reason::token_expired};
        }
        if (!request.token.empty() && !issued && record.holder != request.key.id) {
            return Refused{reason::token_spent};
        }
        if (record.state == State::in_progress && record.lease_until > now) {
            return InProgress{std::chrono::ceil<milliseconds>(record.lease_until - now)};
        }
        if (request.fingerprint.conflicts_with(record.fingerprint)) {
            return Conflict{};
        }
        if (record.state == State::completed) {
            return Completed{record.result,
                             std::chrono::duration_cast<milliseconds>(now - record.changed)};
        }
        if (record.state == State::parked) {
            return Parked{};
        }
        if (request.max_attempts > 0 && record.attempts >= request.max_attempts) {
            return Dead{record.attempts};
        }
        return {};
    }
    [[nodiscard]] Claimed<MemoryTicket>
    take(Record& record, const ClaimRequest& request, Time now, std::uint64_t fence) {
        const bool takeover = record.state == State::in_progress;
        record.state = State::in_progress;
        record.fence = fence;
        record.attempts += 1;
        record.changed = now;
        record.lease_until = now + request.lease;
        if (record.fingerprint.algorithm == 0) {
            record.fingerprint = request.fingerprint;
        }
        if (!request.token.empty()) {
            record.holder = request.key.id;
        }
        keep_until(record, record.lease_until + request.retention);
        return {{*record.key, fence, request.retention}, record.attempts, fence, takeover};
    }

    [[nodiscard]] TicketState
    complete(Record& record, const MemoryTicket& ticket, std::string_view result, Time now) {
        if (record.state == State::completed) {
            const bool repeated = record.fence == ticket.fence && record.result == result;
            return repeated ? TicketState::valid : TicketState::outdated;
        }
        if (!owns(ticket, record)) {
            return TicketState::outdated;
        }
        record.result = result;
        return change(record, State::completed, ticket, now);
    }
    [[nodiscard]] TicketState
    renew(Record& record, const MemoryTicket& ticket, milliseconds lease, Time now) {
        if (!owns(ticket, record)) {
            return TicketState::outdated;
        }
        record.lease_until = now + lease;
        keep_until(record, record.lease_until + ticket.retention);
        return TicketState::valid;
    }
    [[nodiscard]] TicketState
    give_back(Record& record, const MemoryTicket& ticket, bool refund, Time now) {
        if (!owns(ticket, record)) {
            return TicketState::outdated;
        }
        record.attempts -= refund ? 1 : 0;
        return change(record, State::free, ticket, now);
    }
    [[nodiscard]] TicketState park(Record& record, const MemoryTicket& ticket, Time now) {
        return owns(ticket, record) ? change(record, State::parked, ticket, now)
                                    : TicketState::outdated;
    }
    void issue(Record& record, seconds ttl, seconds remembered, Time now) {
        record.state = State::issued;
        record.changed = now;
        record.lease_until = now + ttl;
        keep_until(record, record.lease_until + remembered);
    }

private:
    static bool owns(const MemoryTicket& ticket, const Record& record) noexcept {
        return record.state == State::in_progress && record.fence == ticket.fence;
    }
    TicketState change(Record& record, State state, const MemoryTicket& ticket, Time now) {
        record.state = state;
        record.changed = now;
        keep_until(record, now + ticket.retention);
        return TicketState::valid;
    }
    void keep_until(Record& record, Time end) {
        auto node = by_expiry_.extract(record.expiry);
        node.key() = end;
        record.expiry = by_expiry_.insert(std::move(node));
    }
    void drop(Record& record) {
        by_expiry_.erase(record.expiry);
        records_.erase(records_.find(*record.key));
        --*total_;
    }

    std::map<std::string, Record> records_;
    ByExpiry by_expiry_;
    std::atomic<std::size_t>* total_ = nullptr;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_MEMORY_SHARD_HPP
