// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_BROKER_SCRIPTED_SOURCE_HPP
#define IDEM_TESTS_BROKER_SCRIPTED_SOURCE_HPP

// A source and a clock that do what a test says, for the consumer loop.

#include <idem/broker/source.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace idem::broker_tests {

using namespace std::chrono_literals;

/// Time that passes where the loop, or the source, waits for nothing: 10,000 s take no longer than
/// the events in them.
struct VirtualClock {
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<VirtualClock>;
    static constexpr bool is_steady = true;

    static time_point now() noexcept { return time_point(duration(ticks().load())); }
    static void advance(duration by) { ticks() += by.count(); }
    static void move_to(time_point to) {
        ticks() = std::max(ticks().load(), to.time_since_epoch().count());
    }
    /// What does not happen within a moment of real time happens after `until`.
    template <class Done>
    static void wait(std::condition_variable& changed,
                     std::unique_lock<std::mutex>& lock,
                     time_point until,
                     const Done& done) {
        if (!changed.wait_for(lock, 2ms, done)) {
            move_to(until);
        }
    }

private:
    static std::atomic<rep>& ticks() {
        static std::atomic<rep> value{1'000'000'000'000};
        return value;
    }
};

struct Delivery {
    std::string id{};
    std::string body = "body of " + id;
    std::uint64_t lane = 0;
    std::optional<Settlement> broken{};

    [[nodiscard]] std::string_view payload() const { return body; }
    [[nodiscard]] std::optional<std::string_view> header(std::string_view) const { return {}; }
    [[nodiscard]] Identity identity() const {
        return {.id = Id(std::string_view(id)), .fingerprint = fingerprint_of(body)};
    }
};

/// One call that the loop made.
struct Call {
    std::string what{}, id{};
    Settlement settlement{};
    std::chrono::milliseconds time{0};
    std::size_t at_most = 0;
    VirtualClock::time_point at = VirtualClock::now();
};

/// Gives what the test put in, and writes down what it is told. Every member fails the test where
/// it is called from another thread than the first.
class ScriptedSource {
public:
    using Delivery = broker_tests::Delivery;

    std::vector<Delivery> receive(milliseconds time) { return receive(time, 1'000); }
    Settled settle(Delivery& delivery, const Settlement& settlement) {
        static const char* const names[] = {"ack", "retry", "dead_letter", "stop"};
        note({.what = names[static_cast<int>(settlement.action)],
              .id = delivery.id,
              .settlement = settlement});
        return on_settle ? on_settle(delivery, settlement) : Settled::yes;
    }
    bool extend(Delivery& delivery, milliseconds time) {
        note({.what = "extend", .id = delivery.id, .time = time});
        return on_extend ? on_extend(delivery) : true;
    }

    void put(Delivery delivery) { inbox.push_back(std::move(delivery)); }
    void put(const std::vector<std::string>& ids) {
        for (const auto& id : ids) {
            put(Delivery{.id = id});
        }
    }
    [[nodiscard]] std::vector<Call> calls(const std::string& what) const {
        std::vector<Call> found;
        for (const auto& call : log) {
            if (call.what == what) {
                found.push_back(call);
            }
        }
        return found;
    }
    /// The ids that were settled so, in order.
    [[nodiscard]] std::vector<std::string> ids(const std::string& what) const {
        std::vector<std::string> found;
        for (const auto& call : calls(what)) {
            found.push_back(call.id);
        }
        return found;
    }
    [[nodiscard]] std::size_t settlements(const std::string& id) const {
        return static_cast<std::size_t>(
            std::count_if(log.begin(), log.end(), [&](const Call& call) {
                return call.id == id && call.what != "extend";
            }));
    }

    std::deque<Delivery> inbox;
    std::vector<Call> log;
    std::function<void()> on_receive; ///< before each
    std::function<void()> on_idle;    ///< where a receive that may wait finds nothing
    std::function<Settled(Delivery&, const Settlement&)> on_settle;
    std::function<bool(Delivery&)> on_extend;

protected:
    std::vector<Delivery> receive(milliseconds time, std::size_t at_most) {
        note({.what = "receive", .time = time, .at_most = at_most});
        if (on_receive) {
            on_receive();
        }
        std::vector<Delivery> given;
        while (!inbox.empty() && given.size() < at_most) {
            given.push_back(std::move(inbox.front()));
            inbox.pop_front();
        }
        if (given.empty() && time > 0ms) {
            VirtualClock::advance(time);
            if (on_idle) {
                on_idle();
            }
        }
        return given;
    }

    void note(Call call) {
        if (thread_ == std::thread::id{}) {
            thread_ = std::this_thread::get_id();
        }
        EXPECT_EQ(thread_, std::this_thread::get_id()) << call.what << " on another thread";
        log.push_back(std::move(call));
    }

private:
    std::thread::id thread_{};
};

class BoundedSource : public ScriptedSource {
public:
    std::vector<Delivery> receive(milliseconds time) { return ScriptedSource::receive(time); }
    std::vector<Delivery> receive(milliseconds time, std::size_t at_most) {
        return ScriptedSource::receive(time, at_most);
    }
};

/// What a handler is asked and does: `does` answers for a delivery, on the handler's thread.
struct Handler {
    std::function<Verdict(const Delivery&, const std::stop_token&)> does;

    [[nodiscard]] Outcome<void> handle(const Delivery& delivery,
                                       const std::stop_token& stop) const noexcept {
        return Outcome<void>(does(delivery, stop));
    }
};

inline Verdict verdict(Status status) {
    Verdict answer;
    answer.status = status;
    return answer;
}
inline Verdict failed(std::exception_ptr error) {
    Verdict answer = verdict(Status::failed);
    answer.error = std::move(error);
    return answer;
}
inline Verdict store_failed(Fault fault, const std::string& what = "the store") {
    Verdict answer = failed(std::make_exception_ptr(StoreError(fault, what)));
    answer.fault = fault;
    return answer;
}

/// Counts, and waits for, what happens on several threads.
class Events {
public:
    void add(const std::string& name) {
        const std::scoped_lock lock(mutex_);
        ++counts_[name];
        log_.push_back(name);
        changed_.notify_all();
    }
    /// False: it did not happen within a time that no working program needs.
    [[nodiscard]] bool wait(const std::string& name, int times = 1) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, 60s, [&] { return counts_[name] >= times; });
    }
    [[nodiscard]] int count(const std::string& name) {
        const std::scoped_lock lock(mutex_);
        return counts_[name];
    }
    [[nodiscard]] std::vector<std::string> log() {
        const std::scoped_lock lock(mutex_);
        return log_;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, int> counts_;
    std::vector<std::string> log_;
};

/// Waits for the stop. False: it did not come, in a time that no working program needs.
[[nodiscard]] inline bool stop_comes(const std::stop_token& token) {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any never;
    never.wait_for(lock, token, 60s, [] { return false; });
    return token.stop_requested();
}

/// Ends a run that would go on for ever, after a time that no working program needs, and fails.
class RunLimit {
public:
    RunLimit() = default;
    RunLimit(const RunLimit&) = delete;
    RunLimit& operator=(const RunLimit&) = delete;
    ~RunLimit() { EXPECT_FALSE(reached_) << "the run did not end by itself"; }

    std::stop_source stop;

private:
    std::atomic<bool> reached_{false};
    std::jthread thread_{[this](const std::stop_token& over) {
        if (!stop_comes(over)) {
            reached_ = true;
            stop.request_stop();
        }
    }};
};

class CountingObserver : public Observer {
public:
    void on(const Event&) noexcept override {}
    void settled(const Settlement& settlement, Settled how) noexcept override {
        settlements.emplace_back(settlement, how);
    }
    void source_failed(const StoreError& error) noexcept override {
        failures.emplace_back(error.what());
    }
    std::vector<std::pair<Settlement, Settled>> settlements; // both on the loop's thread
    std::vector<std::string> failures;
};

/// The loop in virtual time, until `stop`.
template <class S, class H>
void run_virtually(S& source,
                   const H& handler,
                   std::stop_token stop,
                   const RunOptions& options = {}) {
    detail::ConsumerLoop<S, H, RunOptions, VirtualClock>(source, handler, std::move(stop), options)
        .run();
}

using Ids = std::vector<std::string>;

} // namespace idem::broker_tests

#endif // IDEM_TESTS_BROKER_SCRIPTED_SOURCE_HPP
