// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_LEASED_CALL_HPP
#define IDEM_STRATEGY_LEASED_CALL_HPP

// One message under a lease, from the won claim to its completion: what DistributedLock and
// OneTimeToken share.

#include <idem/detail/failpoint.hpp>
#include <idem/strategy/lease.hpp>
#include <idem/strategy/strategy.hpp>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace idem::inline v0::detail {

struct LeaseTerms {
    milliseconds lease, min_remaining;
    Takeover takeover = Takeover::rerun;
    Verifier* verifier = nullptr;
};

/// Holds a won claim: renews it, hands it to the handler, and ends it in one of the ways that
/// semantics.md §3 and §4 allow. Lives where it was made: the heartbeat points into it.
template <DedupStore S>
class LeasedCall {
    using Ticket = typename S::Ticket;

public:
    /// `sent`: lease_now<S>() before the claim was sent.
    LeasedCall(S& store,
               const Request& request,
               const LeaseTerms& terms,
               Claimed<Ticket>&& won,
               std::chrono::nanoseconds sent)
        : store_(store)
        , request_(request)
        , terms_(terms)
        , won_(std::move(won))
        , renewed_at_(sent.count())
        , stop_(request.stop)
        , lease_(request.key,
                 won_.fence,
                 won_.attempt,
                 terms.lease,
                 &lease_now<S>,
                 renewed_at_,
                 stop_) {
        start_beat();
    }
    LeasedCall(const LeasedCall&) = delete;
    LeasedCall& operator=(const LeasedCall&) = delete;

    /// Everything between claim and completion. A verdict: it is over. None: the handler succeeded
    /// and the call is to be completed.
    [[nodiscard]] std::optional<Verdict> run(const Work<Lease>& work) {
        if (auto decided = decide_takeover()) {
            return decided;
        }
        const auto least = min(terms_.min_remaining, terms_.lease / 2);
        if (request_.stop.stop_requested() || lease_.remaining() < least) {
            give_back("not started", true);
            return not_started();
        }
        std::exception_ptr error;
        IDEM_FAILPOINT("lease: before the handler");
        if (run_handler(work, lease_, error)) {
            return {};
        }
        return failed(std::move(error));
    }

    /// Instead of run(), for one whose turn has not come: the key is given back uncharged.
    [[nodiscard]] Verdict leave() {
        if (auto decided = decide_takeover()) {
            return std::move(*decided);
        }
        give_back("not started", true);
        return not_started();
    }

    /// Repeats a completion in doubt while the lease lasts: the store makes that harmless.
    /// Throws: StoreError lease_lost, in_doubt or rejected. Nothing here gives the key back.
    [[nodiscard]] Verdict complete(const std::string& result) {
        IDEM_FAILPOINT("lease: before complete");
        for (milliseconds pause{10};; pause = min(pause * 2, milliseconds{1'000})) {
            try {
                return completed(store_.complete(won_.ticket, result));
            } catch (const StoreError& error) {
                if (error.fault() == Fault::rejected || error.fault() == Fault::lease_lost) {
                    throw;
                }
                if (lease_.remaining() <= milliseconds{0}) {
                    throw StoreError(Fault::in_doubt, error.what()); // the handler did run
                }
            }
            std::this_thread::sleep_for(pause);
        }
    }
    /// The verdict on a completion that the store answered.
    /// Throws: StoreError lease_lost.
    [[nodiscard]] Verdict completed(TicketState state) const {
        IDEM_FAILPOINT("lease: after complete");
        if (state == TicketState::outdated) {
            throw StoreError(Fault::lease_lost,
                             "idem: the lease ended and another owner took the key before the "
                             "result was recorded; use a longer lease, or look for a stalled "
                             "handler");
        }
        return executed_verdict(won_.attempt, won_.takeover);
    }

    /// Ends the heartbeat and hands out the ticket, for a completion together with others.
    [[nodiscard]] Ticket release_ticket() {
        beat_.reset();
        return std::move(won_.ticket);
    }
    void take_back(Ticket&& ticket) {
        won_.ticket = std::move(ticket);
        start_beat();
    }

    /// Gives the key back without charging the attempt, where the store can.
    void give_back(std::string_view why, bool refund) noexcept {
        beat_.reset();
        if constexpr (RefundingStore<S>) {
            if (refund) {
                store_.refund(won_.ticket);
                return;
            }
        }
        store_.abandon(won_.ticket, why);
    }

private:
    static milliseconds min(milliseconds a, milliseconds b) { return a < b ? a : b; }

    void start_beat() {
        if constexpr (BeatingStore<S>) {
            beat_.emplace(store_.heartbeat(), *this);
        }
    }
    [[nodiscard]] Verdict not_started() const {
        Verdict verdict;
        verdict.status = Status::in_progress;
        verdict.reason = request_.stop.stop_requested() ? reason::stopped : reason::lease_lost;
        return verdict;
    }
    [[nodiscard]] Verdict failed(std::exception_ptr error) {
        const bool later = holds<RetryLater>(error);
        const bool known = !error || later || holds<NotDone>(error) || holds<Unprocessable>(error);
        if (known || terms_.takeover == Takeover::rerun) {
            give_back(what_of(error), later);
        } // else the lease ends by itself, and the takeover policy decides
        auto verdict = failed_verdict(std::move(error), won_.attempt);
        verdict.takeover = won_.takeover;
        return verdict;
    }
    [[nodiscard]] std::optional<Verdict> decide_takeover() {
        if (!won_.takeover || terms_.takeover == Takeover::rerun) {
            return {};
        }
        if (terms_.takeover == Takeover::ask) {
            std::string bytes;
            Effect effect = Effect::unknown;
            try {
                effect = terms_.verifier->verify(request_.key, bytes);
            } catch (...) { // NOLINT(bugprone-empty-catch): a throw means unknown
            }
            if (effect == Effect::not_done) {
                return {};
            }
            if (effect == Effect::done) {
                auto stored = stored_result(bytes);
                auto verdict = complete(stored);
                verdict.status = Status::replayed;
                verdict.bytes = std::move(stored);
                return verdict;
            }
        }
        return park();
    }
    [[nodiscard]] Verdict park() {
        Verdict verdict;
        if constexpr (ParkingStore<S>) {
            if (store_.park(won_.ticket, reason::parked) == TicketState::outdated) {
                throw StoreError(Fault::lease_lost,
                                 "idem: the lease ended before the key was parked");
            }
        }
        verdict.status = Status::parked;
        verdict.attempts = won_.attempt;
        verdict.takeover = true;
        return verdict;
    }

    struct Kept { // a Beat made in place, from this call
        Kept(auto& heartbeat, LeasedCall& call)
            : beat(heartbeat.keep(call.won_.ticket,
                                  call.terms_.lease,
                                  call.request_.max_handler_time,
                                  call.stop_,
                                  call.renewed_at_,
                                  &lease_now<S>)) {}
        Beat beat;
    };

    S& store_;
    const Request& request_;
    const LeaseTerms& terms_;
    Claimed<Ticket> won_;
    std::atomic<std::chrono::nanoseconds::rep> renewed_at_;
    LeaseStop stop_;
    Lease lease_;
    std::optional<Kept> beat_; // last: ended before what it points to goes
};

/// Throws: StoreError rejected where the store or the options cannot do what `takeover` asks.
template <DedupStore S>
void require_takeover(const LeaseTerms& terms) {
    if (terms.takeover == Takeover::rerun) {
        return;
    }
    if (!ParkingStore<S>) {
        throw StoreError(Fault::rejected,
                         "idem: takeover = park or ask needs a store that can park: "
                         "park(ticket, why)");
    }
    if (terms.takeover == Takeover::ask && terms.verifier == nullptr) {
        throw StoreError(Fault::rejected, "idem: takeover = ask needs a verifier");
    }
}

template <DedupStore S>
Verdict run_leased(S& store,
                   const Request& request,
                   const ClaimRequest& asked,
                   const LeaseTerms& terms,
                   const Work<Lease>& work) {
    require_takeover<S>(terms);
    const auto sent = lease_now<S>();
    IDEM_FAILPOINT("lease: before claim");
    auto claim = store.claim(asked);
    IDEM_FAILPOINT("lease: after claim");
    auto* won = std::get_if<Claimed<typename S::Ticket>>(&claim);
    if (won == nullptr) {
        return verdict_of(std::move(claim));
    }
    LeasedCall<S> call(store, request, terms, std::move(*won), sent);
    if (auto over = call.run(work)) {
        return std::move(*over);
    }
    return call.complete(work.result());
}

} // namespace idem::inline v0::detail

#endif // IDEM_STRATEGY_LEASED_CALL_HPP
