// SPDX-License-Identifier: MIT
// A store of fence rows in memory that keeps the laws, and fails where its script says.

#pragma once

#include <idem/fenced_store.hpp>
#include <idem/outcome.hpp>

#include <cstdint>
#include <exception>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "strategy/script.hpp"

class ScriptedFence {
    using Claim = idem::Claim<std::monostate>;
    using Name = std::pair<std::string, std::string>;

public:
    struct Row {
        std::optional<std::uint64_t> handled{};
        std::uint64_t tried = 0;
        unsigned attempts = 0;
    };

    class Transaction {
    public:
        explicit Transaction(ScriptedFence& fence) : fence_(&fence) {}
        Transaction(Transaction&& other) noexcept
            : fence_(std::exchange(other.fence_, nullptr))
            , moved_(std::move(other.moved_))
            , effects_(std::move(other.effects_)) {}
        Transaction& operator=(Transaction&& other) noexcept {
            std::swap(fence_, other.fence_);
            std::swap(moved_, other.moved_);
            std::swap(effects_, other.effects_);
            return *this;
        }
        ~Transaction() { end(); }

        Claim advance(std::string_view scope, const idem::Position& position) {
            return fence_->script.run("advance", &conflicted_, [&]() -> Claim {
                const Name name{scope, position.partition};
                if (fence_->held) {
                    return idem::InProgress{idem::milliseconds{0}};
                }
                auto answer = fence_->answer(scope, position);
                if (std::holds_alternative<idem::Claimed<std::monostate>>(answer)) {
                    moved_.emplace(name, position.offset);
                    fence_->held = true;
                }
                return answer;
            });
        }
        void write(const std::string& effect) {
            fence_->script.run("write", &conflicted_, [&] { effects_.push_back(effect); });
        }
        Claim claim(const idem::ClaimRequest&) { std::terminate(); } // not by key
        void complete(const idem::ClaimRequest&, std::string_view) { std::terminate(); }
        void commit() {
            fence_->script.run("commit", &conflicted_, [&] {
                fence_->rows[moved_->first].handled = moved_->second;
                for (auto& effect : effects_) {
                    fence_->effects.push_back(effect);
                }
            });
            end();
        }
        void rollback() noexcept {
            if (auto* fence = fence_; fence != nullptr) {
                end();
                fence->script.run("rollback", nullptr, [] {});
            }
        }
        [[nodiscard]] bool conflicted() const noexcept { return conflicted_; }

    private:
        void end() noexcept {
            if (fence_ != nullptr && moved_) {
                fence_->held = false;
            }
            fence_ = nullptr;
        }

        ScriptedFence* fence_;
        std::optional<std::pair<Name, std::uint64_t>> moved_{};
        std::vector<std::string> effects_{};
        bool conflicted_ = false;
    };

    Transaction begin() {
        return script.run("begin", nullptr, [this] { return Transaction(*this); });
    }
    Transaction join(int) { return Transaction(*this); }
    void record_failure(const idem::ClaimRequest&, std::string_view) noexcept { std::terminate(); }

    void record_failure(std::string_view scope,
                        const idem::Position& position,
                        std::string_view) noexcept {
        script.run("record_failure", nullptr, [&] {
            if (held) {
                std::terminate(); // r3_2: waits for our own row for ever
            }
            auto& row = rows[{std::string(scope), std::string(position.partition)}];
            row.attempts = row.tried == position.offset ? row.attempts + 1 : 1;
            row.tried = position.offset;
        });
    }
    void refund_failure(std::string_view scope, const idem::Position& position) noexcept {
        script.run("refund_failure", nullptr, [&] {
            --rows[{std::string(scope), std::string(position.partition)}].attempts;
        });
    }
    Claim peek(std::string_view scope, const idem::Position& position) {
        return script.run("peek", nullptr, [&] { return answer(scope, position); });
    }
    std::optional<std::uint64_t> next(std::string_view scope, std::string_view partition) {
        const auto handled = rows[{std::string(scope), std::string(partition)}].handled;
        return handled ? std::optional(*handled + 1) : std::nullopt;
    }
    void passed(std::string_view scope, const idem::Position& position) {
        rows[{std::string(scope), std::string(position.partition)}].handled = position.offset;
    }

    Script script;
    std::map<Name, Row> rows;
    std::vector<std::string> effects; ///< committed
    bool held = false;                ///< by an open transaction, or by a test

private:
    Claim answer(std::string_view scope, const idem::Position& position) {
        const auto& row = rows[{std::string(scope), std::string(position.partition)}];
        if (row.handled && *row.handled >= position.offset) {
            return idem::Completed{idem::omitted_result()};
        }
        const bool failed = row.tried == position.offset;
        return idem::Claimed<std::monostate>{{}, failed ? row.attempts + 1 : 1};
    }
};

static_assert(idem::FailureCountingFence<ScriptedFence> && idem::JoinableStore<ScriptedFence, int>);
