// SPDX-License-Identifier: MIT
// Each message of a topic into a table, until SIGTERM. Arguments: those of KafkaWorker.

#include <idem/broker/kafka.hpp>
#include <idem/idem.hpp>
#include <idem/store/postgres.hpp>

#include <stop_token>
#include <string>
#include <vector>

#include "proof/kafka_worker.hpp"
#include "proof/worker_main.hpp"

int main(int count, char** values) {
    using namespace idem::proof;
    return worker_main(
        count, values, [](const std::vector<std::string>& words, const std::stop_token& stop) {
            const KafkaWorker arguments(words);
            PrintFailures failures(arguments.name);
            Temper temper;
            auto options = arguments.source();
            options.rebalance = idem::KafkaRebalance::cooperative;
            idem::KafkaSource source(options);
            idem::PostgresStore store(arguments.place);
            const idem::IdempotentConsumer consumer{
                store, idem::DedupTable{}, {.max_attempts = 20}};
            const auto pay = consumer.wrap(
                "pay",
                idem::delivery_id,
                [&](const idem::KafkaDelivery& message, idem::PostgresTransaction& tx) {
                    temper.begin(message.payload());
                    tx.post("INSERT INTO effect (message, partition, position, worker) "
                            "VALUES ($1, $2, $3, $4)",
                            message.payload(),
                            message.partition(),
                            message.offset(),
                            arguments.name);
                });
            idem::run(source, pay, stop, {.batch = 250, .observer = &failures});
        });
}
