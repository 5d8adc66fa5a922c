// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_KAFKA_KAFKA_TEST_HPP
#define IDEM_TESTS_KAFKA_KAFKA_TEST_HPP

// A topic and a group of their own on a real server, and what the server shows of them.

#include <idem/broker/kafka.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/kafka_records.hpp"
#include "support/kafka_server.hpp"
#include "support/needs.hpp"

namespace idem::kafka_tests {

using namespace std::chrono_literals;
using testing_support::Isolation;
using testing_support::KafkaProducer;
using testing_support::KafkaRecord;
using testing_support::KafkaServer;

/// A topic of its own, on the server that the tests of a program share or on `server`.
class Topic {
public:
    explicit Topic(int partitions = 1, KafkaServer& of = testing_support::shared_kafka())
        : server(of)
        , name("orders-" + std::to_string(++made()))
        , group("billing-" + name)
        , producer(of) {
        of.create_topic(name, partitions);
    }
    [[nodiscard]] KafkaOptions options() const {
        KafkaOptions options{.servers = server.address(), .group = group, .topics = {name}};
        options.settings = testing_support::kafka_client_settings();
        options.settings.emplace_back("session.timeout.ms", "3000");
        options.settings.emplace_back("heartbeat.interval.ms", "200");
        options.settings.emplace_back("fetch.wait.max.ms", "20");
        return options;
    }
    void write(int count, std::int32_t partition = 0, int first = 0) {
        producer.write_numbered(name, count, partition, first);
    }
    /// -1: nothing.
    [[nodiscard]] std::int64_t committed(std::int32_t partition = 0) const {
        return testing_support::committed_offset(server, group, name, partition);
    }
    [[nodiscard]] std::vector<KafkaRecord> dead() const {
        return testing_support::read_topic(server, name + ".dead");
    }

    KafkaServer& server;
    const std::string name, group;
    KafkaProducer producer;

private:
    static int& made() {
        static int count = 0;
        return count;
    }
};

inline constexpr auto patience = 60s;

/// Asks, as a loop does, until `count` came in all; `others` are served meanwhile, as by loops of
/// their own.
inline std::vector<KafkaDelivery>
receive(KafkaSource& source, std::size_t count, const std::vector<KafkaSource*>& others = {}) {
    const auto until = std::chrono::steady_clock::now() + patience;
    std::vector<KafkaDelivery> received;
    while (received.size() < count && std::chrono::steady_clock::now() < until) {
        for (auto& delivery : source.receive(10ms, count - received.size())) {
            received.push_back(std::move(delivery));
        }
        for (KafkaSource* other : others) {
            EXPECT_TRUE(other->receive(0ms, 0).empty());
        }
    }
    return received;
}
/// Serves the sources until `done`; false: it does not come.
template <class Done>
bool serve_until(const std::vector<KafkaSource*>& sources, const Done& done) {
    const auto until = std::chrono::steady_clock::now() + patience;
    while (!done()) {
        if (std::chrono::steady_clock::now() > until) {
            return false;
        }
        for (KafkaSource* source : sources) {
            EXPECT_TRUE(source->receive(5ms, 0).empty());
        }
    }
    return true;
}

inline Settlement settlement(Action action, std::string_view reason = {}, std::string detail = {}) {
    return {action, 0ms, reason, std::move(detail), 0};
}
inline Settlement retry_after(milliseconds delay) {
    return {Action::retry, delay};
}
inline std::string text(const KafkaMessage& message) {
    return std::string(message.payload());
}

} // namespace idem::kafka_tests

#endif // IDEM_TESTS_KAFKA_KAFKA_TEST_HPP
