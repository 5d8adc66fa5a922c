// SPDX-License-Identifier: MIT
// What needs the standard library alone: a message delivered twice is handled once.

#include <idem/idem.hpp>

#include <cstdio>
#include <string>

struct Order {
    std::string id;
    int cents = 0;
};

int main() {
    idem::MemoryStore store;
    idem::IdempotentConsumer consumer{store, idem::DistributedLock{}};

    int charged = 0;
    auto bill = consumer.wrap(
        "billing", &Order::id, [&](const Order& order) { return charged += order.cents; });
    const Order order{"order-1", 500};
    const auto first = bill(order);
    const auto again = bill(order);

    std::printf("charged %d\n", charged);
    const bool once = first.status() == idem::Status::executed &&
                      again.status() == idem::Status::replayed && again.value() == 500;
    return once && charged == 500 ? 0 : 1;
}
