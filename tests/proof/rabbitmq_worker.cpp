// SPDX-License-Identifier: MIT
// A RabbitMQ queue's messages into PostgreSQL. Arguments: design, address of RabbitMQ, queue,
// connection string, handlers at a time, messages of a batch, trace file, name of this incarnation.

#include <idem/broker/rabbitmq.hpp>
#include <idem/broker/source.hpp>
#include <idem/idem.hpp>
#include <idem/store/postgres.hpp>

#include <cstddef>
#include <mutex>
#include <set>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "proof/rabbitmq_trace.hpp"
#include "proof/worker_main.hpp"
#include "support/postgres_server.hpp"

namespace {

using namespace idem;
using namespace idem::proof;

/// Of the handler of such a payload: "<id> <manner>".
std::string manner_of(std::string_view payload) {
    return std::string(payload.substr(payload.find(' ') + 1));
}

/// Whether it is the first call of that message in this process.
class Calls {
public:
    bool is_first(const RabbitDelivery& delivery) {
        const std::scoped_lock lock(mutex_);
        return seen_.emplace(delivery.message_id()).second;
    }

private:
    std::mutex mutex_;
    std::set<std::string> seen_;
};

struct Arguments {
    std::string design, address, queue, conninfo;
    std::size_t concurrency, batch;
    std::string trace, incarnation;
};

void with_the_table(const Arguments& arguments, const std::stop_token& stop) {
    Trace trace(arguments.trace, arguments.incarnation);
    PostgresStore store(arguments.conninfo);
    RabbitSource source(arguments.address, {.queue = arguments.queue, .heartbeat = seconds{2}});
    Calls calls;
    IdempotentConsumer consumer{store, DedupTable{}, {.max_attempts = 50, .observer = &trace}};
    const auto bill = consumer.wrap(
        "billing", delivery_id, [&](const RabbitDelivery& delivery, PostgresTransaction& tx) {
            const std::string payload(delivery.payload());
            tx.execute("INSERT INTO effect (id, payload, worker) VALUES ($1, $2, $3)",
                       std::string(delivery.message_id()),
                       payload,
                       arguments.incarnation);
            const auto manner = manner_of(payload);
            if (manner == "bad") {
                throw Unprocessable("no such customer");
            }
            if (manner == "flaky" && calls.is_first(delivery)) {
                throw std::runtime_error("the first call fails");
            }
            if (manner == "busy" && calls.is_first(delivery)) {
                throw RetryLater(milliseconds{400});
            }
        });
    run(source,
        bill,
        stop,
        {.concurrency = arguments.concurrency, .batch = arguments.batch, .observer = &trace});
}

/// The plain loop: no record. `ack_first`: at most once instead of at least once.
void plainly(const Arguments& arguments, bool ack_first, const std::stop_token& stop) {
    testing_support::PostgresSession database(arguments.conninfo);
    RabbitSource source(arguments.address, {.queue = arguments.queue});
    while (!stop.stop_requested()) {
        auto received = source.receive(milliseconds{20}, arguments.batch);
        std::vector<RabbitDelivery*> all;
        for (auto& delivery : received) {
            all.push_back(&delivery);
        }
        if (ack_first) {
            static_cast<void>(source.acknowledge(all));
        }
        for (const auto& delivery : received) {
            database.run("INSERT INTO effect (id, payload, worker) VALUES ('" +
                         std::string(delivery.message_id()) + "', '" +
                         std::string(delivery.payload()) + "', '" + arguments.incarnation + "')");
        }
        if (!ack_first) {
            static_cast<void>(source.acknowledge(all));
        }
    }
}

} // namespace

int main(int count, char** values) {
    return worker_main(
        count, values, [](const std::vector<std::string>& given, const std::stop_token& stop) {
            const Arguments arguments{given.at(0),
                                      given.at(1),
                                      given.at(2),
                                      given.at(3),
                                      std::stoul(given.at(4)),
                                      std::stoul(given.at(5)),
                                      given.at(6),
                                      given.at(7)};
            if (arguments.design == "table") {
                with_the_table(arguments, stop);
            } else if (arguments.design == "effect_then_ack") {
                plainly(arguments, false, stop);
            } else if (arguments.design == "ack_then_effect") {
                plainly(arguments, true, stop);
            } else {
                throw std::invalid_argument("no such design: " + arguments.design);
            }
        });
}
