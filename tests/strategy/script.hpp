// SPDX-License-Identifier: MIT
// What a scripted store was asked, and where it is told to fail.

#pragma once

#include <idem/error.hpp>

#include <algorithm>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// A failure of the `number`-th call of that name, counted from 1.
struct Failure {
    std::string call;
    unsigned number = 1;
    std::exception_ptr error;
    bool happened = false; ///< the call took effect, its answer was lost
    bool conflict = false; ///< the transaction answers conflicted() from then on
};

inline std::exception_ptr fault(idem::Fault which) {
    return std::make_exception_ptr(idem::StoreError(which, "scripted"));
}

class Script {
public:
    /// `error` of 0: every call of that name fails.
    void fail(Failure failure) { failures_.push_back(std::move(failure)); }
    void fail_always(const std::string& call, std::exception_ptr error) {
        fail({.call = call, .number = 0, .error = std::move(error)});
    }
    /// Runs `what` at the end of each call of that name.
    void after(const std::string& call, std::function<void()> what) {
        hooks_[call] = std::move(what);
    }

    /// One call of the store: recorded, then carried out or failed.
    template <class Step>
    auto run(const std::string& call, bool* conflicted, Step step) {
        const Failure* failure = record(call);
        auto raise = [&] {
            if (conflicted != nullptr && failure->conflict) {
                *conflicted = true;
            }
            std::rethrow_exception(failure->error);
        };
        if (failure != nullptr && !failure->happened) {
            end(call);
            raise();
        }
        if constexpr (std::is_void_v<decltype(step())>) {
            step();
            end(call);
            if (failure != nullptr) {
                raise();
            }
        } else {
            auto answer = step();
            end(call);
            if (failure != nullptr) {
                raise();
            }
            return answer;
        }
    }

    [[nodiscard]] unsigned count(std::string_view call) const {
        const std::scoped_lock lock(mutex_);
        return static_cast<unsigned>(std::count(calls_.begin(), calls_.end(), call));
    }
    /// All calls in order, a blank between.
    [[nodiscard]] std::string calls() const {
        const std::scoped_lock lock(mutex_);
        std::string all;
        for (const auto& call : calls_) {
            all += (all.empty() ? "" : " ") + call;
        }
        return all;
    }
    void forget_calls() {
        const std::scoped_lock lock(mutex_);
        calls_.clear();
        failures_.clear();
    }

private:
    const Failure* record(const std::string& call) {
        const std::scoped_lock lock(mutex_);
        calls_.push_back(call);
        const auto number = std::count(calls_.begin(), calls_.end(), call);
        for (const auto& failure : failures_) {
            if (failure.call == call && (failure.number == 0 || failure.number == number)) {
                return &failure;
            }
        }
        return nullptr;
    }
    void end(const std::string& call) {
        if (const auto hook = hooks_.find(call); hook != hooks_.end()) {
            hook->second();
        }
    }

    mutable std::mutex mutex_;
    std::vector<std::string> calls_;
    std::vector<Failure> failures_;
    std::map<std::string, std::function<void()>> hooks_;
};
