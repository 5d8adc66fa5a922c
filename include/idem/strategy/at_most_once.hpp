// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_AT_MOST_ONCE_HPP
#define IDEM_STRATEGY_AT_MOST_ONCE_HPP

// Record before effect, under its honest name.

#include <idem/detail/failpoint.hpp>
#include <idem/strategy/strategy.hpp>

#include <variant>

namespace idem::inline v0 {

/// The record is completed before the handler starts: an effect never runs twice, and one whose
/// handler throws or crashes is lost. For what is worse twice than never: a reminder, a ping.
/// A duplicate is skipped, also one of a message that is just being handled (semantics.md 6.6).
/// Cost: two round trips before the handler; one for a duplicate.
struct AtMostOnce {
    template <class S>
    using Context = NoContext;
    static constexpr Guarantee guarantee(bool) noexcept { return Guarantee::at_most_once; }
    template <class S>
    struct Requires {
        static_assert(DedupStore<S>,
                      "idem::AtMostOnce needs a DedupStore: claim, complete, abandon");
    };

    template <DedupStore S>
    Verdict run(S& store, const Request& request, const Work<NoContext>& work) const {
        auto claim = store.claim(request.claim());
        auto* won = std::get_if<Claimed<typename S::Ticket>>(&claim);
        if (won == nullptr) {
            auto verdict = verdict_of(std::move(claim));
            if (verdict.status == Status::in_progress) {
                verdict.status = Status::skipped;
            }
            return verdict;
        }
        IDEM_FAILPOINT("at most once: claimed");
        if (store.complete(won->ticket, detail::omitted_text) == TicketState::outdated) {
            return {.status = Status::skipped};
        }
        IDEM_FAILPOINT("at most once: recorded");
        NoContext none;
        std::exception_ptr error;
        if (!detail::run_handler(work, none, error)) {
            return detail::failed_verdict(std::move(error), won->attempt);
        }
        return detail::executed_verdict(won->attempt, false);
    }
};

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_AT_MOST_ONCE_HPP
