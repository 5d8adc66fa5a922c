// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_MEMORY_RULES_HPP
#define IDEM_DETAIL_MEMORY_RULES_HPP

// The rules by which a record of the memory store changes.

#include <idem/dedup_store.hpp>
#include <idem/detail/memory_shard.hpp>
#include <idem/settlement.hpp>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Names one claim of one key: the place by the hash, the claim by the fence, which no other claim
/// in that place ever has, whatever the slot holds by then.
struct MemoryTicket {
    std::uint64_t hash = 0, fence = 0;
};

/// A record's rules, under its shard's lock.
class MemoryRules {
    using Place = MemoryTable::Place;
    using State = MemoryState;

public:
    MemoryRules(MemoryShard& shard, const MemoryMoment& now) noexcept : shard_(shard), now_(now) {}

    /// Why a key cannot be taken; none where it can.
    [[nodiscard]] std::optional<Claim<MemoryTicket>> refusal(const MemorySlot& slot,
                                                             const ClaimRequest& request) const {
        const auto state = slot.state();
        const bool issued = state == State::issued;
        if (issued && slot.until() < now_.below) {
            return Refused{reason::token_expired};
        }
        const auto parts = slot.extra() != nullptr ? slot.extra()->parts() : MemoryParts{};
        if (!request.token.empty() && !issued && parts.holder != request.key.id) {
            return Refused{reason::token_spent};
        }
        if (state == State::in_progress && slot.until() > now_.below) {
            const auto left = slot.until() > now_.above ? slot.until() - now_.above : 1;
            return InProgress{milliseconds(left)};
        }
        if (request.fingerprint.conflicts_with(parts.fingerprint)) {
            return Conflict{};
        }
        if (slot.is_completed()) {
            const auto age = now_.below > slot.until() ? now_.below - slot.until() : 0;
            return Completed{std::string(result_of(slot, parts)), milliseconds(age)};
        }
        if (state == State::parked) {
            return Parked{};
        }
        if (request.max_attempts > 0 && slot.attempts() >= request.max_attempts) {
            return Dead{slot.attempts()};
        }
        return {};
    }
    [[nodiscard]] Claimed<MemoryTicket> take(const Place& place, const ClaimRequest& request) {
        const bool takeover = place->state() == State::in_progress;
        bind(place, request);
        place->set_attempts(place->attempts() + 1);
        place->set_fence(shard_.next_fence());
        place->set_state(State::in_progress);
        place->set_lease(now_, request.lease);
        place->set_retention(request.retention);
        shard_.note_end(place);
        return {ticket_of(*place), place->attempts(), place->fence(), takeover};
    }
    /// Throws: std::invalid_argument for a result of 4 GiB, std::bad_alloc; nothing changed then.
    [[nodiscard]] TicketState complete(const Place& place, std::string_view result) {
        if (place->is_completed()) {
            const auto parts = place->extra() != nullptr ? place->extra()->parts() : MemoryParts{};
            return result_of(*place, parts) == result ? TicketState::valid : TicketState::outdated;
        }
        if (place->state() != State::in_progress) {
            return TicketState::outdated;
        }
        const bool nul = result.size() == 1 && result.front() == '\0';
        if (!result.empty() && !nul) {
            keep_result(place, result);
        }
        return change(place, nul ? State::completed_with_nul : State::completed);
    }
    [[nodiscard]] TicketState renew(const Place& place, milliseconds lease) noexcept {
        if (place->state() != State::in_progress) {
            return TicketState::outdated;
        }
        place->set_lease(now_, lease);
        shard_.note_end(place);
        return TicketState::valid;
    }
    [[nodiscard]] TicketState give_back(const Place& place, bool refund) noexcept {
        if (place->state() != State::in_progress) {
            return TicketState::outdated;
        }
        if (refund) {
            place->set_attempts(place->attempts() - 1); // which it has room for
        }
        return change(place, State::free);
    }
    [[nodiscard]] TicketState park(const Place& place) noexcept {
        return place->state() == State::in_progress ? change(place, State::parked)
                                                    : TicketState::outdated;
    }
    void issue(const Place& place, seconds ttl, seconds remembered) noexcept {
        place->set_state(State::issued);
        place->set_lease(now_, ttl < a_lifetime ? ttl : a_lifetime);
        place->set_retention(remembered);
        shard_.note_end(place);
    }

private:
    static constexpr seconds a_lifetime = std::chrono::hours{24 * 365 * 100};

    static std::string_view nul_text() noexcept { return {"\0", 1}; }
    static std::string_view result_of(const MemorySlot& slot, const MemoryParts& parts) noexcept {
        return slot.state() == State::completed_with_nul ? nul_text() : parts.result;
    }
    static MemoryTicket ticket_of(const MemorySlot& slot) noexcept {
        return {slot.hash(), slot.fence()};
    }
    /// The fingerprint binds where there is none yet, the holder of a token with its first redeem.
    void bind(const Place& place, const ClaimRequest& request) {
        const bool unbound =
            request.fingerprint.algorithm != 0 &&
            (place->extra() == nullptr || place->extra()->parts().fingerprint.algorithm == 0);
        const bool redeems =
            !request.token.empty() &&
            (place->extra() == nullptr || place->extra()->parts().holder != request.key.id);
        if (unbound || redeems) {
            shard_.change_extra(place, [&](MemoryParts& parts) {
                parts.fingerprint = unbound ? request.fingerprint : parts.fingerprint;
                parts.holder = redeems ? request.key.id : parts.holder;
            });
        }
    }
    void keep_result(const Place& place, std::string_view result) {
        if (result.size() > 0xffff'ffffU) {
            throw std::invalid_argument("idem: the result has " + std::to_string(result.size()) +
                                        " bytes; the limit of MemoryStore is 4294967295");
        }
        shard_.change_extra(place, [&](MemoryParts& parts) { parts.result = result; });
    }
    TicketState change(const Place& place, State state) noexcept {
        place->set_state(state);
        place->set_until(now_.above);
        shard_.note_end(place);
        return TicketState::valid;
    }

    MemoryShard& shard_;
    MemoryMoment now_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_MEMORY_RULES_HPP
