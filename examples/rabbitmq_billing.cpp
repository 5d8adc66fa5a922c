// SPDX-License-Identifier: MIT

// Charges from a RabbitMQ queue into SQLite. The worker is killed in mid-work again and again, the
// producer sends every tenth charge twice, and each is written once; what cannot be a charge is a
// dead letter with its reason.

#include <idem/broker/rabbitmq.hpp>
#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>

#include <iostream>

#include "../tests/support/rabbitmq_server.hpp"
#include "database.hpp"
#include "killed_worker.hpp"
#include "stop_signal.hpp"

/// All that a service writes.
int work(const std::string& address, const std::string& database) {
    const StopSignal stop; // SIGTERM, SIGINT
    idem::SqliteStore store{database};
    idem::RabbitSource source{address, {.queue = "charges"}};

    const idem::IdempotentConsumer consumer{store, idem::DedupTable{}};
    const auto bill = consumer.wrap(
        "billing",
        idem::delivery_id, // the header "idempotency-key", or the property message_id
        [](const idem::RabbitDelivery& delivery, idem::SqliteTransaction& tx) {
            if (!delivery.payload().starts_with("order-")) {
                throw idem::Unprocessable("no order of ours"); // to the queue "charges.dead"
            }
            tx.execute("INSERT INTO charge VALUES ($1, $2)", delivery.payload(), 4200);
        });
    idem::run(source, bill, stop.token(), {.concurrency = 2, .batch = 50});
    return 0;
}

constexpr int charges = 2'000, kills = 4;

int show() {
    using namespace idem::testing_support;
    if (const auto missing = RabbitServer::missing(); !missing.empty()) {
        throw std::runtime_error(missing);
    }
    std::cout << "starting RabbitMQ ...\n" << std::flush;
    const RabbitServer server;
    RabbitSession session(server.address());
    session.declare("charges", {{"x-queue-type", "quorum"}});
    std::vector<RabbitLetter> letters{{.body = "a letter to Santa", .message_id = "stray"}};
    for (int number = 0; number < charges; ++number) {
        const auto order = "order-" + std::to_string(number);
        for (int copies = number % 10 == 0 ? 2 : 1; copies > 0; --copies) {
            letters.push_back({.body = order, .message_id = "charge of " + order});
        }
    }
    session.publish("charges", letters);

    const TemporaryDirectory home;
    const auto path = (home / "charges.db").string();
    Database database(path);
    database.number("PRAGMA journal_mode=WAL; CREATE TABLE charge (order_id, cents)");
    idem::SqliteStore(path).migrate();
    work_and_kill("rabbitmq_billing", {"worker", server.address(), path}, charges, kills, [&] {
        return static_cast<long>(database.number("SELECT count(*) FROM charge"));
    });
    const auto rows = database.number("SELECT count(*) FROM charge");
    const auto paid = database.number("SELECT count(DISTINCT order_id) FROM charge");
    const auto dead = session.drain("charges.dead");
    std::cout << letters.size() << " messages, " << charges << " charges, the worker killed "
              << kills << " times: " << rows << " rows, lost " << charges - paid << ", doubled "
              << rows - paid << "; dead letter: " << (dead.empty() ? "none" : dead[0].body) << '\n';
    return rows == charges && paid == charges && !dead.empty() ? 0 : 1;
}

int main(int count, char** arguments) {
    return example_main(
        count,
        arguments,
        "Starts a RabbitMQ server, bills what is in a queue, kills the worker, and counts.",
        [](const std::vector<std::string>& words) { return work(words.at(0), words.at(1)); },
        show);
}
