// SPDX-License-Identifier: MIT
// expected: idem: the handler must take const Message& (or a copy): a rerun must see the same
// message

#include "stores.hpp"

#ifdef RIGHT
auto bill = Joined{table, {}}.wrap("billing", &Order::id, [](const Order&, Transaction&) {});
#else
auto bill = Joined{table, {}}.wrap("billing", &Order::id, [](Order&, Transaction&) {});
#endif
