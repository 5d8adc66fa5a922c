// SPDX-License-Identifier: MIT
// A Redis stream's entries into PostgreSQL. Arguments: design, messages abreast, the most attempts,
// connection string, schema, address of Redis, stream, consumer, milliseconds of silence after
// which another's entry is taken over, file of handler starts.

#include <idem/store/postgres.hpp>

#include <stdexcept>
#include <string>
#include <vector>

#include "crash/mutants.hpp"
#include "crash/stream_broker.hpp"
#include "crash/worker.hpp"

namespace {

using namespace idem::crash_test;

template <class Strategy>
void work(Strategy strategy, const std::vector<std::string>& arguments) {
    const auto abreast = static_cast<std::size_t>(std::stoul(arguments.at(1)));
    const auto attempts = static_cast<unsigned>(std::stoul(arguments.at(2)));
    const auto& schema = arguments.at(4);
    idem::PostgresStore store(arguments.at(3), {.table = schema + ".idem_record"});
    DrainableStream source(arguments.at(5),
                           arguments.at(6),
                           arguments.at(7),
                           idem::milliseconds(std::stol(arguments.at(8))));
    const HandlerStarts starts(arguments.at(9));
    const auto insert = "INSERT INTO " + schema + ".effect (id, cents) VALUES ($1, $2)";
    idem::IdempotentConsumer consumer{store, strategy, {.max_attempts = attempts}};
    const auto bill = consumer.wrap(
        "billing", &Charge::id, [&](const Charge& charge, idem::PostgresTransaction& tx) {
            starts.begin(charge);
            tx.execute(insert, charge.id, charge.cents);
            IDEM_FAILPOINT("handler: effect written");
        });
    drain(source, bill, abreast);
}

} // namespace

int main(int count, char** values) {
    return guarded(count, values, [](const std::vector<std::string>& arguments) {
        const auto& design = arguments.at(0);
        if (design == "dedup_table") {
            work(idem::DedupTable{}, arguments);
        } else if (design == "mark_then_effect") {
            work(MarkThenEffect{}, arguments);
        } else if (design == "effect_then_mark") {
            work(EffectThenMark{}, arguments);
        } else {
            throw std::invalid_argument("no such design: " + design);
        }
    });
}
