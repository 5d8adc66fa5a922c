// SPDX-License-Identifier: MIT
// The journal's entries into a SQLite database. Arguments: design, messages abreast, the most
// attempts, database, journal,
// file of handler starts.

#include <idem/store/sqlite.hpp>

#include <stdexcept>
#include <string>
#include <vector>

#include "crash/mutants.hpp"
#include "crash/worker.hpp"

namespace {

using namespace idem::crash_test;

template <class Strategy>
void work(Strategy strategy, const std::vector<std::string>& arguments) {
    const auto abreast = static_cast<std::size_t>(std::stoul(arguments[1]));
    const auto attempts = static_cast<unsigned>(std::stoul(arguments[2]));
    idem::SqliteStore store(arguments[3]);
    JournalSource journal(arguments[4]);
    const HandlerStarts starts(arguments.at(5));
    idem::IdempotentConsumer consumer{store, strategy, {.max_attempts = attempts}};
    const auto bill = consumer.wrap(
        "billing", &Charge::id, [&](const Charge& charge, idem::SqliteTransaction& tx) {
            starts.begin(charge);
            tx.execute("INSERT INTO effect (id, cents) VALUES (?, ?)", charge.id, charge.cents);
            IDEM_FAILPOINT("handler: effect written");
        });
    drain(journal, bill, abreast);
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
