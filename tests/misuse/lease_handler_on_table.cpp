// SPDX-License-Identifier: MIT
// expected: idem: the handler must be callable as handler(const Message&) or handler(const
// Message&, Context&)

#include "stores.hpp"

#ifdef RIGHT
auto bill = Joined{table, {}}.wrap("billing", &Order::id, [](const Order&, Transaction&) {});
#else
auto bill = Joined{table, {}}.wrap("billing", &Order::id, [](const Order&, idem::Lease&) {});
#endif
