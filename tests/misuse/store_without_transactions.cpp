// SPDX-License-Identifier: MIT
// expected: idem::DedupTable needs a TransactionalStore: begin() -> Transaction

#include "stores.hpp"

#ifdef RIGHT
idem::IdempotentConsumer consumer{table, idem::DedupTable{}};
#else
idem::IdempotentConsumer consumer{leases, idem::DedupTable{}};
#endif
