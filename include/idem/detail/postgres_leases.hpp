// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_LEASES_HPP
#define IDEM_DETAIL_POSTGRES_LEASES_HPP

// What the owner of a lease does with its record: completes, renews, gives back, parks it.

#include <idem/detail/postgres_lease_claim.hpp>
#include <idem/detail/postgres_work.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

class PostgresLeases {
public:
    using Ticket = PostgresTicket;

    explicit PostgresLeases(PostgresCore& core) : core_(core), sql_(core.options().table) {}

    /// Throws: StoreError, with what was won given back; std::invalid_argument, std::logic_error.
    std::vector<Claim<Ticket>> claim(std::span<const ClaimRequest> requests) {
        require_claimable(requests);
        std::vector<Claim<Ticket>> answers;
        answers.reserve(requests.size());
        while (answers.size() < requests.size()) {
            const auto size = std::min(requests.size() - answers.size(), PostgresWork::most_keys);
            PostgresLeaseClaim chunk(core_, sql_, requests.subspan(answers.size(), size));
            try {
                chunk.run();
            } catch (...) {
                for (const auto& answer : answers) {
                    if (const auto* won = std::get_if<0>(&answer)) {
                        give_back(won->ticket, {}, true);
                    }
                }
                for (const auto& ticket : chunk.won()) {
                    give_back(ticket, {}, true);
                }
                throw;
            }
            for (auto& answer : chunk.answers()) {
                answers.push_back(std::move(answer));
            }
        }
        return answers;
    }

    /// `result(i)`: of ticket i.
    /// Throws: StoreError, in_doubt where it may have happened.
    template <class ResultOf>
    std::vector<TicketState> complete(std::span<const Ticket> tickets, const ResultOf& result) {
        std::vector<TicketState> states;
        states.reserve(tickets.size());
        for (std::size_t from = 0; from < tickets.size(); from += PostgresWork::most_keys) {
            const auto size = std::min(tickets.size() - from, PostgresWork::most_keys);
            complete_some(
                tickets.subspan(from, size),
                [&](std::size_t at) { return std::string_view(result(from + at)); },
                states);
        }
        return states;
    }

    /// On a connection of its own. Throws: StoreError.
    TicketState renew(const Ticket& ticket, milliseconds lease) {
        auto statement = of_ticket(sql_.renew, ticket);
        statement.parameters.push_back(number_parameter(lease_seconds(lease)));
        const auto leg = core_.run_alone({statement}, core_.renewals(), core_.options().deadline);
        require_answered(leg, "renewing a lease");
        return PQntuples(leg.results[0].get()) == 1 ? TicketState::valid : TicketState::outdated;
    }
    void give_back(const Ticket& ticket, std::string_view why, bool refund) noexcept {
        try {
            auto statement = of_ticket(sql_.give_back, ticket);
            statement.parameters.push_back(number_parameter(retention_seconds(ticket.retention)));
            statement.parameters.push_back(number_parameter(refund ? 1 : 0));
            statement.parameters.push_back(
                number_parameter(static_cast<std::int32_t>(ticket.max_attempts)));
            statement.parameters.push_back({.value = plain_note(why)});
            IDEM_FAILPOINT("postgres lease: before giving back");
            static_cast<void>(core_.run_alone({statement}));
        } catch (...) { // NOLINT(bugprone-empty-catch): best effort, the lease ends by itself
        }
    }
    /// Throws: StoreError.
    TicketState park(const Ticket& ticket, std::string_view why) {
        auto statement = of_ticket(sql_.park, ticket);
        statement.parameters.push_back(number_parameter(retention_seconds(ticket.retention)));
        statement.parameters.push_back({.value = plain_note(why)});
        const auto leg = core_.run_alone({statement});
        require_answered(leg, "parking a key");
        if (PQntuples(leg.results[0].get()) == 1) {
            return TicketState::valid;
        }
        return stands_as(
                   std::span(&ticket, 1), PostgresState::parked, [](auto&&...) { return true; })
            .front();
    }

    /// Throws: StoreError; std::invalid_argument.
    std::string issue(std::string_view scope, seconds ttl, const Fingerprint& intent) {
        require_ttl(ttl);
        auto token = fresh_token();
        require_valid({scope, token});
        const auto leg = core_.run_alone({{sql_.issue,
                                           {number_parameter(retention_seconds(ttl)),
                                            algorithm_parameter(intent),
                                            bytes_parameter(scope),
                                            bytes_parameter(token),
                                            fingerprint_parameter(intent)}}});
        if (!leg.ok()) { // in doubt or not, nobody knows the token
            throw StoreError(leg.link_lost ? Fault::unavailable : fault_of(leg.sqlstate),
                             explained(leg.sqlstate, leg.message, "issuing a token"));
        }
        return token;
    }

private:
    static void require_claimable(std::span<const ClaimRequest> requests) {
        for (const auto& request : requests) {
            require_valid(request.key);
            require_valid(filed_under(request));
        }
        std::vector<Key> keys;
        for (const auto& request : requests) {
            keys.push_back(filed_under(request));
        }
        auto pair_of = [](const Key& key) { return std::pair(key.scope, key.id); };
        std::sort(keys.begin(), keys.end(), [&](const Key& left, const Key& right) {
            return pair_of(left) < pair_of(right);
        });
        if (std::adjacent_find(keys.begin(), keys.end()) != keys.end()) {
            throw std::logic_error("idem: the keys of a batch must differ");
        }
    }
    /// For how long an update waits for a row.
    [[nodiscard]] PqParameter patience() const {
        return number_parameter((core_.options().deadline / 2).count());
    }
    [[nodiscard]] PqStatement of_ticket(const PqSql& sql, const Ticket& ticket) const {
        return {sql,
                {patience(),
                 bytes_parameter(ticket.scope),
                 bytes_parameter(ticket.id),
                 bytes_parameter(ticket.nonce),
                 number_parameter(static_cast<std::int64_t>(ticket.fence))},
                true};
    }
    /// Throws: StoreError.
    static void require_answered(const PqLeg& leg, std::string_view doing) {
        if (leg.ok()) {
            return;
        }
        const bool sent = leg.link_lost && !leg.failed;
        throw sent ? StoreError(Fault::in_doubt, explained(leg.sqlstate, leg.message, doing))
                   : store_error(leg.sqlstate, leg.message, doing);
    }

    template <class ResultOf>
    void complete_some(std::span<const Ticket> tickets,
                       const ResultOf& result,
                       std::vector<TicketState>& states) {
        const auto key_at = [&](std::size_t at) { return tickets[at].key(); };
        std::vector<std::size_t> places(tickets.size());
        std::iota(places.begin(), places.end(), std::size_t{0});
        places = in_key_order(std::move(places), key_at);
        std::vector<std::string_view> scopes, ids, owners, results;
        std::vector<std::int64_t> fences;
        std::vector<double> retentions;
        for (const auto at : places) {
            scopes.push_back(tickets[at].scope);
            ids.push_back(tickets[at].id);
            owners.push_back(tickets[at].nonce);
            results.push_back(result(at));
            fences.push_back(static_cast<std::int64_t>(tickets[at].fence));
            retentions.push_back(retention_seconds(tickets[at].retention));
        }
        IDEM_FAILPOINT("postgres lease: before complete");
        const auto leg = core_.run_alone({{sql_.complete,
                                           {patience(),
                                            bytes_array(scopes),
                                            bytes_array(ids),
                                            bytes_array(owners),
                                            number_array(fences),
                                            number_array(retentions),
                                            bytes_array(results)},
                                           true}});
        IDEM_FAILPOINT("postgres lease: after complete");
        require_answered(leg, "completing a key");
        std::vector<bool> done(tickets.size());
        match_rows(leg.results[0].get(), places, key_at, [&](std::size_t at, PqBinaryRow) {
            done[at] = true;
        });
        if (std::find(done.begin(), done.end(), false) == done.end()) {
            states.insert(states.end(), tickets.size(), TicketState::valid);
            return;
        }
        // An earlier try may have been carried out.
        const auto standing = stands_as(
            tickets, PostgresState::completed, [&](std::size_t at, const PostgresRecord& record) {
                return record.result == result(at);
            });
        for (std::size_t at = 0; at < tickets.size(); ++at) {
            states.push_back(done[at] ? TicketState::valid : standing[at]);
        }
    }
    /// Valid: the record stands in `state` under the ticket's own nonce, and `same(i, record)`.
    template <class Same>
    std::vector<TicketState>
    stands_as(std::span<const Ticket> tickets, PostgresState state, const Same& same) {
        std::vector<std::string_view> scopes, ids;
        for (const auto& ticket : tickets) {
            scopes.push_back(ticket.scope);
            ids.push_back(ticket.id);
        }
        const auto leg =
            core_.run_alone({{core_.sql().read, {bytes_array(scopes), bytes_array(ids)}, true}});
        require_answered(leg, "reading back");
        std::vector<TicketState> states(tickets.size(), TicketState::outdated);
        for (int row = 0; row < PQntuples(leg.results[0].get()); ++row) {
            const PostgresRecord record(PqBinaryRow(leg.results[0].get(), row));
            const auto& ticket = tickets[record.place];
            if (record.owner == ticket.nonce && record.state == state &&
                static_cast<std::uint64_t>(record.fence) == ticket.fence &&
                same(record.place, record)) {
                states[record.place] = TicketState::valid;
            }
        }
        return states;
    }

    PostgresCore& core_;
    PostgresLeaseStatements sql_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_LEASES_HPP
