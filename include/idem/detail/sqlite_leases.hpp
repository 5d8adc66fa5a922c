// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_LEASES_HPP
#define IDEM_DETAIL_SQLITE_LEASES_HPP

// What the owner of a lease does with its record: completes, renews, gives back, parks it.

#include <idem/detail/sqlite_lease_claim.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0::detail {

/// The leases over one table. Each member is one transaction.
class SqliteLeases {
public:
    using Ticket = SqliteTicket;

    explicit SqliteLeases(SqliteCore& core) : core_(core), sql_(core.options().table) {}

    /// Throws: StoreError: then none was won; std::invalid_argument, std::logic_error.
    std::vector<Claim<Ticket>> claim(std::span<const ClaimRequest> requests) {
        core_.require_same_process();
        require_sqlite_claimable(requests);
        return requests.empty() ? std::vector<Claim<Ticket>>{}
                                : SqliteLeaseClaim(core_, sql_, requests).run();
    }

    /// `result(i)`: of ticket i.
    /// Throws: StoreError, in_doubt where it may have happened.
    template <class ResultOf>
    std::vector<TicketState> complete(std::span<const Ticket> tickets, const ResultOf& result) {
        std::vector<TicketState> states(tickets.size(), TicketState::outdated);
        if (tickets.empty()) {
            return states;
        }
        const auto stands = [&](SqliteSession& session, std::size_t at) {
            return stands_as(session, tickets[at], SqliteState::completed, result(at));
        };
        sqlite_step(
            core_,
            [&](SqliteSession& session) {
                const auto now = core_.now();
                for (std::size_t at = 0; at < tickets.size(); ++at) {
                    const auto retention = sqlite_span(tickets[at].retention).count();
                    const bool done = change(
                        session, sql_.complete, tickets[at], now, retention, blob_of(result(at)));
                    if (done || stands(session, at)) { // an earlier try may have been carried out
                        states[at] = TicketState::valid;
                    }
                }
            },
            [&](SqliteSession& session) {
                bool all = true;
                for (std::size_t at = 0; at < tickets.size(); ++at) {
                    all = all && (states[at] == TicketState::outdated || stands(session, at));
                }
                return all;
            },
            Fault::in_doubt);
        return states;
    }

    /// Throws: StoreError.
    TicketState renew(const Ticket& ticket, milliseconds lease) {
        const auto length = sqlite_span_of_lease(lease);
        Timestamp now;
        bool done = false;
        sqlite_step(
            core_,
            [&](SqliteSession& session) {
                now = core_.now();
                done = change(session, sql_.renew, ticket, now, length.count());
            },
            [&](SqliteSession& session) {
                const auto record = core_.records().find(session, ticket.key());
                return !done || (record && record->owner == ticket.nonce &&
                                 record->lease_until == sqlite_millis(now + length));
            },
            Fault::in_doubt);
        return done ? TicketState::valid : TicketState::outdated;
    }
    void give_back(const Ticket& ticket, std::string_view why, bool refund) noexcept {
        try {
            sqlite_step(
                core_,
                [&](SqliteSession& session) {
                    change(session,
                           sql_.give_back,
                           ticket,
                           core_.now(),
                           sqlite_span(ticket.retention).count(),
                           refund ? 1 : 0,
                           ticket.max_attempts,
                           sqlite_note(why));
                },
                [](SqliteSession&) { return true; },
                Fault::in_doubt);
        } catch (...) { // NOLINT(bugprone-empty-catch): best effort, the lease ends by itself
        }
    }
    /// Throws: StoreError.
    TicketState park(const Ticket& ticket, std::string_view why) {
        bool valid = false;
        const auto stands = [&](SqliteSession& session) {
            return stands_as(session, ticket, SqliteState::parked, {});
        };
        sqlite_step(
            core_,
            [&](SqliteSession& session) {
                valid = change(session,
                               sql_.park,
                               ticket,
                               core_.now(),
                               sqlite_span(ticket.retention).count(),
                               sqlite_note(why)) ||
                        stands(session);
            },
            [&](SqliteSession& session) { return !valid || stands(session); },
            Fault::in_doubt);
        return valid ? TicketState::valid : TicketState::outdated;
    }

    /// Throws: StoreError; std::invalid_argument.
    std::string issue(std::string_view scope, seconds ttl, const Fingerprint& intent) {
        require_ttl(ttl);
        auto token = fresh_token();
        require_valid({scope, token});
        constexpr seconds remembered{604'800};
        const auto digest = sqlite_fingerprint_bytes(intent);
        sqlite_step(
            core_,
            [&](SqliteSession& session) {
                const auto now = core_.now();
                SqliteCall(session,
                           sql_.issue,
                           blob_of(scope),
                           blob_of(token),
                           blob_of({digest.data(), digest.size()}),
                           intent.algorithm,
                           sqlite_millis(now),
                           sqlite_millis(now + sqlite_span(ttl) + remembered),
                           sqlite_millis(now + sqlite_span(ttl)))
                    .finish();
            },
            [&](SqliteSession& session) {
                return core_.records().find(session, {scope, token}).has_value();
            },
            Fault::unavailable); // in doubt or not, nobody knows the token
        return token;
    }

private:
    /// Whether the ticket's own record was changed.
    template <class Sql, class... More>
    static bool change(SqliteSession& session,
                       const Sql& sql,
                       const Ticket& ticket,
                       Timestamp now,
                       const More&... more) {
        const int before = sqlite3_total_changes(session.native());
        SqliteCall(session,
                   sql,
                   blob_of(ticket.scope),
                   blob_of(ticket.id),
                   blob_of(ticket.nonce),
                   static_cast<std::int64_t>(ticket.fence),
                   sqlite_millis(now),
                   more...)
            .finish();
        return sqlite3_total_changes(session.native()) != before;
    }
    /// Whether the record stands in `state` under the ticket's own nonce, with this result.
    bool stands_as(SqliteSession& session,
                   const Ticket& ticket,
                   SqliteState state,
                   std::string_view result) const {
        const auto record = core_.records().find(session, ticket.key());
        return record && record->format <= sqlite_record_format && record->state == state &&
               record->owner == ticket.nonce &&
               record->fence == static_cast<std::int64_t>(ticket.fence) && record->result == result;
    }

    SqliteCore& core_;
    SqliteLeaseStatements sql_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_LEASES_HPP
