// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_TABLE_ATTEMPT_HPP
#define IDEM_STRATEGY_TABLE_ATTEMPT_HPP

// One transaction of one message, from the claim to the commit, and what is charged for a failure.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/siphash.hpp>
#include <idem/heartbeat.hpp>
#include <idem/strategy/strategy.hpp>

#include <chrono>
#include <cstdint>
#include <exception>
#include <string>
#include <thread>
#include <variant>

namespace idem::inline v0 {

namespace detail {

/// A pause before a rerun, different for each of those that just collided.
inline void pause_before_rerun(unsigned rerun, const Key& key) {
    const auto seed = static_cast<std::uint64_t>(BootClock::now().time_since_epoch().count());
    const auto random = siphash128(key.id, seed, rerun).low % 1'000;
    std::this_thread::sleep_for(std::chrono::microseconds{random << (rerun < 6 ? rerun : 6)});
}

/// How one transaction ended.
struct Attempted {
    bool again = false; ///< conflicted: run it all again
    Verdict verdict{};
};

/// Commits what the handler did; `complete()` first, within the transaction. A StoreError is the
/// store's and goes on; anything else is the handler's own failure: its posted statement, a deferred
/// constraint, a transaction that it broke.
template <class Tx, class Complete>
std::exception_ptr seal(Tx& tx, const Complete& complete) {
    try {
        complete();
        IDEM_FAILPOINT("table: before commit");
        tx.commit();
        IDEM_FAILPOINT("table: after commit");
        return nullptr;
    } catch (const StoreError&) {
        if (!tx.conflicted()) {
            throw;
        }
        return std::current_exception();
    } catch (...) {
        return std::current_exception();
    }
}

/// One transaction of one message, from the claim to the commit, or rolled back. `claim(verdict)`
/// says whether the handler is to run, and else why not; `complete()` writes what says that it did.
template <class Tx, class ClaimStep, class Complete>
Attempted
attempt_in(Tx& tx, const Work<Tx>& work, const ClaimStep& claim, const Complete& complete) {
    Attempted end;
    std::exception_ptr error;
    bool done = false;
    try {
        const bool won = claim(end.verdict);
        IDEM_FAILPOINT("table: after claim");
        if (!won) {
            tx.rollback();
            return end;
        }
        done = run_handler(work, tx, error);
    } catch (const StoreError&) {
        if (!tx.conflicted()) {
            throw;
        }
        error = std::current_exception();
    }
    if (done) {
        error = seal(tx, complete);
        done = error == nullptr;
    }
    if (!done) {
        end.again = tx.conflicted();
        tx.rollback();
        end.verdict = failed_verdict(std::move(error), end.verdict.attempts);
    }
    return end;
}

/// For a transaction that conflicted and is not run again. Nothing happened, nothing is charged.
inline StoreError conflicted_error(const std::string& advice, const Verdict& last) {
    return {Fault::unavailable, "idem: " + advice + "; the last error: " + what_of(last.error)};
}

/// Attempts, each in a transaction of its own that is over on return, until one does not conflict.
/// `attempt(tx)` is one; `outstayed(why)` counts one that outstayed max_handler_time.
template <class S, class Attempt, class Outstayed>
Verdict rerun_conflicted(
    S& store, const Key& key, unsigned reruns, const Attempt& attempt, const Outstayed& outstayed) {
    for (unsigned rerun = 0;; ++rerun) {
        if (rerun > 0) {
            pause_before_rerun(rerun, key);
        }
        IDEM_FAILPOINT("table: before begin");
        auto tx = store.begin();
        Attempted end;
        try {
            end = attempt(tx);
        } catch (const StoreError& error) {
            if (error.fault() == Fault::lease_lost) {
                tx.rollback();
                outstayed(error.what());
            }
            throw;
        }
        if (!end.again) {
            return std::move(end.verdict);
        }
        if (rerun >= reruns) {
            throw conflicted_error("the transaction failed with its surroundings, not by the "
                                   "handler, in every one of its reruns: retry later",
                                   end.verdict);
        }
    }
}

/// What an attempt in the user's own transaction came to: there is no rerun in it.
inline Verdict verdict_in_joined(Attempted&& end) {
    if (end.again) {
        const auto error = conflicted_error("retry in a new transaction", end.verdict);
        end.verdict = failed_verdict(std::make_exception_ptr(error), 0);
        end.verdict.fault = error.fault();
    }
    return std::move(end.verdict);
}

/// Whether a failure is not counted, as the handler's exception says (semantics.md 3.5).
inline bool uncharged(const Verdict& failed) noexcept {
    return holds<RetryLater>(failed.error) || holds<Unprocessable>(failed.error);
}

/// Counts a failed attempt.
template <class S>
void charge(S& store, const ClaimRequest& asked, const Verdict& verdict) noexcept {
    if (!uncharged(verdict)) {
        store.record_failure(asked, what_of(verdict.error));
    }
}

/// Whether what look_first() charged is to be given back: the failure is not counted, or the
/// handler did not run because another owner is at it.
inline bool counts_for_nothing(const Verdict& verdict) noexcept {
    return verdict.status == Status::in_progress ||
           (verdict.status == Status::failed && uncharged(verdict));
}

/// Gives it back, where the store can.
template <class S>
void refund(S& store, const ClaimRequest& asked) noexcept {
    if constexpr (RefundingTransactionalStore<S>) {
        store.refund_failure(asked);
    }
}

/// Runs a message and counts its failure once: `charge(verdict)` after it, or, where look_first()
/// has `charged` it in advance, `refund()` takes that back if it counts for nothing.
/// Throws: StoreError.
template <class Run, class Charge, class Refund>
Verdict counted_once(bool charged, const Run& run, const Charge& charge, const Refund& refund) {
    try {
        auto verdict = run();
        if (charged && counts_for_nothing(verdict)) {
            refund();
        } else if (!charged && verdict.status == Status::failed) {
            charge(verdict);
        }
        return verdict;
    } catch (const StoreError& error) {
        if (charged && (error.fault() == Fault::unavailable || error.fault() == Fault::rejected)) {
            refund();
        }
        throw;
    }
}

/// Of a delivery that was delivered before: answers what is decided already, without the handler's
/// transaction, and charges the attempt before it, so that crash loops end (semantics.md 3.3).
/// True: `verdict` is the answer.
template <class S>
bool look_first(S& store, ClaimRequest& asked, Verdict& verdict) {
    auto look = [&] {
        if constexpr (PeekingStore<S>) {
            return store.peek(asked);
        } else {
            auto tx = store.begin();
            auto claim = tx.claim(asked);
            tx.rollback();
            return claim;
        }
    };
    auto claim = look();
    if (!std::holds_alternative<Claimed<std::monostate>>(claim)) {
        verdict = verdict_of(std::move(claim));
        return true;
    }
    if (asked.max_attempts > 0) {
        store.record_failure(asked, "delivered again without an outcome");
        ++asked.max_attempts; // this very attempt is in the count now
    }
    return false;
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_TABLE_ATTEMPT_HPP
