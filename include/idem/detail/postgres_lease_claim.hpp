// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_LEASE_CLAIM_HPP
#define IDEM_DETAIL_POSTGRES_LEASE_CLAIM_HPP

// The claim of keys by lease: insert what is new, read what is there, take what is free.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/postgres_lease_statements.hpp>
#include <idem/detail/postgres_ticket.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

/// One claim of keys that differ, at most PostgresWork::most_keys.
class PostgresLeaseClaim {
public:
    using Answer = Claim<PostgresTicket>;

    PostgresLeaseClaim(PostgresCore& core,
                       const PostgresLeaseStatements& sql,
                       std::span<const ClaimRequest> requests)
        : core_(core)
        , sql_(sql)
        , requests_(requests)
        , answers_(requests.size())
        , records_(requests.size())
        , takeover_(requests.size()) {
        for (const auto& request : requests) {
            locks_.push_back(core.lock_of(filed_under(request)));
        }
    }

    /// Throws: StoreError. What was won until then stands in won().
    void run() {
        for (int round = 0; round < 4; ++round) {
            insert();
            if (!unanswered().empty()) {
                read();
                take();
            }
            if (unanswered().empty()) {
                return;
            }
        }
        for (const auto place : unanswered()) { // it changed under our hands every time
            answers_[place] = InProgress{milliseconds{0}};
        }
    }
    [[nodiscard]] std::vector<Answer> answers() {
        std::vector<Answer> all;
        all.reserve(answers_.size());
        for (auto& answer : answers_) {
            all.push_back(std::move(*answer));
        }
        return all;
    }
    [[nodiscard]] std::vector<PostgresTicket> won() const {
        std::vector<PostgresTicket> tickets;
        for (const auto& answer : answers_) {
            if (const auto* claimed = answer ? std::get_if<0>(&*answer) : nullptr) {
                tickets.push_back(claimed->ticket);
            }
        }
        return tickets;
    }

private:
    using Places = std::vector<std::size_t>;

    [[nodiscard]] auto key_at() const {
        return [this](std::size_t place) { return filed_under(requests_[place]); };
    }
    [[nodiscard]] Places unanswered() const {
        Places places;
        for (std::size_t place = 0; place < answers_.size(); ++place) {
            if (!answers_[place]) {
                places.push_back(place);
            }
        }
        return in_key_order(std::move(places), key_at());
    }
    void win(std::size_t place, std::uint64_t fence, unsigned attempt) {
        const auto& asked = requests_[place];
        const auto key = filed_under(asked);
        answers_[place] = Claimed<PostgresTicket>{.ticket = {.scope = std::string(key.scope),
                                                             .id = std::string(key.id),
                                                             .nonce = nonce_,
                                                             .fence = fence,
                                                             .retention = asked.retention,
                                                             .max_attempts = asked.max_attempts},
                                                  .attempt = attempt,
                                                  .fence = fence,
                                                  .takeover = takeover_[place]};
    }
    void answer(std::size_t place, Claim<std::monostate>&& said) {
        std::visit(
            [&](auto&& alternative) {
                using Said = std::remove_cvref_t<decltype(alternative)>;
                if constexpr (!std::is_same_v<Said, Claimed<std::monostate>>) {
                    answers_[place] = std::forward<decltype(alternative)>(alternative);
                }
            },
            std::move(said));
    }

    /// A token that somebody must have issued.
    [[nodiscard]] bool must_exist(std::size_t place) const {
        return !requests_[place].token.empty() && !requests_[place].token_may_be_new;
    }
    void insert() {
        auto places = unanswered();
        std::erase_if(places, [this](std::size_t place) { return must_exist(place); });
        if (places.empty()) {
            return;
        }
        IDEM_FAILPOINT("postgres lease: before claim");
        const auto leg =
            core_.run_alone({{sql_.fresh, lease_columns(nonce_, requests_, locks_, places), true}});
        IDEM_FAILPOINT("postgres lease: after claim");
        if (leg.link_lost) {
            recover(places);
        } else if (!leg.ok()) {
            throw store_error(leg.sqlstate, leg.message, "claiming");
        } else {
            match_rows(
                leg.results[0].get(), places, key_at(), [&](std::size_t place, PqBinaryRow row) {
                    win(place, static_cast<std::uint64_t>(row.number(2)), 1);
                });
        }
    }
    [[nodiscard]] PqStatement read_of(const Places& places) const {
        std::vector<std::string_view> scopes, ids;
        for (const auto place : places) {
            const auto key = filed_under(requests_[place]);
            scopes.push_back(key.scope);
            ids.push_back(key.id);
        }
        return {core_.sql().read, {bytes_array(scopes), bytes_array(ids)}, true};
    }
    /// Of all that is not new, what is decided without its lock: the completed, and what is under a
    /// lease.
    void read() {
        const auto places = unanswered();
        const auto leg = core_.run_alone({read_of(places)});
        if (!leg.ok()) {
            throw store_error(leg.sqlstate, leg.message, "looking up keys");
        }
        keep_records(leg.results[0].get(), places);
        for (const auto place : places) {
            const auto& record = records_[place];
            if (record && PostgresClaims::is_decided(*record)) {
                answer(place, judge(*record, requests_[place]));
            } else if ((!record || record->expired) && must_exist(place)) {
                answers_[place] = Refused{reason::token_unknown};
            }
        }
    }
    void keep_records(const PGresult* rows, const Places& places) {
        for (const auto place : places) {
            records_[place].reset();
        }
        for (int row = 0; row < PQntuples(rows); ++row) {
            PostgresRecord record(PqBinaryRow(rows, row));
            const auto place = places[record.place];
            records_[place] = std::move(record);
        }
    }

    /// The rest, under their locks.
    void take() {
        Places places;
        for (const auto place :
             unanswered()) { // one without a record is inserted in the next round
            if (records_[place]) {
                places.push_back(place);
            }
        }
        Places taken;
        if (!places.empty() && !take_on_one_connection(places, taken)) {
            recover(taken);
        }
    }
    /// One transaction of two trips. False: the link broke where it may have committed.
    bool take_on_one_connection(const Places& places, Places& taken) {
        auto connection = core_.pool().take();
        const auto until = core_.deadline();
        std::vector<std::int64_t> locks;
        for (const auto place : places) {
            locks.push_back(locks_[place]);
        }
        // Unprepared: it is rare, and a pooler may change the session between two transactions.
        const std::vector<PqStatement> opening{
            {core_.sql().begin},
            {core_.sql().lock_timeout, {number_parameter(core_.short_patience().count())}},
            {sql_.wait_for_locks, {number_array(token_locks(places))}},
            {core_.sql().lock, {number_array(locks)}, true},
            read_of(places)};
        const auto look = connection->run(opening, false, until);
        if (look.sqlstate == "55P03") {
            connection->set_broken();
            return true; // in the next round, or in progress
        }
        if (!look.ok()) {
            connection->set_broken();
            throw store_error(look.sqlstate, look.message, "claiming");
        }
        keep_records(look.results[4].get(), places);
        std::vector<PqStatement> closing;
        for (std::size_t at = 0; at < places.size(); ++at) {
            const bool locked = PqBinaryRow(look.results[3].get(), static_cast<int>(at)).flag(0);
            decide(places[at], locked, closing, taken);
        }
        closing.push_back({core_.sql().commit});
        IDEM_FAILPOINT("postgres lease: before take");
        const auto end = connection->run(closing, false, until);
        IDEM_FAILPOINT("postgres lease: after take");
        if (end.link_lost) {
            return false;
        }
        if (!end.ok()) {
            connection->set_broken();
            throw store_error(end.sqlstate, end.message, "claiming");
        }
        for (std::size_t at = 0; at < taken.size(); ++at) {
            if (PQntuples(end.results[at].get()) == 1) {
                const PqBinaryRow row(end.results[at].get(), 0);
                win(taken[at], static_cast<std::uint64_t>(row.number(0)), attempts_[at]);
            }
        }
        return true;
    }
    /// A redeem waits for another: they are short, and it is to be told "spent".
    [[nodiscard]] std::vector<std::int64_t> token_locks(const Places& places) const {
        std::vector<std::int64_t> locks;
        for (const auto place : places) {
            if (!requests_[place].token.empty()) {
                locks.push_back(locks_[place]);
            }
        }
        return locks;
    }
    /// What a locked record says; statements that take it go to the front of `closing`.
    void decide(std::size_t place, bool locked, std::vector<PqStatement>& closing, Places& taken) {
        const auto& record = records_[place];
        const auto& asked = requests_[place];
        if (!record) {
            return; // pruned since
        }
        auto said = PostgresClaims::judge_locked(*record, asked, locked);
        const auto key = filed_under(asked);
        if (const auto* won = std::get_if<0>(&said)) {
            const bool keeps = !record->expired && asked.fingerprint.algorithm == 0;
            const auto print = keeps ? record->fingerprint : asked.fingerprint;
            if (taken.empty()) {
                attempts_.clear();
            }
            closing.insert(
                closing.begin() + static_cast<std::ptrdiff_t>(taken.size()),
                {sql_.take,
                 {bytes_parameter(key.scope),
                  bytes_parameter(key.id),
                  bytes_parameter(nonce_),
                  fingerprint_parameter(print),
                  algorithm_parameter(print),
                  number_parameter(retention_seconds(asked.retention)),
                  number_parameter(lease_seconds(asked.lease)),
                  number_parameter(won->attempt),
                  number_parameter(record->fence),
                  number_parameter(static_cast<int>(record->state)),
                  record->owner ? bytes_parameter(*record->owner) : PqParameter{},
                  bytes_parameter(asked.token.empty() ? std::string_view() : asked.key.id)},
                 true});
            taken.push_back(place);
            attempts_.push_back(won->attempt);
            takeover_[place] = won->takeover;
            return;
        }
        if (std::holds_alternative<Dead>(said) && record->state == PostgresState::open) {
            closing.push_back({sql_.bury,
                               {bytes_parameter(key.scope),
                                bytes_parameter(key.id),
                                number_parameter(record->fence),
                                number_parameter(retention_seconds(asked.retention))}});
        }
        answer(place, std::move(said));
    }

    /// After the link broke under a claim: which of the keys it got. The locks are had first, as
    /// the old session may still be at it (semantics.md 2.1, 2.2).
    /// Throws: StoreError unavailable: no handler may start; what was claimed ends by its lease.
    void recover(const Places& places) {
        std::vector<std::int64_t> locks;
        for (const auto place : places) {
            locks.push_back(locks_[place]);
        }
        const auto patience = core_.options().deadline / 4 * 3;
        const auto leg =
            core_.run_alone({{core_.sql().begin},
                             {core_.sql().lock_timeout, {number_parameter(patience.count())}},
                             {sql_.wait_for_locks, {number_array(locks)}},
                             read_of(places),
                             {core_.sql().commit}});
        if (!leg.ok()) {
            throw StoreError(Fault::unavailable,
                             explained(leg.sqlstate,
                                       leg.message,
                                       "the link broke during a claim, and what became of it could "
                                       "not be read: the key may stay in progress until its lease "
                                       "ends"));
        }
        keep_records(leg.results[3].get(), places);
        for (const auto place : places) {
            const auto& record = records_[place];
            if (record && record->owner == nonce_ && record->state == PostgresState::open) {
                win(place, static_cast<std::uint64_t>(record->fence), record->attempts);
            }
        }
    }

    PostgresCore& core_;
    const PostgresLeaseStatements& sql_;
    std::span<const ClaimRequest> requests_;
    std::string nonce_ = draw_nonce();
    std::vector<std::int64_t> locks_{};
    std::vector<std::optional<Answer>> answers_;
    std::vector<std::optional<PostgresRecord>> records_;
    std::vector<bool> takeover_;
    std::vector<unsigned> attempts_{}; ///< of those being taken
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_LEASE_CLAIM_HPP
