// SPDX-License-Identifier: MIT
// expected: idem: the handler and the key function take different messages

#include "stores.hpp"

#ifdef RIGHT
auto bill = Leased{leases, {}}.wrap("billing", &Order::id, [](const Order&) {});
#else
auto bill = Leased{leases, {}}.wrap("billing", &Customer::id, [](const Order&) {});
#endif
