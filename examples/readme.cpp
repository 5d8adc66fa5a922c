#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>

#include <iostream>

struct Order {
    std::string id;
    int cents;
};

int main() {
    idem::SqliteStore store{"shop.db"};
    store.migrate();
    idem::IdempotentConsumer consumer{store, idem::DedupTable{}};
    auto bill =
        consumer.wrap("billing", &Order::id, [](const Order& order, idem::SqliteTransaction& tx) {
            tx.execute("CREATE TABLE IF NOT EXISTS charge (order_id, cents)");
            tx.execute("INSERT INTO charge VALUES ($1, $2)", order.id, order.cents);
            return "receipt of " + order.id;
        });
    for (int delivery = 1; delivery <= 2; ++delivery) { // your broker: at least once
        auto outcome = bill({"order-7", 4200});
        std::cout << to_string(outcome.status()) << ": " << outcome.value() << '\n';
    }
}
