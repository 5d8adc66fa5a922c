// SPDX-License-Identifier: MIT
// expected: idem::OneTimeToken needs a TokenStore: issue(scope, ttl,

#include "stores.hpp"

#ifdef RIGHT
idem::IdempotentConsumer consumer{memory, idem::OneTimeToken{}};
#else
idem::IdempotentConsumer consumer{leases, idem::OneTimeToken{}};
#endif
