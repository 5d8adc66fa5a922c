// SPDX-License-Identifier: MIT
// A TransactionalStore in memory that keeps the laws, and fails where its script says. The contract
// is run over it too, so that neither the suite nor this model is believed alone.

#pragma once

#include <idem/dedup_store.hpp>
#include <idem/strategy/strategy.hpp>

#include <map>
#include <mutex>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "strategy/script.hpp"

class ScriptedTable {
    using Name = std::pair<std::string, std::string>;
    using Claim = idem::Claim<std::monostate>;
    struct Record {
        bool done = false;
        unsigned attempts = 0;
        idem::Fingerprint fingerprint{};
        std::string result{};
    };
    struct State {
        std::mutex mutex;
        std::map<Name, Record> records;
        std::set<Name> held;
        std::multiset<std::string> effects;
        unsigned open = 0;
    };

public:
    static constexpr auto durability = idem::Durability::process;

    class Transaction {
    public:
        explicit Transaction(ScriptedTable& table) : table_(&table) {
            const std::scoped_lock lock(state().mutex);
            ++state().open;
        }
        Transaction(Transaction&& other) noexcept { swap(other); }
        Transaction& operator=(Transaction&& other) noexcept {
            Transaction moved(std::move(other));
            swap(moved);
            return *this;
        }
        ~Transaction() { end(); }

        Claim claim(const idem::ClaimRequest& request) {
            return script().run("claim", &conflicted_, [&] { return claim_one(request); });
        }
        std::vector<Claim> claim(std::span<const idem::ClaimRequest> requests) {
            return script().run("claim", &conflicted_, [&] {
                std::vector<Claim> claims;
                for (const auto& request : requests) {
                    claims.push_back(claim_one(request));
                }
                return claims;
            });
        }
        /// The handler's own statement.
        void write(const std::string& effect) {
            script().run("write", &conflicted_, [&] { effects_.push_back(effect); });
        }
        void complete(const idem::ClaimRequest& request, std::string_view result) {
            script().run("complete", &conflicted_, [&] { add(request, result); });
        }
        void complete(std::span<const idem::ClaimRequest> requests,
                      std::span<const std::string> results) {
            script().run("complete", &conflicted_, [&] {
                for (std::size_t i = 0; i < requests.size(); ++i) {
                    add(requests[i], results[i]);
                }
            });
        }
        void savepoint() {
            script().run("savepoint", &conflicted_, [&] { savepoint_ = effects_.size(); });
        }
        void back_to_savepoint() {
            script().run("back", &conflicted_, [&] { effects_.resize(savepoint_); });
        }
        void commit() {
            script().run("commit", &conflicted_, [&] {
                const std::scoped_lock lock(state().mutex);
                for (auto& [name, record] : records_) {
                    record.attempts = state().records[name].attempts + 1;
                    state().records[name] = record;
                }
                state().effects.insert(effects_.begin(), effects_.end());
            });
            end();
        }
        void rollback() noexcept {
            if (auto* table = table_; table != nullptr) {
                end();
                table->script.run("rollback", nullptr, [] {});
            }
        }
        [[nodiscard]] bool conflicted() const noexcept { return conflicted_; }

    private:
        [[nodiscard]] Script& script() const { return table_->script; }
        [[nodiscard]] State& state() const { return table_->state_; }
        void swap(Transaction& other) noexcept {
            std::swap(table_, other.table_);
            std::swap(held_, other.held_);
            std::swap(records_, other.records_);
            std::swap(effects_, other.effects_);
            std::swap(savepoint_, other.savepoint_);
            std::swap(conflicted_, other.conflicted_);
        }
        Claim claim_one(const idem::ClaimRequest& request) {
            idem::require_valid(request.key);
            const Name name{request.key.scope, request.key.id};
            if (held_.count(name) != 0) {
                throw std::logic_error("a nested claim of one key in one transaction");
            }
            const std::scoped_lock lock(state().mutex);
            if (state().held.count(name) != 0) {
                return idem::InProgress{idem::milliseconds{0}};
            }
            auto answer = table_->answer(request, name);
            if (std::holds_alternative<idem::Claimed<std::monostate>>(answer)) {
                state().held.insert(name);
                held_.insert(name);
            }
            return answer;
        }
        void add(const idem::ClaimRequest& request, std::string_view result) {
            records_[{std::string(request.key.scope), std::string(request.key.id)}] = {
                .done = true, .fingerprint = request.fingerprint, .result = std::string(result)};
        }
        void end() noexcept {
            if (table_ == nullptr) {
                return;
            }
            const std::scoped_lock lock(state().mutex);
            for (const auto& name : held_) {
                state().held.erase(name);
            }
            --state().open;
            table_ = nullptr;
        }

        ScriptedTable* table_ = nullptr;
        std::set<Name> held_;
        std::map<Name, Record> records_;
        std::vector<std::string> effects_;
        std::size_t savepoint_ = 0;
        bool conflicted_ = false;
    };

    Transaction begin() {
        return script.run("begin", nullptr, [this] { return Transaction(*this); });
    }
    /// The user's own transaction: here the savepoint in it is a transaction by itself.
    Transaction join(int) { return Transaction(*this); }
    void record_failure(const idem::ClaimRequest& request, std::string_view) noexcept {
        script.run("record_failure", nullptr, [&] {
            const Name name{request.key.scope, request.key.id};
            const std::scoped_lock lock(state_.mutex);
            if (state_.held.count(name) != 0) {
                std::terminate(); // r3_2: waits for our own row for ever
            }
            auto& record = state_.records[name];
            if (!record.done) {
                ++record.attempts;
                record.fingerprint = request.fingerprint;
            }
        });
    }
    void refund_failure(const idem::ClaimRequest& request) noexcept {
        script.run("refund_failure", nullptr, [&] {
            const Name name{request.key.scope, request.key.id};
            const std::scoped_lock lock(state_.mutex);
            auto& record = state_.records[name];
            if (!record.done && record.attempts > 0) {
                --record.attempts;
            }
        });
    }
    Claim peek(const idem::ClaimRequest& request) {
        return script.run("peek", nullptr, [&] {
            const std::scoped_lock lock(state_.mutex);
            return answer(request, {std::string(request.key.scope), std::string(request.key.id)});
        });
    }

    [[nodiscard]] std::size_t effects(const std::string& effect) {
        const std::scoped_lock lock(state_.mutex);
        return state_.effects.count(effect);
    }
    [[nodiscard]] std::size_t effects() {
        const std::scoped_lock lock(state_.mutex);
        return state_.effects.size();
    }
    /// Attempts on record; 0 where there is none.
    [[nodiscard]] unsigned attempts(const std::string& scope, const std::string& id) {
        const std::scoped_lock lock(state_.mutex);
        return state_.records[{scope, id}].attempts;
    }
    /// Transactions that nobody ended.
    [[nodiscard]] unsigned open() {
        const std::scoped_lock lock(state_.mutex);
        return state_.open;
    }

    Script script;

private:
    Claim answer(const idem::ClaimRequest& request, const Name& name) {
        const auto found = state_.records.find(name);
        const Record record = found == state_.records.end() ? Record{} : found->second;
        if (record.fingerprint.conflicts_with(request.fingerprint)) {
            return idem::Conflict{};
        }
        if (record.done) {
            return idem::Completed{record.result};
        }
        if (request.max_attempts > 0 && record.attempts >= request.max_attempts) {
            return idem::Dead{record.attempts};
        }
        return idem::Claimed<std::monostate>{{}, record.attempts + 1};
    }

    State state_;
};

static_assert(idem::RefundingTransactionalStore<ScriptedTable> &&
              idem::PeekingStore<ScriptedTable> && idem::JoinableStore<ScriptedTable, int> &&
              idem::BatchTransaction<ScriptedTable::Transaction>);
