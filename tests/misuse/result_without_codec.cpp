// SPDX-License-Identifier: MIT
// expected: idem: the handler's result has no Codec; specialise idem::Codec<T>, or return void, a
// string or a number

#include "stores.hpp"

#ifdef RIGHT
auto bill = Leased{leases, {}}.wrap("billing", &Order::id, [](const Order& o) { return o.id; });
#else
auto bill = Leased{leases, {}}.wrap("billing", &Order::id, [](const Order& o) { return o; });
#endif
