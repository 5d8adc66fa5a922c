// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_TABLE_BATCH_HPP
#define IDEM_STRATEGY_TABLE_BATCH_HPP

// Several messages in one transaction: a savepoint each, the records last (semantics.md 6.7).

#include <idem/strategy/batch.hpp>
#include <idem/strategy/table_attempt.hpp>

#include <cstddef>
#include <exception>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0 {

namespace detail {

/// One chunk of a batch, in one transaction where that succeeds.
template <class Strategy, class S>
class TableBatch {
    using Tx = typename S::Transaction;

public:
    TableBatch(const Strategy& strategy,
               S& store,
               std::span<const Request> requests,
               std::span<const Work<Tx>> works,
               HeldPartitions& held)
        : strategy_(strategy)
        , store_(store)
        , requests_(requests)
        , works_(works)
        , before_(held)
        , held_(held)
        , firsts_(first_of_each_key(requests)) {}

    std::vector<Verdict> run() {
        for (int whole = 0; whole < 2; ++whole) {
            if (try_whole()) {
                charge_failed();
                follow_firsts();
                return std::move(verdicts_);
            }
            pause_before_rerun(1, requests_[0].key);
        }
        return run_singly();
    }
    std::vector<Verdict> run_singly() {
        verdicts_.clear();
        held_ = before_;
        for (std::size_t i = 0; i < requests_.size(); ++i) { // duplicates meet the first's record
            verdicts_.push_back(held_.hold(requests_[i]) ? waiting() : single(i));
            held_.note(requests_[i], verdicts_[i]);
        }
        return std::move(verdicts_);
    }

private:
    /// False: nothing of it happened.
    bool try_whole() {
        verdicts_.assign(requests_.size(), {});
        results_.assign(requests_.size(), {});
        done_.clear();
        done_results_.clear();
        held_ = before_;
        auto tx = store_.begin();
        bool committed = false;
        try {
            committed = handle_all(tx) && seal_all(tx);
        } catch (...) { // of savepoint() too: a handler broke the transaction for the others
            if (!tx.conflicted()) {
                throw;
            }
        }
        tx.rollback();
        return committed;
    }
    bool handle_all(Tx& tx) {
        std::vector<ClaimRequest> asked;
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            if (firsts_[i] == i) {
                asked.push_back(requests_[i].claim());
            }
        }
        std::vector<Claim<std::monostate>> claims;
        try {
            claims = tx.claim(std::span<const ClaimRequest>(asked));
        } catch (const StoreError&) {
            if (!tx.conflicted()) {
                throw;
            }
            return false;
        }
        for (std::size_t i = 0, n = 0; i < requests_.size(); ++i) {
            if (firsts_[i] != i) { // it may stand in another partition than its first
                held_.note(requests_[i], verdicts_[firsts_[i]]);
                continue;
            }
            if (held_.hold(requests_[i])) {
                verdicts_[i] = waiting();
            } else if (!handle_one(tx, asked[n], i, std::move(claims[n]))) {
                return false;
            }
            held_.note(requests_[i], verdicts_[i]);
            ++n;
        }
        return true;
    }
    bool
    handle_one(Tx& tx, const ClaimRequest& asked, std::size_t i, Claim<std::monostate>&& claim) {
        const auto* won = std::get_if<Claimed<std::monostate>>(&claim);
        if (won == nullptr) {
            verdicts_[i] = verdict_of(std::move(claim));
            return true;
        }
        verdicts_[i].attempts = won->attempt;
        tx.savepoint();
        std::exception_ptr error;
        if (run_handler(works_[i], tx, error)) {
            results_[i] = works_[i].result();
            done_.push_back(asked);
            done_results_.push_back(results_[i]);
            return true;
        }
        if (tx.conflicted()) {
            return false;
        }
        verdicts_[i] = failed_verdict(std::move(error), won->attempt);
        tx.back_to_savepoint();
        return !tx.conflicted();
    }
    bool seal_all(Tx& tx) {
        try {
            IDEM_FAILPOINT("table batch: before complete");
            if (!done_.empty()) {
                tx.complete(std::span<const ClaimRequest>(done_),
                            std::span<const std::string>(done_results_));
            }
            IDEM_FAILPOINT("table batch: before commit");
            tx.commit();
            IDEM_FAILPOINT("table batch: after commit");
            return true;
        } catch (const StoreError&) {
            if (!tx.conflicted()) {
                throw;
            }
            return false;
        } catch (...) { // one handler's posted statement or constraint: singly tells which
            return false;
        }
    }
    void charge_failed() noexcept {
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            if (firsts_[i] == i && verdicts_[i].status == Status::failed) {
                charge(store_, requests_[i].claim(), verdicts_[i]);
            }
        }
    }
    void follow_firsts() {
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            if (const auto first = firsts_[i]; first != i) {
                verdicts_[i] =
                    follow(verdicts_[first], results_[first], requests_[first], requests_[i]);
            }
        }
    }
    /// A store's failure concerns one message only from here on: earlier ones are committed.
    Verdict single(std::size_t i) {
        try {
            return strategy_.run(store_, requests_[i], works_[i]);
        } catch (const StoreError& error) {
            auto verdict = failed_verdict(std::current_exception(), 0);
            verdict.fault = error.fault();
            return verdict;
        }
    }

    const Strategy& strategy_;
    S& store_;
    std::span<const Request> requests_;
    std::span<const Work<Tx>> works_;
    const HeldPartitions before_; // by what came before this chunk
    HeldPartitions& held_;
    std::vector<std::size_t> firsts_;
    std::vector<Verdict> verdicts_;
    std::vector<std::string> results_;
    std::vector<ClaimRequest> done_;
    std::vector<std::string> done_results_;
};

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_TABLE_BATCH_HPP
