// SPDX-License-Identifier: MIT
// expected: idem: the handler must take const Message& (or a copy): a rerun must see the same
// message

#include "stores.hpp"

#ifdef RIGHT
auto bill = Leased{leases, {}}.wrap("billing", &Order::id, [](Order) {});
#else
auto bill = Leased{leases, {}}.wrap("billing", &Order::id, [](Order&&) {});
#endif
