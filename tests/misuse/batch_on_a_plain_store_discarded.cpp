// SPDX-License-Identifier: MIT
// expected: idem: batch() needs a BatchStore and a strategy that runs spans

#include <vector>

#include "stores.hpp"

void call(const std::vector<Order>& orders) {
#ifdef RIGHT
    const idem::IdempotentConsumer consumer{memory, idem::DistributedLock{}};
#else
    const idem::IdempotentConsumer consumer{leases, idem::DistributedLock{}};
#endif
    const auto bill = consumer.wrap("billing", &Order::id, [](const Order&) {});
    static_cast<void>(bill.batch(orders, std::stop_token{}));
}
