// SPDX-License-Identifier: MIT
// Each message of a topic to the same partition of another, until SIGTERM. Arguments: those of
// KafkaWorker.

#include "proof/freeze.hpp"
// Before all that has failpoints.
#include <idem/broker/kafka.hpp>
#include <idem/broker/kafka_transaction.hpp>
#include <idem/idem.hpp>
#include <idem/strategy/broker_transaction.hpp>

#include <array>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "proof/kafka_worker.hpp"
#include "proof/worker_main.hpp"
#include "support/kafka_server.hpp"

namespace {

using namespace idem::proof;

void work_in_transactions(const KafkaWorker& arguments, const std::stop_token& stop) {
    Freeze::listen();
    PrintFailures failures(arguments.name);
    Temper temper;
    idem::KafkaSource source(arguments.source());
    idem::KafkaSink sink(source,
                         {.transactional_id = arguments.id,
                          .transaction_timeout = idem::milliseconds{3'000},
                          .settings = {{"linger.ms", "1"}}});
    const idem::IdempotentConsumer consumer{sink, idem::BrokerTransaction{}};
    const auto copy =
        consumer.wrap("copy",
                      idem::delivery_id,
                      [&](const idem::KafkaDelivery& message, idem::KafkaTransaction& tx) {
                          temper.begin(message.payload());
                          const std::array headers{idem::KafkaHeader{"worker", arguments.name}};
                          tx.send({.topic = arguments.place,
                                   .key = message.key().value_or(""),
                                   .payload = message.payload(),
                                   .headers = headers,
                                   .partition = message.partition()});
                          IDEM_FAILPOINT("handler: sent");
                      });
    idem::run(source, copy, stop, {.batch = 250, .observer = &failures});
}

/// The mutant: outputs by a plain producer, then the offset.
void work_plainly(const KafkaWorker& arguments, const std::stop_token& stop) {
    idem::KafkaSource source(arguments.source());
    idem::detail::KafkaConfig config;
    config.set(idem::testing_support::kafka_client_settings());
    config.set("bootstrap.servers", arguments.servers);
    config.set("linger.ms", "0");
    const auto producer = std::move(config).make(RD_KAFKA_PRODUCER);
    const std::unique_ptr<rd_kafka_topic_t, decltype(&rd_kafka_topic_destroy)> output(
        rd_kafka_topic_new(producer.get(), arguments.place.c_str(), nullptr),
        &rd_kafka_topic_destroy);
    while (!stop.stop_requested()) {
        auto deliveries = source.receive(idem::milliseconds{100}, 10);
        for (const auto& message : deliveries) {
            if (rd_kafka_produce(output.get(),
                                 message.partition(),
                                 RD_KAFKA_MSG_F_COPY,
                                 const_cast<char*>(message.payload().data()),
                                 message.payload().size(),
                                 nullptr,
                                 0,
                                 nullptr) != 0) {
                throw std::runtime_error("not produced");
            }
        }
        if (rd_kafka_flush(producer.get(), 60'000) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            throw std::runtime_error("not flushed");
        }
        for (auto& delivery : deliveries) {
            static_cast<void>(source.settle(delivery, {idem::Action::ack}));
        }
    }
}

} // namespace

int main(int count, char** values) {
    return worker_main(
        count, values, [](const std::vector<std::string>& words, const std::stop_token& stop) {
            const KafkaWorker arguments(words);
            if (arguments.design == "broker_transaction") {
                work_in_transactions(arguments, stop);
            } else if (arguments.design == "effect_then_commit") {
                work_plainly(arguments, stop);
            } else {
                throw std::invalid_argument("no such design: " + arguments.design);
            }
        });
}
