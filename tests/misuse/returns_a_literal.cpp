// SPDX-License-Identifier: MIT
// expected: idem: a view cannot be replayed; return std::string

#include "stores.hpp"

#ifdef RIGHT
auto bill =
    Leased{leases, {}}.wrap("billing", &Order::id, [](const Order&) { return std::string("ok"); });
#else
auto bill = Leased{leases, {}}.wrap("billing", &Order::id, [](const Order&) { return "ok"; });
#endif
