// SPDX-License-Identifier: MIT
// expected: idem::DistributedLock needs a DedupStore: claim, complete, abandon

#include "stores.hpp"

struct Mine : LeaseStore {
#ifdef RIGHT
    idem::TicketState complete(const Ticket&, std::string_view);
#else
    void complete(const Ticket&, std::string_view);
#endif
};
extern Mine mine;
idem::IdempotentConsumer consumer{mine, idem::DistributedLock{}};
