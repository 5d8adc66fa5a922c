// SPDX-License-Identifier: MIT
// expected: deleted

#include "stores.hpp"

#ifdef RIGHT
idem::IdempotentConsumer consumer{memory, idem::DistributedLock{}};
#else
idem::IdempotentConsumer consumer{idem::MemoryStore{}, idem::DistributedLock{}};
#endif
