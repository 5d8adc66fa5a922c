// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_SOURCE_HARNESS_HPP
#define IDEM_TESTING_SOURCE_HARNESS_HPP

// Messages with scripted outcomes, run through idem::run, and what was seen of them.

#include <idem/broker/source.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <map>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace idem::inline v0::testing {

/// A dead letter as its server shows it.
struct DeadLetter {
    std::string payload;
    std::map<std::string, std::string> headers;

    [[nodiscard]] std::string header(std::string_view name) const {
        const auto found = headers.find(std::string(name));
        return found == headers.end() ? std::string() : found->second;
    }
};

[[nodiscard]] inline Verdict verdict_with(Status status) {
    Verdict verdict;
    verdict.status = status;
    return verdict;
}
template <class Error>
[[nodiscard]] Verdict failed_with(const Error& error) {
    auto verdict = verdict_with(Status::failed);
    verdict.error = std::make_exception_ptr(error);
    return verdict;
}
[[nodiscard]] inline Verdict store_failed_with(Fault fault) {
    auto verdict = failed_with(StoreError(fault, "the store, as the test has it"));
    verdict.fault = fault;
    return verdict;
}

/// Asks until so many came, as a loop does.
template <class S>
std::vector<typename S::Delivery> receive_until(S& source, std::size_t count) {
    std::vector<typename S::Delivery> all;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(90);
    while (all.size() < count && std::chrono::steady_clock::now() < until) {
        try {
            for (auto& delivery : source.receive(milliseconds{50})) {
                all.push_back(std::move(delivery));
            }
        } catch (const StoreError& error) { // an outage that the test made
            if (error.fault() == Fault::rejected) {
                throw;
            }
        }
    }
    return all;
}

/// A row is a message with what its handling comes to: the verdicts in turn, the last for ever.
class SettledRows : private Observer {
public:
    void add(std::string id, std::vector<Verdict> verdicts, std::string_view reason = {}) {
        ids_.push_back(id);
        rows_[std::move(id)] = {std::move(verdicts), std::string(reason)};
    }
    void add(std::string id, Verdict verdict, std::string_view reason = {}) {
        add(std::move(id), std::vector<Verdict>{std::move(verdict)}, reason);
    }
    [[nodiscard]] const std::vector<std::string>& ids() const { return ids_; }
    [[nodiscard]] static std::string payload(const std::string& id) { return "body of " + id; }
    [[nodiscard]] std::string reason_of(const std::string& id) const { return rows_.at(id).reason; }

    template <class Broker>
    void publish(Broker& broker) const {
        for (const auto& id : ids_) {
            broker.publish(id, payload(id));
        }
    }
    /// The loop, over a source of its own, until so many deliveries were acked or dead-lettered.
    template <class Broker>
    void run_until_settled(Broker& broker, std::size_t count, RunOptions options = {}) {
        settlements_wanted_ = count;
        starts_wanted_ = ~std::size_t{0};
        run(broker, options);
    }
    /// The same until so many handlers started.
    template <class Broker>
    void run_until_started(Broker& broker, std::size_t count) {
        settlements_wanted_ = ~std::size_t{0};
        starts_wanted_ = count;
        run(broker, {});
    }

    /// How often the handler started for it; 0 for an id that is no row.
    [[nodiscard]] std::size_t starts(const std::string& id) const {
        std::size_t count = 0;
        for (const auto& started : order_) {
            count += started == id ? 1 : 0;
        }
        return count;
    }
    /// The ids, as their handlers started.
    [[nodiscard]] const std::vector<std::string>& order() const { return order_; }
    [[nodiscard]] std::size_t settled(Action action) const {
        std::size_t count = 0;
        for (const auto& [settlement, how] : settlements_) {
            count += settlement == action && how == Settled::yes ? 1 : 0;
        }
        return count;
    }
    [[nodiscard]] std::size_t settled_at_all() const { return settlements_.size(); }

private:
    struct Row {
        std::vector<Verdict> verdicts;
        std::string reason;
    };
    struct Handler {
        SettledRows* rows;
        template <class Delivery>
        [[nodiscard]] Outcome<void> handle(const Delivery& delivery, const std::stop_token&) const {
            return Outcome<void>(rows->start(delivery.identity(), delivery.payload()));
        }
    };

    template <class Broker>
    void run(Broker& broker, RunOptions options) {
        const auto source = broker.source();
        stop_ = std::stop_source();
        options.observer = this;
        bool in_time = true;
        std::jthread watchdog([&](std::stop_token over) {
            std::mutex mutex;
            std::unique_lock lock(mutex);
            std::condition_variable_any never;
            never.wait_for(lock, over, std::chrono::minutes(2), [] { return false; });
            if (!over.stop_requested()) {
                in_time = false;
                stop_.request_stop();
            }
        });
        idem::run(*source, Handler{this}, stop_.get_token(), options);
        watchdog.request_stop();
        watchdog.join();
        EXPECT_TRUE(in_time) << "the loop was stopped after two minutes";
    }
    Verdict start(const Identity& identity, std::string_view body) {
        const std::scoped_lock lock(mutex_);
        const std::string id(identity.id.view());
        order_.push_back(id);
        if (order_.size() >= starts_wanted_) {
            stop_.request_stop();
        }
        const auto row = rows_.find(id);
        if (row == rows_.end() || body != payload(id)) {
            ADD_FAILURE() << "a message that was never published: " << id << ", " << body;
            return verdict_with(Status::executed);
        }
        const auto& verdicts = row->second.verdicts;
        const auto turn = starts(id) - 1;
        return verdicts[turn < verdicts.size() ? turn : verdicts.size() - 1];
    }
    void on(const Event&) noexcept override {}
    void settled(const Settlement& settlement, Settled how) noexcept override {
        settlements_.emplace_back(settlement.action, how);
        if (settled(Action::ack) + settled(Action::dead_letter) >= settlements_wanted_) {
            stop_.request_stop();
        }
    }

    std::vector<std::string> ids_;
    std::map<std::string, Row> rows_;
    std::mutex mutex_; // of what handlers touch
    std::vector<std::string> order_;
    std::vector<std::pair<Action, Settled>> settlements_; // on the loop's thread
    std::size_t settlements_wanted_ = 0, starts_wanted_ = 0;
    std::stop_source stop_;
};

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_SOURCE_HARNESS_HPP
