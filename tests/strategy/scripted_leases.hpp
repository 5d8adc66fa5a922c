// SPDX-License-Identifier: MIT
// Lease stores over MemoryStore, by virtual time, that record what they are asked and fail where
// their script says. Three of them, with more powers each.

#pragma once

#include <idem/store/memory.hpp>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "strategy/script.hpp"
#include "strategy/virtual_clock.hpp"

/// What every DedupStore has, and no more.
class PlainLeases {
public:
    using Memory = idem::BasicMemoryStore<VirtualClock>;
    using Clock = VirtualClock;
    using Ticket = Memory::Ticket;

    idem::Claim<Ticket> claim(const idem::ClaimRequest& request) {
        return script.run("claim", nullptr, [&] { return memory.claim(request); });
    }
    idem::TicketState complete(const Ticket& ticket, std::string_view result) {
        return script.run("complete", nullptr, [&] { return memory.complete(ticket, result); });
    }
    void abandon(const Ticket& ticket, std::string_view why) noexcept {
        script.run("abandon", nullptr, [&] { memory.abandon(ticket, why); });
    }

    /// How often the key's handler was charged: a claim by a test's own hand, given back uncharged.
    [[nodiscard]] unsigned attempts(const std::string& scope, const std::string& id) {
        auto claim = memory.claim({.key = {scope, id}});
        const auto* mine = std::get_if<0>(&claim);
        if (mine == nullptr) {
            return 0;
        }
        const auto attempt = mine->attempt;
        memory.refund(mine->ticket);
        return attempt - 1;
    }

    Script script;
    Memory memory;
};

/// Refunds, parks, and takes batches.
class PowerfulLeases : public PlainLeases {
public:
    using PlainLeases::claim, PlainLeases::complete;

    void refund(const Ticket& ticket) noexcept {
        script.run("refund", nullptr, [&] { memory.refund(ticket); });
    }
    idem::TicketState park(const Ticket& ticket, std::string_view why) {
        return script.run("park", nullptr, [&] { return memory.park(ticket, why); });
    }
    std::vector<idem::Claim<Ticket>> claim(std::span<const idem::ClaimRequest> requests) {
        return script.run("claim_all", nullptr, [&] { return memory.claim(requests); });
    }
    std::vector<idem::TicketState> complete(std::span<const Ticket> tickets,
                                            std::span<const std::string> results) {
        return script.run(
            "complete_all", nullptr, [&] { return memory.complete(tickets, results); });
    }
    std::string issue(std::string_view scope, idem::seconds ttl, const idem::Fingerprint& intent) {
        return script.run("issue", nullptr, [&] { return memory.issue(scope, ttl, intent); });
    }
};

/// Renews too, from the heartbeat's thread.
class BeatingLeases : public PowerfulLeases {
public:
    idem::TicketState renew(const Ticket& ticket, idem::milliseconds lease) {
        return script.run("renew", nullptr, [&] { return memory.renew(ticket, lease); });
    }
    [[nodiscard]] idem::Heartbeat<BeatingLeases>& heartbeat() noexcept { return heartbeat_; }

private:
    idem::Heartbeat<BeatingLeases> heartbeat_{*this};
};

static_assert(idem::DedupStore<PlainLeases> && !idem::RefundingStore<PlainLeases> &&
              !idem::ParkingStore<PlainLeases> && !idem::BatchStore<PlainLeases>);
static_assert(idem::RefundingStore<PowerfulLeases> && idem::ParkingStore<PowerfulLeases> &&
              idem::BatchStore<PowerfulLeases> && idem::TokenStore<PowerfulLeases> &&
              !idem::RenewableStore<PowerfulLeases>);
static_assert(idem::BeatingStore<BeatingLeases>);
