// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_RABBITMQ_QUEUE_HPP
#define IDEM_TESTS_RABBITMQ_QUEUE_HPP

// A queue on a real server, and what the server shows of it.

#include <idem/broker/rabbitmq.hpp>
#include <idem/idem.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "support/needs.hpp"
#include "support/rabbitmq_server.hpp"

namespace idem::rabbitmq_tests {

using namespace std::chrono_literals;
using testing_support::RabbitLetter;
using testing_support::RabbitServer;
using testing_support::RabbitSession;

/// A queue of its own, on the server that the tests of a program share or on `server`.
class Queue {
public:
    explicit Queue(std::string type = "quorum",
                   RabbitServer& server = testing_support::shared_rabbit(),
                   testing_support::RabbitArguments arguments = {})
        : address(server.address())
        , rabbit(address) {
        arguments["x-queue-type"] = std::move(type);
        rabbit.declare(name, arguments);
    }
    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;

    /// Until a quorum queue survives a kill of the server, which writes its name down half a second
    /// after the declaration.
    static void let_it_be_written_down() { std::this_thread::sleep_for(1500ms); }

    [[nodiscard]] RabbitOptions options() const { return {.queue = name}; }
    void add(const RabbitLetter& letter) { rabbit.publish(name, letter); }
    /// "body 0" … with the message ids "0" …
    void add_numbered(int count) {
        std::vector<RabbitLetter> letters;
        for (int i = 0; i < count; ++i) {
            letters.push_back(
                {.body = "body " + std::to_string(i), .message_id = std::to_string(i)});
        }
        rabbit.publish(name, letters);
    }
    unsigned ready() { return rabbit.ready(name); }
    /// Waits until so many are ready; what is ready at last.
    unsigned ready_becomes(unsigned count) { return becomes(name, count); }
    unsigned becomes(const std::string& queue, unsigned count) {
        const auto until = std::chrono::steady_clock::now() + 60s;
        unsigned seen = rabbit.ready(queue);
        while (seen != count && std::chrono::steady_clock::now() < until) {
            std::this_thread::sleep_for(2ms);
            seen = rabbit.ready(queue);
        }
        return seen;
    }
    std::vector<RabbitLetter> drain() { return rabbit.drain(name); }
    /// The dead letters, in order; none where there is no such queue.
    std::vector<RabbitLetter> dead() {
        return RabbitSession::has(address, name + ".dead") ? rabbit.drain(name + ".dead")
                                                           : std::vector<RabbitLetter>();
    }
    [[nodiscard]] std::string retry_queue(int delay) const {
        return name + ".idem-retry-" + std::to_string(delay);
    }

    const std::string address;
    RabbitSession rabbit;
    const std::string name =
        "orders." + std::to_string(::getpid()) + '.' + std::to_string(++made());

private:
    static int& made() {
        static int count = 0;
        return count;
    }
};

/// Asks until `count` came, as a loop does.
inline std::vector<RabbitDelivery> receive(RabbitSource& source, std::size_t count = 1) {
    const auto until = std::chrono::steady_clock::now() + 60s;
    std::vector<RabbitDelivery> received;
    while (received.size() < count && std::chrono::steady_clock::now() < until) {
        for (auto& delivery : source.receive(10ms, count - received.size())) {
            received.push_back(std::move(delivery));
        }
    }
    EXPECT_EQ(received.size(), count);
    return received;
}
inline Settlement settlement(Action action,
                             milliseconds delay = 0ms,
                             std::string_view reason = {},
                             std::string detail = {}) {
    return {action, delay, reason, std::move(detail), 0};
}

/// A handler that counts by payload, behind a store.
struct Counting {
    MemoryStore store;
    IdempotentConsumer<MemoryStore, DistributedLock> consumer{store, DistributedLock{}};
    std::mutex mutex;
    std::map<std::string, int> handled;

    auto handler(const std::function<void(const std::string&)>& then = {}) {
        return consumer.wrap("billing", delivery_id, [this, then](const RabbitDelivery& delivery) {
            const std::string payload(delivery.payload());
            {
                const std::scoped_lock lock(mutex);
                ++handled[payload];
            }
            if (then) {
                then(payload);
            }
        });
    }
    std::size_t distinct() {
        const std::scoped_lock lock(mutex);
        return handled.size();
    }
    void expect_each_once(std::size_t count) {
        const std::scoped_lock lock(mutex);
        EXPECT_EQ(handled.size(), count);
        for (const auto& [payload, times] : handled) {
            EXPECT_EQ(times, 1) << payload;
        }
    }
};

/// Requests the stop once `count` deliveries were settled for good.
class StopAfter : public Observer {
public:
    StopAfter(std::stop_source& stop, std::size_t count) : stop_(stop), count_(count) {}
    void on(const Event&) noexcept override {}
    void settled(const Settlement& settlement, Settled how) noexcept override {
        if (settlement.action != Action::retry && how == Settled::yes && ++done_ == count_) {
            stop_.request_stop();
        }
        in_doubt += how == Settled::in_doubt ? 1 : 0;
        lost += how == Settled::lost ? 1 : 0;
    }
    void source_failed(const StoreError&) noexcept override { ++failures; }
    int failures = 0, in_doubt = 0, lost = 0;

private:
    std::stop_source& stop_;
    std::size_t count_, done_ = 0;
};

} // namespace idem::rabbitmq_tests

#endif // IDEM_TESTS_RABBITMQ_QUEUE_HPP
