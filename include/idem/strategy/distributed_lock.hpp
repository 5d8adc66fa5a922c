// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_DISTRIBUTED_LOCK_HPP
#define IDEM_STRATEGY_DISTRIBUTED_LOCK_HPP

// Solution 2, the distributed lock, made sound: a lease with owner and fence, and a completed
// record that outlives it.

#include <idem/strategy/batch.hpp>
#include <idem/strategy/leased_call.hpp>

#include <optional>
#include <span>
#include <vector>

namespace idem::inline v0 {

/// Claim, handler, completion, each a step of its own. For effects outside the store: HTTP calls,
/// mails, another database. At least once: an owner that crashes or stalls past its lease after the
/// effect and before the completion lets it run again; until then duplicates are held off.
/// The handler takes the message, or the message and a `Lease&`.
/// Cost: two round trips, claim and complete; one for a duplicate.
struct DistributedLock {
    milliseconds lease{30'000};        ///< renewed while the handler runs, where the store can
    milliseconds min_remaining{5'000}; ///< no handler starts with less (half the lease at most)
    Takeover takeover = Takeover::rerun;
    Verifier* verifier = nullptr; ///< of takeover = ask; borrowed

    template <class S>
    using Context = Lease;
    static constexpr Guarantee guarantee(bool) noexcept { return Guarantee::at_least_once; }
    template <class S>
    struct Requires {
        static_assert(DedupStore<S>,
                      "idem::DistributedLock needs a DedupStore: claim, complete, abandon");
    };

    template <DedupStore S>
    Verdict run(S& store, const Request& request, const Work<Lease>& work) const {
        return detail::run_leased(store, request, request.claim(lease), terms(), work);
    }

    /// One trip claims, one completes; the handlers run between, in order of arrival.
    template <BatchStore S>
    std::vector<Verdict>
    run(S& store, std::span<const Request> requests, std::span<const Work<Lease>> works) const;

private:
    [[nodiscard]] detail::LeaseTerms terms() const {
        return {lease, min_remaining, takeover, verifier};
    }
};

namespace detail {

/// A batch under leases: what is claimed, what ran, what is to be completed.
template <BatchStore S>
class LeasedBatch {
    using Ticket = typename S::Ticket;

public:
    LeasedBatch(S& store, std::span<const Request> requests, const LeaseTerms& terms)
        : store_(store)
        , requests_(requests)
        , terms_(terms)
        , firsts_(first_of_each_key(requests))
        , calls_(requests.size())
        , verdicts_(requests.size())
        , results_(requests.size()) {}

    std::vector<Verdict> run(std::span<const Work<Lease>> works) {
        claim();
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            if (!calls_[i]) {
                held_.note(requests_[i], verdicts_[firsts_[i]]);
                continue;
            }
            if (held_.hold(requests_[i])) {
                auto left = settle_fault([&] { return std::optional(calls_[i]->leave()); });
                verdicts_[i] = std::move(*left);
                calls_[i].reset();
            } else if (auto over = settle_fault([&] { return calls_[i]->run(works[i]); })) {
                verdicts_[i] = std::move(*over);
                calls_[i].reset();
                held_.note(requests_[i], verdicts_[i]);
            } else {
                results_[i] = works[i].result();
            }
        }
        complete();
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            if (const auto first = firsts_[i]; first != i) {
                verdicts_[i] =
                    follow(verdicts_[first], results_[first], requests_[first], requests_[i]);
            }
        }
        return std::move(verdicts_);
    }

private:
    void claim() {
        std::vector<ClaimRequest> asked;
        std::vector<std::size_t> of;
        asked.reserve(requests_.size());
        of.reserve(requests_.size());
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            if (firsts_[i] == i) {
                asked.push_back(requests_[i].claim(terms_.lease));
                of.push_back(i);
            }
        }
        const auto sent = lease_now<S>();
        auto claims = store_.claim(std::span<const ClaimRequest>(asked));
        for (std::size_t n = 0; n < of.size(); ++n) {
            if (auto* won = std::get_if<Claimed<Ticket>>(&claims[n])) {
                calls_[of[n]].emplace(store_, requests_[of[n]], terms_, std::move(*won), sent);
            } else {
                verdicts_[of[n]] = verdict_of(std::move(claims[n]));
            }
        }
    }
    void complete() {
        std::vector<Ticket> tickets;
        std::vector<std::string> results;
        std::vector<std::size_t> of;
        tickets.reserve(calls_.size());
        results.reserve(calls_.size());
        of.reserve(calls_.size());
        for (std::size_t i = 0; i < calls_.size(); ++i) {
            if (calls_[i]) {
                tickets.push_back(calls_[i]->release_ticket());
                results.push_back(results_[i]);
                of.push_back(i);
            }
        }
        std::vector<TicketState> states;
        if (!of.empty()) {
            try {
                states = store_.complete(std::span<const Ticket>(tickets),
                                         std::span<const std::string>(results));
            } catch (const StoreError&) { // each by itself below, which repeats while leases last
                states.clear();
            }
        }
        for (std::size_t n = 0; n < of.size(); ++n) {
            auto& call = *calls_[of[n]];
            auto over = settle_fault([&]() -> std::optional<Verdict> {
                if (n < states.size()) {
                    return call.completed(states[n]);
                }
                call.take_back(std::move(tickets[n]));
                return call.complete(results[n]);
            });
            verdicts_[of[n]] = std::move(*over);
        }
    }
    /// A store's failure after the claims concerns one message, and becomes its verdict.
    template <class Step>
    std::optional<Verdict> settle_fault(const Step& step) {
        try {
            return step();
        } catch (const StoreError& error) {
            auto verdict = failed_verdict(std::current_exception(), 0);
            verdict.fault = error.fault();
            return verdict;
        }
    }

    S& store_;
    std::span<const Request> requests_;
    const LeaseTerms& terms_;
    std::vector<std::size_t> firsts_;
    HeldPartitions held_;
    std::vector<std::optional<LeasedCall<S>>> calls_;
    std::vector<Verdict> verdicts_;
    std::vector<std::string> results_;
};

} // namespace detail

template <BatchStore S>
std::vector<Verdict> DistributedLock::run(S& store,
                                          std::span<const Request> requests,
                                          std::span<const Work<Lease>> works) const {
    const auto agreed = terms();
    detail::require_takeover<S>(agreed);
    return detail::LeasedBatch<S>(store, requests, agreed).run(works);
}

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_DISTRIBUTED_LOCK_HPP
