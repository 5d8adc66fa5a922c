// SPDX-License-Identifier: MIT

// Orders from one Kafka topic, invoices into another, in Kafka's own transactions: outputs and
// consumed offsets are committed in one step. The worker is killed in mid-transaction again and
// again, and a reader of committed records sees each invoice once.

#include <idem/broker/kafka.hpp>
#include <idem/broker/kafka_transaction.hpp>
#include <idem/idem.hpp>

#include <iostream>
#include <set>

#include "../tests/support/kafka_records.hpp"
#include "killed_worker.hpp"
#include "stop_signal.hpp"

/// All that a service writes.
int work(const std::string& servers) {
    const StopSignal stop; // SIGTERM, SIGINT
    idem::KafkaSource source{{.servers = servers,
                              .group = "invoicing",
                              .topics = {"orders"},
                              .settings = {{"session.timeout.ms", "6000"}}}}; // of a killed worker
    idem::KafkaSink sink{source, {.transactional_id = "invoicing-1"}}; // one for each instance

    const idem::IdempotentConsumer consumer{sink, idem::BrokerTransaction{}};
    const auto invoice =
        consumer.wrap("invoicing",
                      idem::delivery_id,
                      [](const idem::KafkaDelivery& order, idem::KafkaTransaction& tx) {
                          tx.send("invoices",
                                  order.key().value_or(""),
                                  "invoice for " + std::string(order.payload()));
                      });
    idem::run(source, invoice, stop.token(), {.batch = 100}); // a transaction for each batch
    return 0;
}

constexpr int orders = 5'000, kills = 3;

int show() {
    using namespace idem::testing_support;
    if (const auto missing = KafkaServer::missing(); !missing.empty()) {
        throw std::runtime_error(missing);
    }
    std::cout << "starting Kafka ...\n" << std::flush;
    KafkaServer server;
    server.create_topic("orders", 3);
    server.create_topic("invoices", 3);
    KafkaProducer producer(server);
    for (int number = 0; number < orders; ++number) {
        const auto order = "order-" + std::to_string(number);
        producer.send({.topic = "orders",
                       .partition = number % 3,
                       .key = order,
                       .payload = order,
                       .headers = {{"message-id", order}}});
    }
    producer.flush();

    work_and_kill("kafka_exactly_once", {"worker", server.address()}, orders, kills, [&] {
        return static_cast<long>(read_topic(server, "invoices").size());
    });
    const auto committed = read_topic(server, "invoices");
    const auto written = read_topic(server, "invoices", Isolation::read_uncommitted);
    std::set<std::string> distinct;
    for (const auto& record : committed) {
        distinct.insert(record.payload.value_or(""));
    }
    std::cout << orders << " orders, the worker killed " << kills << " times: " << written.size()
              << " invoices written, " << committed.size() << " of them committed, lost "
              << orders - distinct.size() << ", doubled " << committed.size() - distinct.size()
              << '\n';
    return committed.size() == orders && distinct.size() == orders ? 0 : 1;
}

int main(int count, char** arguments) {
    return example_main(
        count,
        arguments,
        "Starts a Kafka server, makes invoices of orders in transactions, kills the worker, and "
        "counts.",
        [](const std::vector<std::string>& words) { return work(words.at(0)); },
        show);
}
