// SPDX-License-Identifier: MIT
// expected: idem: a view cannot be replayed; return std::string

#include "stores.hpp"

#ifdef RIGHT
auto bill = Leased{leases, {}}.wrap("billing", &Order::id, [](const Order& o) { return o.id; });
#else
auto bill = Leased{leases, {}}.wrap(
    "billing", &Order::id, [](const Order& o) { return std::string_view(o.id); });
#endif
