// SPDX-License-Identifier: MIT

// Charges from a Kafka topic into SQLite. The worker is killed in mid-work again and again, the
// producer sends every tenth charge twice, and each is written once.

#include <idem/broker/kafka.hpp>
#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>

#include <iostream>

#include "../tests/support/kafka_records.hpp"
#include "database.hpp"
#include "killed_worker.hpp"
#include "stop_signal.hpp"

/// All that a service writes.
int work(const std::string& servers, const std::string& database) {
    const StopSignal stop; // SIGTERM, SIGINT
    idem::SqliteStore store{database};
    idem::KafkaSource source{{.servers = servers,
                              .group = "billing",
                              .topics = {"charges"},
                              .settings = {{"session.timeout.ms", "6000"}}}}; // of a killed worker

    const idem::IdempotentConsumer consumer{store, idem::DedupTable{}};
    const auto bill = consumer.wrap(
        "billing",
        idem::delivery_id, // the header "idempotency-key" or "message-id"
        [](const idem::KafkaDelivery& delivery, idem::SqliteTransaction& tx) {
            const std::string order(delivery.key().value_or(""));
            tx.execute("INSERT INTO charge VALUES ($1, $2)", order, delivery.payload());
        });
    idem::run(source, bill, stop.token(), {.concurrency = 2, .batch = 50});
    return 0;
}

constexpr int charges = 2'000, kills = 3;

int show() {
    using namespace idem::testing_support;
    if (const auto missing = KafkaServer::missing(); !missing.empty()) {
        throw std::runtime_error(missing);
    }
    std::cout << "starting Kafka ...\n" << std::flush;
    KafkaServer server;
    server.create_topic("charges", 3);
    int sent = 0;
    KafkaProducer producer(server);
    for (int number = 0; number < charges; ++number) {
        const auto order = "order-" + std::to_string(number);
        for (int copies = number % 10 == 0 ? 2 : 1; copies > 0; --copies, ++sent) {
            producer.send({.topic = "charges",
                           .partition = number % 3,
                           .key = order,
                           .payload = "4200",
                           .headers = {{"message-id", "charge of " + order}}});
        }
    }
    producer.flush();

    const TemporaryDirectory home;
    const auto path = (home / "charges.db").string();
    Database database(path);
    database.number("PRAGMA journal_mode=WAL; CREATE TABLE charge (order_id, cents)");
    idem::SqliteStore(path).migrate();
    work_and_kill("kafka_billing", {"worker", server.address(), path}, charges, kills, [&] {
        return static_cast<long>(database.number("SELECT count(*) FROM charge"));
    });
    const auto rows = database.number("SELECT count(*) FROM charge");
    const auto paid = database.number("SELECT count(DISTINCT order_id) FROM charge");
    std::cout << sent << " messages, " << charges << " charges, the worker killed " << kills
              << " times: " << rows << " rows, lost " << charges - paid << ", doubled "
              << rows - paid << '\n';
    return rows == charges && paid == charges ? 0 : 1;
}

int main(int count, char** arguments) {
    return example_main(
        count,
        arguments,
        "Starts a Kafka server, bills what is in a topic, kills the worker, and counts.",
        [](const std::vector<std::string>& words) { return work(words.at(0), words.at(1)); },
        show);
}
