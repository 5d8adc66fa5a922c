// SPDX-License-Identifier: MIT
// A Redis stream's entries into a file, under a lease. Arguments: design, messages abreast,
// milliseconds of lease, address of Redis, stream, consumer, milliseconds of silence after which
// another's entry is taken over, file of effects, file of handler starts, the store (redis,
// postgres, sqlite), its address, connection string or path.

#include <idem/store/postgres.hpp>
#include <idem/store/redis_lock.hpp>
#include <idem/store/sqlite.hpp>

#include <stdexcept>
#include <string>
#include <vector>

#include "crash/stream_broker.hpp"
#include "crash/worker.hpp"

namespace {

using namespace idem::crash_test;

template <class Store, class Strategy>
void work_over(Store& store, Strategy strategy, const std::vector<std::string>& arguments) {
    const auto& effects = arguments.at(7);
    DrainableStream source(arguments.at(3),
                           arguments.at(4),
                           arguments.at(5),
                           idem::milliseconds(std::stol(arguments.at(6))));
    const HandlerStarts starts(arguments.at(8));
    idem::IdempotentConsumer consumer{store, strategy};
    const auto bill = consumer.wrap("billing", &Charge::id, [&](const Charge& charge) {
        starts.begin(charge);
        append_line(effects, charge.id + ':' + std::to_string(charge.cents));
        IDEM_FAILPOINT("handler: effect made");
    });
    drain(source, bill, std::stoul(arguments.at(1)));
}

template <class Strategy>
void work(Strategy strategy, const std::vector<std::string>& arguments) {
    const auto& name = arguments.at(4);
    const auto& kind = arguments.at(9);
    const auto& where = arguments.at(10);
    if (kind == "redis") {
        idem::RedisLockStore store(where, {.prefix = name});
        work_over(store, strategy, arguments);
    } else if (kind == "postgres") {
        idem::PostgresStore store(where, {.table = name});
        work_over(store, strategy, arguments);
    } else if (kind == "sqlite") {
        idem::SqliteStore store(where);
        work_over(store, strategy, arguments);
    } else {
        throw std::invalid_argument("no such store: " + kind);
    }
}

} // namespace

int main(int count, char** values) {
    return guarded(count, values, [](const std::vector<std::string>& arguments) {
        const auto& design = arguments.at(0);
        if (design == "distributed_lock") {
            work(idem::DistributedLock{.lease = idem::milliseconds(std::stol(arguments.at(2))),
                                       .min_remaining = idem::milliseconds{1}},
                 arguments);
        } else if (design == "at_most_once") {
            work(idem::AtMostOnce{}, arguments);
        } else {
            throw std::invalid_argument("no such design: " + design);
        }
    });
}
