// SPDX-License-Identifier: MIT
// The sqlite component: record and effect in one transaction of a file.

#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>

#include <cstdio>
#include <string>

int main() {
    idem::SqliteStore store{"consumer.db"};
    store.migrate();
    idem::IdempotentConsumer consumer{store, idem::DedupTable{}};

    int charged = 0;
    auto bill = consumer.wrap(
        "billing",
        [](const std::string& order) { return order; },
        [&](const std::string&, idem::SqliteTransaction&) { ++charged; });
    bill(std::string("order-1"));
    bill(std::string("order-1"));

    std::printf("charged %d times\n", charged);
    return charged == 1 ? 0 : 1;
}
