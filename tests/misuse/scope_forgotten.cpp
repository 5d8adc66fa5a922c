// SPDX-License-Identifier: MIT
// expected: idem: wrap needs the handler's scope first: wrap(scope, key_of, handler)

#include "stores.hpp"

#ifdef RIGHT
auto bill = Leased{leases, {}}.wrap("billing", &Order::id, [](const Order&) {});
#else
void call() {
    Leased{leases, {}}.wrap(&Order::id, [](const Order&) {});
}
#endif
