// SPDX-License-Identifier: MIT
// expected: idem: neither callable names the message type; write wrap<Message>(scope, key_of,
// handler)

#include "stores.hpp"

auto key_of = [](const auto& order) { return order.id; };
auto handler = [](const auto&) {};
#ifdef RIGHT
auto bill = Leased{leases, {}}.wrap<Order>("billing", key_of, handler);
#else
auto bill = Leased{leases, {}}.wrap("billing", key_of, handler);
#endif
