// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_LEASE_TAKE_HPP
#define IDEM_DETAIL_POSTGRES_LEASE_TAKE_HPP

// Taking keys that have a record already, under their locks.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/postgres_lease_keys.hpp>
#include <idem/detail/postgres_lease_statements.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

class PostgresLeaseTake {
public:
    using Places = PostgresLeaseKeys::Places;

    PostgresLeaseTake(PostgresCore& core,
                      const PostgresLeaseStatements& sql,
                      PostgresLeaseKeys& keys) noexcept
        : core_(core)
        , sql_(sql)
        , keys_(keys) {}

    /// Those that were to be taken.
    [[nodiscard]] const Places& taken() const noexcept { return taken_; }
    /// One transaction of two trips. False: the link broke where it may have committed.
    [[nodiscard]] bool run(const Places& places) {
        auto connection = core_.pool().take();
        const auto until = core_.deadline();
        // Unprepared: it is rare, and a pooler may change the session between two transactions.
        const std::vector<PqStatement> opening{
            {core_.sql().begin},
            {core_.sql().lock_timeout, {number_parameter(core_.short_patience().count())}},
            {sql_.wait_for_locks, {keys_.locks_of(redeems(places))}},
            {core_.sql().lock, {keys_.locks_of(places)}, true},
            keys_.read_of(core_, places)};
        const auto look = connection->run(opening, false, until);
        if (look.sqlstate == "55P03") {
            connection->set_broken();
            return true; // in the next round, or in progress
        }
        if (!look.ok()) {
            connection->set_broken();
            throw store_error(look.sqlstate, look.message, "claiming");
        }
        keys_.keep_records(look.results[4].get(), places);
        std::vector<PqStatement> closing;
        for (std::size_t at = 0; at < places.size(); ++at) {
            const bool locked = PqBinaryRow(look.results[3].get(), static_cast<int>(at)).flag(0);
            decide(places[at], locked, closing);
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
        for (std::size_t at = 0; at < taken_.size(); ++at) {
            if (PQntuples(end.results[at].get()) == 1) {
                const PqBinaryRow row(end.results[at].get(), 0);
                keys_.win(taken_[at], static_cast<std::uint64_t>(row.number(0)), attempts_[at]);
            }
        }
        return true;
    }

private:
    /// A redeem waits for another: they are short, and it is to be told "spent".
    [[nodiscard]] Places redeems(Places places) const {
        std::erase_if(places,
                      [this](std::size_t place) { return keys_.asked(place).token.empty(); });
        return places;
    }
    /// What a locked record says; statements that take it go to the front of `closing`.
    void decide(std::size_t place, bool locked, std::vector<PqStatement>& closing) {
        const auto& record = keys_.record(place);
        const auto& asked = keys_.asked(place);
        if (!record) {
            return; // pruned since
        }
        auto said = PostgresClaims::judge_locked(*record, asked, locked);
        const auto key = filed_under(asked);
        if (const auto* won = std::get_if<0>(&said)) {
            const bool keeps = !record->expired && asked.fingerprint.algorithm == 0;
            const auto print = keeps ? record->fingerprint : asked.fingerprint;
            closing.insert(
                closing.begin() + static_cast<std::ptrdiff_t>(taken_.size()),
                {sql_.take,
                 {bytes_parameter(key.scope),
                  bytes_parameter(key.id),
                  bytes_parameter(keys_.nonce()),
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
            taken_.push_back(place);
            attempts_.push_back(won->attempt);
            keys_.set_takeover(place, won->takeover);
            return;
        }
        if (std::holds_alternative<Dead>(said) && record->state == PostgresState::open) {
            closing.push_back({sql_.bury,
                               {bytes_parameter(key.scope),
                                bytes_parameter(key.id),
                                number_parameter(record->fence),
                                number_parameter(retention_seconds(asked.retention))}});
        }
        keys_.answer(place, std::move(said));
    }

    PostgresCore& core_;
    const PostgresLeaseStatements& sql_;
    PostgresLeaseKeys& keys_;
    Places taken_{};
    std::vector<unsigned> attempts_{}; ///< of each
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_LEASE_TAKE_HPP
