// SPDX-License-Identifier: MIT
// A store of one's own, and a message that is delivered twice over it.

#include "custom_store.hpp"

#include <idem/consumer.hpp>
#include <idem/strategy/distributed_lock.hpp>

#include <iostream>
#include <string>

struct Order {
    std::string id;
    int cents = 0;
};

int main() {
    MapStore store;
    idem::IdempotentConsumer consumer{store, idem::DistributedLock{}};

    int charged = 0;
    auto bill = consumer.wrap("billing", &Order::id, [&charged](const Order& order) {
        charged += order.cents;
        return "receipt for " + order.id;
    });

    const Order order{"order-7", 4'200};
    for (int delivery = 1; delivery <= 2; ++delivery) {
        const auto outcome = bill(order);
        std::cout << to_string(outcome.status()) << ": " << outcome.value() << '\n';
    }
    std::cout << "charged " << charged << " cents\n";
    return charged == order.cents ? 0 : 1;
}
