// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_BROKER_REDIS_GROUP_HPP
#define IDEM_TESTS_BROKER_REDIS_GROUP_HPP

// A stream with a group on a real server, and what the server shows of it.

#include <idem/broker/redis_stream.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/needs.hpp"
#include "support/redis_server.hpp"

namespace idem::broker_tests {

using namespace std::chrono_literals;
using testing_support::RedisServer;
using testing_support::RedisSession;

struct PendingEntry {
    std::string id, consumer;
    long long idle = 0, count = 0;
};
using Fields = std::map<std::string, std::string>;

/// A stream of its own, on the server that the tests of a program share or on `server`.
class Group {
public:
    explicit Group(RedisServer& server = testing_support::shared_redis())
        : address(server.address())
        , redis(address) {}

    [[nodiscard]] RedisStreamOptions options(const std::string& consumer) const {
        return {.stream = stream, .group = group, .consumer = consumer, .claim_idle = 60s};
    }
    /// XADD; the entry's id.
    std::string add(std::initializer_list<std::string_view> fields) {
        std::vector<std::string_view> words{"XADD", stream, "*"};
        words.insert(words.end(), fields.begin(), fields.end());
        return add_words(words);
    }
    std::string add_words(const std::vector<std::string_view>& words) {
        detail::RedisConnection connection(detail::parse_redis_address(address), soon());
        const auto reply = connection.command(words, soon());
        return std::string(reply.value().text());
    }
    std::vector<std::string> add_numbered(int count) {
        std::vector<std::string> ids;
        for (int i = 0; i < count; ++i) {
            const auto number = std::to_string(i);
            ids.push_back(add({"message-id", number, "payload", "body " + number}));
        }
        return ids;
    }
    std::vector<PendingEntry> pending() {
        const auto reply = redis.run({"XPENDING", stream, group, "-", "+", "100000"});
        std::vector<PendingEntry> entries;
        for (std::size_t i = 0; i < reply.value().size(); ++i) {
            const auto one = reply.value()[i];
            entries.push_back({std::string(one[0].text()),
                               std::string(one[1].text()),
                               one[2].integer(),
                               one[3].integer()});
        }
        return entries;
    }
    long long length(const std::string& name) { return redis.number({"XLEN", name}); }
    /// The dead letters, in order.
    std::vector<Fields> dead() {
        const auto reply = redis.run({"XRANGE", stream + ":dead", "-", "+"});
        std::vector<Fields> letters;
        for (std::size_t i = 0; i < reply.value().size(); ++i) {
            const auto fields = reply.value()[i][1];
            Fields letter;
            for (std::size_t at = 0; at + 1 < fields.size(); at += 2) {
                letter.emplace(fields[at].text(), fields[at + 1].text());
            }
            letters.push_back(std::move(letter));
        }
        return letters;
    }

    const std::string address;
    RedisSession redis;
    const std::string stream =
                          "orders " + std::to_string(::getpid()) + ' ' + std::to_string(++made()),
                      group = "billing";

private:
    static detail::Deadline soon() { return std::chrono::steady_clock::now() + 30s; }
    static int& made() {
        static int count = 0;
        return count;
    }
};

/// Asks until something comes, as a loop does.
inline std::vector<RedisStreamDelivery> receive_some(RedisStreamSource& source) {
    const auto until = std::chrono::steady_clock::now() + 60s;
    std::vector<RedisStreamDelivery> received;
    while (received.empty() && std::chrono::steady_clock::now() < until) {
        received = source.receive(10ms);
    }
    return received;
}

inline Settlement settlement(Action action, std::string_view reason = {}, std::string detail = {}) {
    return {action, 0ms, reason, std::move(detail), 0};
}

} // namespace idem::broker_tests

#endif // IDEM_TESTS_BROKER_REDIS_GROUP_HPP
