// SPDX-License-Identifier: MIT
// A TransactionalSink in memory that keeps the laws, and fails where its script says.

#pragma once

#include <idem/strategy/transactional_sink.hpp>

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "strategy/script.hpp"

class ScriptedSink {
    using Claim = idem::Claim<std::monostate>;
    using Place = std::pair<std::string, std::uint64_t>;

public:
    static constexpr auto covers = idem::Covers::redelivered;

    class Transaction {
    public:
        explicit Transaction(ScriptedSink& sink) : sink_(&sink) { ++sink_->open_; }
        Transaction(Transaction&& other) noexcept
            : sink_(std::exchange(other.sink_, nullptr))
            , outputs_(std::move(other.outputs_)) {}
        Transaction& operator=(Transaction&&) = delete;
        ~Transaction() { abort(); }

        std::vector<Claim> claim(std::span<const idem::Request> requests) {
            return script().run("claim", &conflicted_, [&] {
                std::vector<Claim> claims;
                for (const auto& request : requests) {
                    claims.push_back(sink_->answer(request));
                }
                return claims;
            });
        }
        /// What a handler produces.
        void send(const std::string& output) {
            script().run("send", &conflicted_, [&] { outputs_.push_back(output); });
        }
        void commit(std::span<const idem::Request> requests) {
            script().run("commit", &conflicted_, [&] {
                for (const auto& request : requests) {
                    auto& next = sink_->committed[std::string(request.position->partition)];
                    if (request.position->offset < next) {
                        throw std::logic_error("an offset was committed twice");
                    }
                    next = request.position->offset + 1;
                }
                for (auto& output : outputs_) {
                    sink_->outputs.push_back(output);
                }
            });
            --std::exchange(sink_, nullptr)->open_;
        }
        void abort() noexcept {
            if (sink_ != nullptr) {
                --sink_->open_;
                std::exchange(sink_, nullptr)->script.run("abort", nullptr, [] {});
            }
        }
        [[nodiscard]] bool conflicted() const noexcept { return conflicted_; }

    private:
        [[nodiscard]] Script& script() const { return sink_->script; }

        ScriptedSink* sink_;
        std::vector<std::string> outputs_{};
        bool conflicted_ = false;
    };

    Transaction begin() {
        return script.run("begin", nullptr, [this] {
            if (open_ != 0) {
                throw std::logic_error("two transactions at once");
            }
            return Transaction(*this);
        });
    }
    void record_failure(const idem::Request& request, std::string_view) noexcept {
        script.run("record_failure", nullptr, [&] {
            if (open_ != 0) {
                std::terminate();
            }
            ++failures[place(request)];
        });
    }
    [[nodiscard]] unsigned open() const noexcept { return open_; }

    Script script;
    std::vector<std::string> outputs;               ///< committed
    std::map<std::string, std::uint64_t> committed; ///< one past, by partition
    std::map<Place, unsigned> failures;
    std::set<Place> taken_away, logged;

private:
    static Place place(const idem::Request& request) {
        return {std::string(request.position->partition), request.position->offset};
    }
    Claim answer(const idem::Request& request) {
        const auto at = place(request);
        if (taken_away.count(at) != 0) {
            return idem::InProgress{idem::milliseconds{0}};
        }
        if (logged.count(at) != 0) {
            return idem::Completed{idem::omitted_result()};
        }
        if (request.max_attempts > 0 && failures[at] >= request.max_attempts) {
            return idem::Dead{failures[at]};
        }
        return idem::Claimed<std::monostate>{{}, failures[at] + 1};
    }

    unsigned open_ = 0;
};

static_assert(idem::FailureCountingSink<ScriptedSink> &&
              idem::ConflictingTransaction<ScriptedSink::Transaction>);
