// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_CRASH_STREAM_BROKER_HPP
#define IDEM_TESTS_CRASH_STREAM_BROKER_HPP

// A Redis stream and its group, as the test sees them and as a worker does.

#include <idem/broker/redis_stream.hpp>

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "crash/checker.hpp"
#include "support/redis_server.hpp"

namespace idem::crash_test {

using testing_support::RedisSession;

inline const std::string stream_group = "billing";

/// What XINFO GROUPS says of the one group of the stream.
struct GroupState {
    GroupState(RedisSession& redis, const std::string& stream) {
        const auto reply = redis.run({"XINFO", "GROUPS", stream});
        const auto facts = reply.value()[0];
        for (std::size_t at = 0; at + 1 < facts.size(); at += 2) {
            const auto name = facts[at].text();
            if (name == "pending") {
                pending = facts[at + 1].integer();
            } else if (name == "lag") {
                lag = facts[at + 1].integer();
            } else if (name == "last-delivered-id") {
                last_delivered = facts[at + 1].text();
            }
        }
    }
    long long pending = 0, lag = 0;
    std::string last_delivered{};
};

/// The stream of one site, and its dead stream.
class StreamBroker {
public:
    StreamBroker(const std::string& address, std::string stream, const std::vector<Entry>& sent)
        : redis_(address)
        , stream_(std::move(stream)) {
        redis_.run({"DEL", stream_, stream_ + ":dead"});
        redis_.run({"XGROUP", "CREATE", stream_, stream_group, "0", "MKSTREAM"});
        for (const auto& entry : sent) {
            if (entry.id.empty()) {
                redis_.run({"XADD", stream_, "*", "payload", entry.payload});
            } else {
                redis_.run({"XADD", stream_, "*", header::key, entry.id, "payload", entry.payload});
            }
        }
    }
    StreamBroker(const StreamBroker&) = delete;
    StreamBroker& operator=(const StreamBroker&) = delete;
    ~StreamBroker() {
        try {
            redis_.run({"DEL", stream_, stream_ + ":dead"});
        } catch (...) { // NOLINT(bugprone-empty-catch): the server goes with the test
        }
    }

    [[nodiscard]] const std::string& stream() const { return stream_; }
    [[nodiscard]] RedisSession& redis() { return redis_; }

    /// The broker's part of the evidence.
    void show(Evidence& evidence) {
        std::set<std::string> not_acked;
        const auto letters = redis_.run({"XRANGE", stream_ + ":dead", "-", "+"});
        for (std::size_t at = 0; at < letters.value().size(); ++at) {
            const auto fields = fields_of(letters.value()[at][1]);
            evidence.dead.push_back({field(fields, header::key),
                                     field(fields, "payload"),
                                     field(fields, header::reason)});
            not_acked.insert(field(fields, header::origin));
        }
        const auto pending = redis_.run({"XPENDING", stream_, stream_group, "-", "+", "1000"});
        for (std::size_t at = 0; at < pending.value().size(); ++at) {
            not_acked.emplace(pending.value()[at][0].text());
        }
        const GroupState group(redis_, stream_);
        evidence.unsettled = static_cast<std::size_t>(group.pending + group.lag);
        const auto delivered = redis_.run({"XRANGE", stream_, "-", group.last_delivered});
        for (std::size_t at = 0; at < delivered.value().size(); ++at) {
            const auto entry = delivered.value()[at];
            if (!not_acked.contains(std::string(entry[0].text()))) {
                evidence.acked.push_back(field(fields_of(entry[1]), header::key));
            }
        }
    }

private:
    using Fields = std::map<std::string, std::string>;
    static Fields fields_of(idem::detail::RedisValue values) {
        Fields fields;
        for (std::size_t at = 0; at + 1 < values.size(); at += 2) {
            fields.emplace(values[at].text(), values[at + 1].text());
        }
        return fields;
    }
    static std::string field(const Fields& fields, std::string_view name) {
        const auto found = fields.find(std::string(name));
        return found == fields.end() ? "" : found->second;
    }

    RedisSession redis_;
    std::string stream_;
};

/// A RedisStreamSource that knows when its group has nothing left, whoever holds it.
class DrainableStream {
public:
    using Delivery = RedisStreamDelivery;

    DrainableStream(const std::string& address,
                    const std::string& stream,
                    const std::string& consumer,
                    milliseconds claim_idle)
        : redis_(address)
        , stream_(stream)
        , source_(address,
                  {.stream = stream,
                   .group = stream_group,
                   .consumer = consumer,
                   .claim_idle = claim_idle}) {}

    std::vector<Delivery> receive(milliseconds time, std::size_t at_most) {
        return source_.receive(time, at_most);
    }
    Settled settle(Delivery& delivery, const Settlement& settlement) {
        return source_.settle(delivery, settlement);
    }
    bool extend(Delivery& delivery, milliseconds time) { return source_.extend(delivery, time); }
    [[nodiscard]] DeliveryDeadline deadline() const { return source_.deadline(); }
    [[nodiscard]] bool drained() {
        const GroupState group(redis_, stream_);
        return group.pending == 0 && group.lag == 0;
    }

private:
    RedisSession redis_;
    std::string stream_;
    RedisStreamSource source_;
};

} // namespace idem::crash_test

#endif // IDEM_TESTS_CRASH_STREAM_BROKER_HPP
