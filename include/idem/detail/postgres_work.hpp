// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_WORK_HPP
#define IDEM_DETAIL_POSTGRES_WORK_HPP

// The claims of one transaction, and their records.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/postgres_claims.hpp>
#include <idem/detail/postgres_fences.hpp>
#include <idem/detail/postgres_held.hpp>
#include <idem/detail/postgres_scope.hpp>

#include <algorithm>
#include <chrono>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

class PostgresWork {
public:
    /// Keys of one batch at most: each is a lock, of which the server has a bounded number for all
    /// its clients (semantics.md 6.7).
    static constexpr std::size_t most_keys = 500;

    explicit PostgresWork(PostgresCore& core) : core_(core), scope_(core) {}
    PostgresWork(PostgresCore& core, PGconn* users)
        : core_(core)
        , scope_(core, users)
        , users_(users) {}
    PostgresWork(const PostgresWork&) = delete;
    PostgresWork& operator=(const PostgresWork&) = delete;
    ~PostgresWork() { rollback(); }

    [[nodiscard]] bool conflicted() const noexcept { return scope_.conflicted(); }

    Claim<std::monostate> claim(const ClaimRequest& request) {
        const auto lock = require_claimable(request);
        for (int round = 0; round < 4; ++round) {
            const bool alone = scope_.owned() && scope_.fresh();
            const auto inserted = claims_.insert(request, lock);
            if (!inserted) {
                return InProgress{milliseconds{0}}; // the statement gave up waiting: 55P03
            }
            if (*inserted == 1) {
                hold(request, lock, true);
                return Claimed<std::monostate>{};
            }
            if (alone) { // most are duplicates: told without one more trip for the ROLLBACK
                const auto record = claims_.read_outside(request);
                if (!record) {
                    return InProgress{milliseconds{0}}; // its lock was held, nothing is committed
                }
                if (PostgresClaims::is_decided(*record)) {
                    return judge(*record, request);
                }
            }
            const auto look = claims_.read(std::span(&request, 1), {lock});
            if (!look.records[0]) {
                if (!look.locked[0]) {
                    return InProgress{milliseconds{0}};
                }
                continue; // its holder rolled back since, or it was pruned
            }
            auto answer = PostgresClaims::judge_locked(*look.records[0], request, look.locked[0]);
            const auto* won = std::get_if<Claimed<std::monostate>>(&answer);
            if (won == nullptr) {
                return answer;
            }
            if (claims_.take(request, *look.records[0], won->attempt)) {
                hold(request, lock, true);
                return answer;
            }
        }
        return InProgress{milliseconds{0}};
    }

    std::vector<Claim<std::monostate>> claim(std::span<const ClaimRequest> requests) {
        if (requests.size() > most_keys) {
            throw std::invalid_argument("idem: a batch has " + std::to_string(requests.size()) +
                                        " keys; the limit is " + std::to_string(most_keys));
        }
        std::vector<std::int64_t> locks;
        for (const auto& request : requests) {
            locks.push_back(require_claimable(request));
            if (std::find(locks.begin(), locks.end() - 1, locks.back()) != locks.end() - 1) {
                throw std::logic_error("idem: the keys of a batch must differ");
            }
        }
        std::vector<Claim<std::monostate>> answers;
        if (requests.empty()) {
            return answers;
        }
        const auto look = claims_.read(requests, locks);
        for (std::size_t at = 0; at < requests.size(); ++at) {
            const auto& record = look.records[at];
            answers.push_back(
                record ? PostgresClaims::judge_locked(*record, requests[at], look.locked[at])
                : look.locked[at] ? Claim<std::monostate>(Claimed<std::monostate>{})
                                  : InProgress{milliseconds{0}});
            if (std::holds_alternative<Claimed<std::monostate>>(answers.back())) {
                hold(requests[at], locks[at], false);
            }
        }
        return answers;
    }

    Claim<std::monostate> advance(std::string_view scope, const Position& position) {
        scope_.require_open();
        require_valid(scope, position);
        auto answer = fences_.advance(scope, position);
        if (scope_.native_given() && std::holds_alternative<Claimed<std::monostate>>(answer)) {
            reopen_rows();
        }
        return answer;
    }

    /// Nothing travels before the commit.
    void complete(const ClaimRequest& request, std::string_view result) {
        scope_.require_open();
        for (auto& held : held_) {
            if (held.key() == request.key) {
                held.result = result;
                held.retention = request.retention;
                return;
            }
        }
        throw std::logic_error("idem: complete() of a key that this transaction did not claim");
    }

    PqResult execute(PqStatement statement, bool leaves_session) {
        if (leaves_session) {
            scope_.reset_session_afterwards();
        }
        PostgresSteps steps;
        steps.push_back({std::move(statement), PostgresOrigin::handler});
        return std::move(scope_.run(std::move(steps))[0]);
    }
    void post(PqStatement statement, bool leaves_session) {
        scope_.require_open();
        if (leaves_session) {
            scope_.reset_session_afterwards();
        }
        scope_.post({std::move(statement), PostgresOrigin::handler});
    }
    /// Whoever has the connection may commit by it, so the records are open until complete(), and
    /// the transaction is marked, so that the commit can tell whether it is still ours.
    PGconn* native() {
        scope_.require_open();
        auto steps = reopening(core_.sql(), scope_.nonce(), held_);
        fences_.reopen(steps);
        if (scope_.owned() && !scope_.native_given()) {
            steps.push_back(scope_.marking());
        }
        if (!steps.empty() || !scope_.begun() || scope_.has_pending()) {
            scope_.run(std::move(steps));
        }
        return scope_.native();
    }
    void savepoint() { scope_.savepoint(); }
    void back_to_savepoint() { scope_.back_to_savepoint(); }

    void commit() {
        scope_.require_sound();
        auto steps = sealing(core_.sql(), scope_.nonce(), held_);
        fences_.seal(steps);
        IDEM_FAILPOINT("postgres: before commit");
        if (steps.empty() && scope_.fresh()) {
            finish();
            return;
        }
        if (scope_.native_given() && scope_.owned()) {
            // Before the records: in a transaction that the handler began they are not there.
            steps.insert(steps.begin(),
                         {{core_.sql().still_ours, {PqParameter{hexadecimal(scope_.nonce())}}},
                          PostgresOrigin::still_ours});
        }
        steps.push_back(scope_.ending());
        const auto leg = scope_.attempt(steps, false);
        IDEM_FAILPOINT("postgres: commit answered");
        if (!leg.ok()) {
            judge_commit(leg, steps);
            return;
        }
        if (std::string_view(PQcmdStatus(leg.results.back().get())) != scope_.ending_tag()) {
            finish();
            throw PostgresError("25P02",
                                "idem: a statement of the handler failed, and it went on: the "
                                "server rolled the transaction back");
        }
        finish();
    }
    void rollback() noexcept {
        scope_.rollback();
        forget_joined();
    }

private:
    std::int64_t require_claimable(const ClaimRequest& request) const {
        scope_.require_open();
        require_valid(request.key);
        if (!request.token.empty()) {
            throw std::logic_error("idem: a transaction's claim takes no token; OneTimeToken works "
                                   "by lease");
        }
        const auto lock = core_.lock_of(request.key);
        const bool nested =
            std::any_of(held_.begin(),
                        held_.end(),
                        [&](const PostgresHeld& held) { return held.key() == request.key; }) ||
            (users_ != nullptr && core_.joined().holds(users_, lock));
        if (nested) {
            throw std::logic_error("idem: this transaction has claimed this key already: a handler "
                                   "must not handle its own message again");
        }
        return lock;
    }
    void hold(const ClaimRequest& request, std::int64_t lock, bool recorded) {
        held_.push_back({std::string(request.key.scope),
                         std::string(request.key.id),
                         lock,
                         request.fingerprint,
                         request.retention,
                         recorded});
        if (users_ != nullptr) {
            core_.joined().add(users_, lock);
        }
        if (recorded && scope_.native_given()) {
            reopen_rows();
        }
    }
    void reopen_rows() {
        auto steps = reopening(core_.sql(), scope_.nonce(), held_);
        fences_.reopen(steps);
        scope_.run(std::move(steps));
    }

    /// Of a leg with a COMMIT in it that did not end well. Returns where it committed after all.
    void judge_commit(const PqLeg& leg, const PostgresSteps& steps) {
        const bool sent = leg.link_lost && (!leg.failed || *leg.failed + 1 == steps.size());
        if (!scope_.owned() || !sent) {
            scope_.fail(leg, steps);
        }
        scope_.lose(); // its place in the pool is free for the question
        const auto sealed = std::find_if(
            held_.begin(), held_.end(), [](const PostgresHeld& held) { return !!held.result; });
        auto committed = PostgresCore::Committed::unknown;
        if (sealed != held_.end()) {
            committed = core_.did_commit(sealed->key(), scope_.nonce());
        } else if (!fences_.empty()) {
            const auto& fence = fences_.last();
            committed =
                core_.did_advance(fence.scope, fence.partition, fence.offset, scope_.nonce());
        }
        switch (committed) {
        case PostgresCore::Committed::yes:
            return;
        case PostgresCore::Committed::no:
            scope_.set_conflicted();
            throw store_error(leg.sqlstate, leg.message, "the commit did not happen");
        case PostgresCore::Committed::unknown:
            break;
        }
        throw StoreError(
            Fault::in_doubt,
            explained(leg.sqlstate, leg.message, "the commit was sent, its end is unknown"));
    }
    void finish() noexcept {
        scope_.finish();
        forget_joined();
    }
    void forget_joined() noexcept {
        for (const auto& held : held_) {
            if (users_ != nullptr) {
                core_.joined().remove(users_, held.lock);
            }
        }
        held_.clear();
        fences_.forget();
    }

    PostgresCore& core_;
    PostgresScope scope_;
    PostgresClaims claims_{core_, scope_};
    PostgresFences fences_{core_, scope_};
    PGconn* users_ = nullptr;
    std::vector<PostgresHeld> held_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_WORK_HPP
