// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_OFFSET_FENCE_HPP
#define IDEM_STRATEGY_OFFSET_FENCE_HPP

// One row per partition in place of one per message: how far it is handled, written in the
// handler's own transaction.

#include <idem/fenced_store.hpp>
#include <idem/strategy/position.hpp>
#include <idem/strategy/table_attempt.hpp>

#include <exception>
#include <string>
#include <utility>
#include <variant>

namespace idem::inline v0 {

/// Effectively once for what the handler writes through the transaction it is given, per stored
/// message: one that its producer wrote twice has two positions and runs twice. It needs a source
/// with exclusive, ordered positions, one handler at a time per partition, that starts where the
/// row says: KafkaSource with KafkaOptions::offsets. The handler takes the message and a
/// `Store::Transaction&`. Gaps are allowed; whatever is at or below the row's offset is `skipped`.
/// Results are not kept.
///
/// An ack means a committed row, and the broker's own offset is but a hint. A message that is dead,
/// or Unprocessable, is dead-lettered by the source, which moves the row after that.
/// Cost: what the store's begin, advance and commit cost; no table that grows.
struct OffsetFence {
    unsigned reruns = 3; ///< of the whole handler, after a serialization failure or a deadlock

    static constexpr Covers covers = Covers::redelivered;
    template <class S>
    using Context = typename S::Transaction;
    static constexpr Guarantee guarantee(bool takes) noexcept {
        return takes ? Guarantee::effectively_once : Guarantee::at_least_once;
    }
    template <class S>
    struct Requires {
        static_assert(FencedStore<S>,
                      "idem::OffsetFence needs a FencedStore: a TransactionalStore whose "
                      "Transaction has advance(scope, position)");
    };

    /// Throws: StoreError.
    template <FencedStore S>
    Verdict run(S& store, const Request& request, const Work<typename S::Transaction>& work) const {
        if (!request.position) {
            return detail::without_position("OffsetFence");
        }
        bool charged = false;
        if (Verdict known; request.redelivered && look_first(store, request, known, charged)) {
            return known;
        }
        return detail::counted_once(
            charged,
            [&] {
                return detail::rerun_conflicted(
                    store,
                    request.key,
                    reruns,
                    [&](auto& tx) { return attempt(tx, request, work, charged); },
                    [&](const char*) {
                        if (!charged) {
                            charge(store,
                                   request,
                                   detail::failed_verdict(std::current_exception(), 0));
                        }
                    });
            },
            [&](const Verdict& failed) { charge(store, request, failed); },
            [&] { refund(store, request); });
    }
    /// In a transaction that the user has open: no rerun, no attempt is counted.
    template <FencedStore S>
    Verdict run_in(typename S::Transaction& tx,
                   const Request& request,
                   const Work<typename S::Transaction>& work) const {
        if (!request.position) {
            return detail::without_position("OffsetFence");
        }
        return detail::verdict_in_joined(attempt(tx, request, work, false));
    }

private:
    template <class Tx>
    static detail::Attempted
    attempt(Tx& tx, const Request& request, const Work<Tx>& work, bool charged);
    /// Of a delivery that may have been delivered before: as detail::look_first().
    template <class S>
    static bool look_first(S& store, const Request& request, Verdict& verdict, bool& charged);
    /// Whether `attempts` failed ones are all that the request may have.
    static bool is_dead(const Request& request, unsigned attempts) noexcept {
        return request.max_attempts > 0 && attempts >= request.max_attempts;
    }
    /// Without the one that was charged in advance, as far as that could be written.
    static unsigned failed_before(unsigned attempt, bool charged) noexcept {
        const unsigned counted = attempt - 1;
        return charged && counted > 0 ? counted - 1 : counted;
    }
    static Verdict dead(unsigned attempts) {
        return verdict_of(Claim<std::monostate>(Dead{attempts}));
    }
    template <class S>
    static void charge(S& store, const Request& request, const Verdict& verdict) noexcept {
        if constexpr (FailureCountingFence<S>) {
            if (!detail::uncharged(verdict)) {
                store.record_failure(
                    request.key.scope, *request.position, detail::what_of(verdict.error));
            }
        }
    }
    template <class S>
    static void refund(S& store, const Request& request) noexcept {
        if constexpr (FailureCountingFence<S>) {
            store.refund_failure(request.key.scope, *request.position);
        }
    }
};

template <class Tx>
detail::Attempted
OffsetFence::attempt(Tx& tx, const Request& request, const Work<Tx>& work, bool charged) {
    return detail::attempt_in(
        tx,
        work,
        [&](Verdict& verdict) {
            auto claim = tx.advance(request.key.scope, *request.position);
            const auto* won = std::get_if<Claimed<std::monostate>>(&claim);
            if (won == nullptr) {
                verdict = verdict_of(std::move(claim));
                return false;
            }
            const unsigned failed = failed_before(won->attempt, charged);
            if (is_dead(request, failed)) {
                verdict = dead(failed);
                return false;
            }
            verdict.attempts = failed + 1;
            return true;
        },
        [] {}); // the row was advanced by the claim
}

template <class S>
bool OffsetFence::look_first(S& store, const Request& request, Verdict& verdict, bool& charged) {
    if constexpr (FailureCountingFence<S>) {
        auto claim = store.peek(request.key.scope, *request.position);
        const auto* won = std::get_if<Claimed<std::monostate>>(&claim);
        if (won == nullptr || is_dead(request, won->attempt - 1)) {
            verdict = won == nullptr ? verdict_of(std::move(claim)) : dead(won->attempt - 1);
            return true;
        }
        if (request.max_attempts > 0) {
            store.record_failure(
                request.key.scope, *request.position, "delivered again without an outcome");
            charged = true;
        }
    }
    return false;
}

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_OFFSET_FENCE_HPP
