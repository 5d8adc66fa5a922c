// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_CRASH_MUTANTS_HPP
#define IDEM_TESTS_CRASH_MUTANTS_HPP

// Two designs that are wrong, as strategies: record and effect in two transactions. Each must make
// the checker fail; a checker that cannot is no checker.

#include <idem/detail/failpoint.hpp>
#include <idem/strategy/strategy.hpp>

#include <utility>
#include <variant>

namespace idem::crash_test {

/// One transaction with the handler alone in it.
template <class S>
bool effect_alone(S& store, const Work<typename S::Transaction>& work, Verdict& verdict) {
    auto tx = store.begin();
    std::exception_ptr error;
    if (!idem::detail::run_handler(work, tx, error)) {
        tx.rollback();
        verdict = idem::detail::failed_verdict(std::move(error), 1);
        return false;
    }
    tx.commit();
    return true;
}
/// One with the record alone in it. False: the verdict is what stands in the way.
template <class S>
bool mark_alone(S& store, const Request& request, bool write, Verdict& verdict) {
    const auto asked = request.claim();
    auto tx = store.begin();
    auto claim = tx.claim(asked);
    const bool won = std::holds_alternative<Claimed<std::monostate>>(claim);
    if (won && write) {
        tx.complete(asked, "");
        tx.commit();
    } else {
        tx.rollback();
        verdict = verdict_of(std::move(claim));
    }
    return won;
}

template <class Self>
struct Mutant {
    template <class S>
    using Context = typename S::Transaction;
    static constexpr Guarantee guarantee(bool) noexcept { return Guarantee::at_least_once; }
};

struct MarkThenEffect : Mutant<MarkThenEffect> {
    template <TransactionalStore S>
    Verdict run(S& store, const Request& request, const Work<typename S::Transaction>& work) const {
        Verdict verdict;
        if (mark_alone(store, request, true, verdict)) {
            IDEM_FAILPOINT("mutant: marked");
            effect_alone(store, work, verdict);
        }
        return verdict;
    }
};

struct EffectThenMark : Mutant<EffectThenMark> {
    template <TransactionalStore S>
    Verdict run(S& store, const Request& request, const Work<typename S::Transaction>& work) const {
        Verdict verdict;
        if (mark_alone(store, request, false, verdict) && effect_alone(store, work, verdict)) {
            IDEM_FAILPOINT("mutant: effect made");
            mark_alone(store, request, true, verdict);
        }
        return verdict;
    }
};

} // namespace idem::crash_test

#endif // IDEM_TESTS_CRASH_MUTANTS_HPP
