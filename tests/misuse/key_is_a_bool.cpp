// SPDX-License-Identifier: MIT
// expected: idem: the key function must return a string, a number or idem::Identity

#include "stores.hpp"

#ifdef RIGHT
auto bill = Leased{leases, {}}.wrap(
    "billing", [](const Order&) { return 1; }, [](const Order&) {});
#else
auto bill = Leased{leases, {}}.wrap(
    "billing", [](const Order&) { return true; }, [](const Order&) {});
#endif
