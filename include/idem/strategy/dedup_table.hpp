// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_DEDUP_TABLE_HPP
#define IDEM_STRATEGY_DEDUP_TABLE_HPP

// Solution 1, the dedup table, made sound: the record and the handler's writes commit in one step.

#include <idem/detail/failpoint.hpp>
#include <idem/strategy/strategy.hpp>
#include <idem/strategy/table_attempt.hpp>
#include <idem/strategy/table_batch.hpp>

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// Effectively once for what the handler writes through the transaction it is given, and for
/// nothing else it does: a mail, an HTTP call repeats after a crash and on a rerun (semantics.md
/// 1.8). The handler takes the message and a `Store::Transaction&`.
/// Cost: what the store's begin, claim, complete and commit cost; see the store.
struct DedupTable {
    unsigned reruns = 3;    ///< of the whole handler, after a serialization failure or a deadlock
    std::size_t chunk = 64; ///< messages of a batch per transaction

    template <class S>
    using Context = typename S::Transaction;
    static constexpr Guarantee guarantee(bool takes) noexcept {
        return takes ? Guarantee::effectively_once : Guarantee::at_least_once;
    }
    template <class S>
    struct Requires {
        static_assert(TransactionalStore<S>,
                      "idem::DedupTable needs a TransactionalStore: begin() -> Transaction");
    };

    template <TransactionalStore S>
    Verdict run(S& store, const Request& request, const Work<typename S::Transaction>& work) const;

    /// In order of arrival, a savepoint per message, the records of the succeeded ones last
    /// (semantics.md 6.7). A commit that fails is tried once more as a whole, then message by
    /// message. Behind one that will come again nothing of its partition starts (6.9).
    template <BatchTransactionalStore S>
    std::vector<Verdict> run(S& store,
                             std::span<const Request> requests,
                             std::span<const Work<typename S::Transaction>> works) const;

    /// In a transaction that the user has open: no rerun, no attempt is counted, the broker's count
    /// decides.
    template <TransactionalStore S>
    Verdict run_in(typename S::Transaction& tx,
                   const Request& request,
                   const Work<typename S::Transaction>& work) const;

private:
    template <class Tx>
    static detail::Attempted attempt(Tx& tx, const ClaimRequest& asked, const Work<Tx>& work);
};

template <TransactionalStore S>
Verdict
DedupTable::run(S& store, const Request& request, const Work<typename S::Transaction>& work) const {
    auto asked = request.claim();
    if (Verdict known; request.redelivered && detail::look_first(store, asked, known)) {
        return known;
    }
    const bool charged = asked.max_attempts != request.max_attempts; // by look_first()
    auto verdict = detail::counted_once(
        charged,
        [&] {
            return detail::rerun_conflicted(
                store,
                asked.key,
                reruns,
                [&](auto& tx) { return attempt(tx, asked, work); },
                [&](const char* why) {
                    if (!charged) {
                        store.record_failure(asked, why);
                    }
                });
        },
        [&](const Verdict& failed) { detail::charge(store, asked, failed); },
        [&] { detail::refund(store, asked); });
    if (charged && verdict.attempts > 0) {
        --verdict.attempts;
    }
    return verdict;
}

template <TransactionalStore S>
Verdict DedupTable::run_in(typename S::Transaction& tx,
                           const Request& request,
                           const Work<typename S::Transaction>& work) const {
    return detail::verdict_in_joined(attempt(tx, request.claim(), work));
}

template <class Tx>
detail::Attempted DedupTable::attempt(Tx& tx, const ClaimRequest& asked, const Work<Tx>& work) {
    return detail::attempt_in(
        tx,
        work,
        [&](Verdict& verdict) {
            auto claim = tx.claim(asked);
            const auto* won = std::get_if<Claimed<std::monostate>>(&claim);
            if (won == nullptr) {
                verdict = verdict_of(std::move(claim));
                return false;
            }
            verdict.attempts = won->attempt;
            return true;
        },
        [&] {
            const auto result = work.result();
            IDEM_FAILPOINT("table: before complete");
            tx.complete(asked, result);
        });
}

template <BatchTransactionalStore S>
std::vector<Verdict> DedupTable::run(S& store,
                                     std::span<const Request> requests,
                                     std::span<const Work<typename S::Transaction>> works) const {
    std::vector<Verdict> verdicts;
    verdicts.reserve(requests.size());
    detail::HeldPartitions held;
    const std::size_t most = chunk > 0 ? chunk : 1;
    while (verdicts.size() < requests.size()) {
        const std::size_t at = verdicts.size();
        std::size_t size = 1;
        while (size < most && at + size < requests.size() && !requests[at].redelivered &&
               !requests[at + size].redelivered) {
            ++size; // one that was delivered before goes alone: it may be what crashes us
        }
        detail::TableBatch<DedupTable, S> batch(
            *this, store, requests.subspan(at, size), works.subspan(at, size), held);
        for (auto& verdict : size == 1 ? batch.run_singly() : batch.run()) {
            verdicts.push_back(std::move(verdict));
        }
    }
    return verdicts;
}

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_DEDUP_TABLE_HPP
