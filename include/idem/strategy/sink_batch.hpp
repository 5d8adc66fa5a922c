// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_SINK_BATCH_HPP
#define IDEM_STRATEGY_SINK_BATCH_HPP

// Several messages in one transaction of a broker: all of them, without those that failed, one by
// one.

#include <idem/detail/failpoint.hpp>
#include <idem/strategy/position.hpp>
#include <idem/strategy/table_attempt.hpp>
#include <idem/strategy/transactional_sink.hpp>

#include <cstddef>
#include <exception>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

/// One call of BrokerTransaction. Offsets are consumed in order, so within a partition nothing is
/// committed behind a message that is not: a dead letter too must be confirmed first.
template <class S>
class SinkBatch {
    using Tx = typename S::Transaction;
    using Won = Claimed<std::monostate>;

public:
    SinkBatch(S& sink, std::span<const Request> requests, std::span<const Work<Tx>> works)
        : sink_(sink)
        , requests_(requests)
        , works_(works)
        , verdicts_(requests.size())
        , over_(requests.size()) {
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            if (!requests_[i].position) {
                verdicts_[i] = without_position("BrokerTransaction");
                over_[i] = true;
            }
        }
    }

    /// Throws: StoreError, where none of it is committed.
    std::vector<Verdict> run() {
        for (int pass = 0; pass < 2; ++pass) {
            auto asked = startable();
            if (asked.empty() || attempt(std::move(asked))) {
                return std::move(verdicts_);
            }
        }
        if (requests_.size() == 1) {
            std::rethrow_exception(fault_);
        }
        run_singly(startable());
        return std::move(verdicts_);
    }

private:
    /// What is undecided and may start, in order; the rest waits for what stands before it.
    std::vector<std::size_t> startable() {
        std::vector<std::size_t> found;
        PassedOver held;
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            if (over_[i]) {
                held.behind(requests_[i]);
            } else if (held.holds(requests_[i])) {
                verdicts_[i] = waiting();
            } else {
                found.push_back(i);
            }
        }
        return found;
    }
    /// In one transaction. True: its verdicts stand. False: nothing of it happened; those that
    /// failed by themselves are decided, and fault_ is what failed else.
    /// Throws: StoreError where no further attempt is worth it.
    bool attempt(std::vector<std::size_t> asked) {
        fault_ = nullptr;
        IDEM_FAILPOINT("sink: before begin");
        Tx tx = sink_.begin();
        std::exception_ptr refused; // by what is no store's failure
        try {
            std::vector<Request> copies;
            auto claims = tx.claim(chosen(asked, copies));
            IDEM_FAILPOINT("sink: after claim");
            std::vector<std::size_t> done;
            const auto failed = handle(tx, asked, claims, done);
            if (!failed && fault_ == nullptr) {
                seal(tx, done);
                return true;
            }
            tx.abort();
            if (failed) {
                charge_failed(*failed);
            }
            return false;
        } catch (const StoreError& error) {
            fault_ = std::current_exception();
            tx.abort();
            if (error.fault() != Fault::unavailable && error.fault() != Fault::lease_lost) {
                throw;
            }
            return false;
        } catch (...) {
            refused = std::current_exception();
        }
        tx.abort();
        if (asked.size() == 1) { // it is known whose output it was
            verdicts_[asked[0]] = failed_verdict(refused, verdicts_[asked[0]].attempts);
            charge_failed(asked[0]);
        }
        return false;
    }
    /// Runs the handlers. Which one failed; none where fault_ is set or all went well.
    std::optional<std::size_t> handle(Tx& tx,
                                      const std::vector<std::size_t>& asked,
                                      std::vector<Claim<std::monostate>>& claims,
                                      std::vector<std::size_t>& done) {
        PassedOver held;
        for (std::size_t n = 0; n < asked.size(); ++n) {
            const auto i = asked[n];
            if (held.holds(requests_[i])) {
                verdicts_[i] = waiting();
                continue;
            }
            const auto* won = std::get_if<Won>(&claims[n]);
            if (won == nullptr) {
                const bool completed = std::holds_alternative<Completed>(claims[n]);
                verdicts_[i] = verdict_of(std::move(claims[n]));
                completed ? done.push_back(i) : held.behind(requests_[i]);
                continue;
            }
            const unsigned attempts = won->attempt;
            verdicts_[i] = {};
            verdicts_[i].attempts = attempts;
            std::exception_ptr error;
            if (run_handler(works_[i], tx, error)) {
                done.push_back(i);
                continue;
            }
            if (is_conflicted(tx)) {
                fault_ = std::make_exception_ptr(StoreError(
                    Fault::unavailable,
                    "idem: the broker's transaction failed under the handler, nothing of it "
                    "happened: retry later; the last error: " +
                        what_of(error)));
                return {};
            }
            verdicts_[i] = failed_verdict(std::move(error), attempts);
            return i;
        }
        return {};
    }
    void seal(Tx& tx, const std::vector<std::size_t>& done) {
        if (done.empty()) {
            tx.abort();
            return;
        }
        std::vector<Request> copies;
        IDEM_FAILPOINT("sink: before commit");
        tx.commit(chosen(done, copies));
        IDEM_FAILPOINT("sink: after commit");
    }
    /// One of them may fail the transaction for all: each gets one of its own. Once the broker
    /// fails, the rest does not start.
    void run_singly(const std::vector<std::size_t>& left) {
        bool down = false;
        PassedOver held;
        for (std::size_t i = 0, next = 0; i < requests_.size(); ++i) {
            const bool ours = next < left.size() && left[next] == i;
            next += ours ? 1 : 0;
            if (!ours && over_[i]) {
                held.behind(requests_[i]);
            } else if (held.holds(requests_[i])) {
                verdicts_[i] = waiting();
            } else if (ours && down) {
                verdicts_[i] = faulty();
            } else if (ours && !run_single(i)) {
                held.behind(requests_[i]);
                down = fault_ != nullptr && verdicts_[i].fault != Fault::lease_lost;
            }
        }
    }
    /// False: nothing behind it may be committed.
    bool run_single(std::size_t i) {
        try {
            if (attempt({i})) {
                const auto status = verdicts_[i].status;
                return status == Status::executed || status == Status::replayed ||
                       status == Status::skipped;
            }
        } catch (const StoreError&) {
            fault_ = std::current_exception();
        }
        if (fault_ != nullptr) {
            verdicts_[i] = faulty();
        }
        return false;
    }
    [[nodiscard]] Verdict faulty() const {
        auto verdict = failed_verdict(fault_, 0);
        try {
            std::rethrow_exception(fault_);
        } catch (const StoreError& error) {
            verdict.fault = error.fault();
        }
        return verdict;
    }
    void charge_failed(std::size_t i) {
        over_[i] = true;
        if constexpr (FailureCountingSink<S>) {
            if (!uncharged(verdicts_[i])) {
                sink_.record_failure(requests_[i], what_of(verdicts_[i].error));
            }
        }
    }
    [[nodiscard]] static bool is_conflicted(const Tx& tx) {
        if constexpr (ConflictingTransaction<Tx>) {
            return tx.conflicted();
        }
        return false;
    }
    /// Those of these places; copied only where they are not all.
    [[nodiscard]] std::span<const Request> chosen(const std::vector<std::size_t>& places,
                                                  std::vector<Request>& copies) const {
        if (places.size() == requests_.size()) {
            return requests_;
        }
        copies.reserve(places.size());
        for (const auto i : places) {
            copies.push_back(requests_[i]);
        }
        return copies;
    }

    S& sink_;
    std::span<const Request> requests_;
    std::span<const Work<Tx>> works_;
    std::vector<Verdict> verdicts_;
    std::vector<bool> over_;     ///< decided, and not done
    std::exception_ptr fault_{}; ///< of the last attempt: the broker's, not a handler's
};

} // namespace idem::inline v0::detail

#endif // IDEM_STRATEGY_SINK_BATCH_HPP
