// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_LEASE_CLAIM_HPP
#define IDEM_DETAIL_POSTGRES_LEASE_CLAIM_HPP

// The claim of keys by lease: insert what is new, read what is there, take what is free.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/postgres_lease_take.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace idem::inline v0::detail {

/// One claim of keys that differ, at most PostgresWork::most_keys.
class PostgresLeaseClaim {
public:
    PostgresLeaseClaim(PostgresCore& core,
                       const PostgresLeaseStatements& sql,
                       std::span<const ClaimRequest> requests)
        : core_(core)
        , sql_(sql)
        , keys_(core, requests) {}

    /// Throws: StoreError. What was won until then stands in won().
    void run() {
        for (int round = 0; round < 4; ++round) {
            insert();
            if (!keys_.unanswered().empty()) {
                read();
                take();
            }
            if (keys_.unanswered().empty()) {
                return;
            }
        }
        if (const auto open = keys_.unanswered(); in_doubt_ && !open.empty()) {
            recover(open); // the old session came late
        }
        for (const auto place : keys_.unanswered()) { // it changed under our hands every time
            keys_.refuse(place, InProgress{milliseconds{0}});
        }
    }
    [[nodiscard]] std::vector<PostgresLeaseKeys::Answer> answers() { return keys_.answers(); }
    [[nodiscard]] std::vector<PostgresTicket> won() const { return keys_.won(); }

private:
    using Places = PostgresLeaseKeys::Places;

    void insert() {
        auto places = keys_.unanswered();
        std::erase_if(places, [this](std::size_t place) { return keys_.must_exist(place); });
        if (places.empty()) {
            return;
        }
        IDEM_FAILPOINT("postgres lease: before claim");
        const auto leg =
            core_.run_alone({{sql_.fresh,
                              lease_columns(keys_.nonce(), keys_.requests(), keys_.locks(), places),
                              true}});
        IDEM_FAILPOINT("postgres lease: after claim");
        if (leg.link_lost) {
            recover(places);
        } else {
            require_ok(leg, "claiming");
            match_rows(leg.results[0].get(),
                       places,
                       keys_.key_at(),
                       [&](std::size_t place, PqBinaryRow row) {
                           keys_.win(place, static_cast<std::uint64_t>(row.number(2)), 1);
                       });
        }
    }
    /// Of all that is not new, what is decided without its lock: the completed, and what is under a
    /// lease.
    void read() {
        const auto places = keys_.unanswered();
        const auto leg = core_.run_alone({keys_.read_of(core_, places)});
        require_ok(leg, "looking up keys");
        keys_.keep_records(leg.results[0].get(), places);
        for (const auto place : places) {
            const auto& record = keys_.record(place);
            if (record && is_own(*record)) { // by a statement whose answer was lost
                keys_.win(place, static_cast<std::uint64_t>(record->fence), record->attempts);
            } else if (record && PostgresClaims::is_decided(*record)) {
                keys_.answer(place, judge(*record, keys_.asked(place)));
            } else if ((!record || record->expired) && keys_.must_exist(place)) {
                keys_.refuse(place, Refused{reason::token_unknown});
            }
        }
    }
    /// The rest, under their locks. One without a record is inserted in the next round.
    void take() {
        auto places = keys_.unanswered();
        std::erase_if(places, [this](std::size_t place) { return !keys_.record(place); });
        if (places.empty()) {
            return;
        }
        PostgresLeaseTake take(core_, sql_, keys_);
        if (!take.run(places)) {
            recover(take.taken());
        }
    }

    /// After the link broke under a claim: which of the keys it got. The locks are had first, as
    /// the old session may still be at it (semantics.md 2.1, 2.2).
    /// Throws: StoreError unavailable: no handler may start; what was claimed ends by its lease.
    void recover(const Places& places) {
        in_doubt_ = true;
        const auto patience = core_.options().deadline / 4 * 3;
        const auto leg =
            core_.run_alone({{core_.sql().begin},
                             {core_.sql().lock_timeout, {number_parameter(patience.count())}},
                             {sql_.wait_for_locks, {keys_.locks_of(places)}},
                             keys_.read_of(core_, places),
                             {core_.sql().commit}});
        if (!leg.ok()) {
            throw StoreError(Fault::unavailable,
                             explained(leg.sqlstate,
                                       leg.message,
                                       "the link broke during a claim, and what became of it could "
                                       "not be read: the key may stay in progress until its lease "
                                       "ends"));
        }
        keys_.keep_records(leg.results[3].get(), places);
        for (const auto place : places) {
            const auto& record = keys_.record(place);
            if (record && is_own(*record)) {
                keys_.win(place, static_cast<std::uint64_t>(record->fence), record->attempts);
            }
        }
    }

    [[nodiscard]] bool is_own(const PostgresRecord& record) const {
        return record.owner == keys_.nonce() && record.state == PostgresState::open;
    }

    PostgresCore& core_;
    const PostgresLeaseStatements& sql_;
    PostgresLeaseKeys keys_;
    bool in_doubt_ = false; ///< a link broke: its session may still be at it
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_LEASE_CLAIM_HPP
