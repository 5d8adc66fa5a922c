// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_KAFKA_TRANSACTIONAL_WORKER_HPP
#define IDEM_TESTS_KAFKA_TRANSACTIONAL_WORKER_HPP

// A member of a group with a sink of its own, driven step by step.

#include <idem/broker/kafka_transaction.hpp>
#include <idem/consumer.hpp>
#include <idem/strategy/broker_transaction.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <iostream>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/kafka_records.hpp"
#include "support/kafka_server.hpp"

namespace idem::kafka_test {

using testing_support::KafkaServer;

inline KafkaOptions
source_options(const KafkaServer& server, const std::string& topic, const std::string& group) {
    KafkaOptions options{.servers = server.address(), .group = group, .topics = {topic}};
    options.settings = testing_support::kafka_client_settings();
    options.settings.emplace_back("fetch.wait.max.ms", "20");
    options.settings.emplace_back("session.timeout.ms", "6000");
    options.commit_interval = milliseconds{50};
    return options;
}
inline KafkaSinkOptions sink_options(const std::string& id) {
    return {.transactional_id = id,
            .deadline = milliseconds{60'000},
            .settings = {{"reconnect.backoff.ms", "20"}, {"reconnect.backoff.max.ms", "100"}}};
}

class TransactionalWorker {
public:
    using Handle = std::function<void(const KafkaDelivery&, KafkaTransaction&)>;

    TransactionalWorker(KafkaOptions options, KafkaSinkOptions sink_options, std::string output)
        : source(std::move(options))
        , sink(source, std::move(sink_options))
        , output_(std::move(output)) {}

    /// So many deliveries, within a time that no working machine needs.
    std::vector<KafkaDelivery> take(std::size_t count) {
        std::vector<KafkaDelivery> taken;
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(120);
        while (taken.size() < count && std::chrono::steady_clock::now() < until) {
            for (auto& delivery : source.receive(milliseconds{100}, count - taken.size())) {
                taken.push_back(std::move(delivery));
            }
        }
        EXPECT_EQ(taken.size(), count);
        return taken;
    }
    /// One call of batch(): each message's payload is sent to the output, then `handle` is called.
    std::vector<Verdict> handle(const std::vector<KafkaDelivery>& deliveries) {
        auto bill = IdempotentConsumer(sink, BrokerTransaction{}, consuming)
                        .wrap("billing",
                              delivery_id,
                              [this](const KafkaDelivery& delivery, KafkaTransaction& tx) {
                                  ++starts[std::string(delivery.payload())];
                                  tx.send(output_, "key", delivery.payload(), {{"from", "test"}});
                                  if (handler) {
                                      handler(delivery, tx);
                                  }
                              });
        std::vector<Verdict> verdicts;
        try {
            for (const auto& outcome : bill.batch(std::span(deliveries))) {
                verdicts.push_back(outcome.verdict());
            }
        } catch (const StoreError& error) {
            Verdict failed;
            failed.status = Status::failed;
            failed.error = std::current_exception();
            failed.fault = error.fault();
            verdicts.assign(deliveries.size(), failed);
        }
        return verdicts;
    }
    /// How each ended, in a word.
    static std::vector<std::string> words(const std::vector<Verdict>& verdicts) {
        std::vector<std::string> all;
        for (const auto& verdict : verdicts) {
            const auto settlement = verdict.settlement();
            all.push_back(verdict.fault ? std::string(settlement.reason)
                                        : std::string(to_string(verdict.status)));
            if (verdict.fault) {
                std::cout << settlement.detail << '\n';
            }
        }
        return all;
    }
    std::vector<Settled> settle(std::vector<KafkaDelivery>& deliveries,
                                const std::vector<Verdict>& verdicts) {
        std::vector<Settled> answers;
        for (std::size_t i = 0; i < deliveries.size(); ++i) {
            answers.push_back(source.settle(deliveries[i], verdicts[i].settlement()));
        }
        return answers;
    }

    ConsumerOptions consuming{};
    Handle handler{};
    std::map<std::string, unsigned> starts;
    KafkaSource source;
    KafkaSink sink;

private:
    std::string output_;
};

} // namespace idem::kafka_test

#endif // IDEM_TESTS_KAFKA_TRANSACTIONAL_WORKER_HPP
