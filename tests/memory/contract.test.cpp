// SPDX-License-Identifier: MIT
// MemoryStore keeps every law that it claims, by virtual time, with the text of keys and compact.

#include <idem/store/memory.hpp>
#include <idem/testing/store_contract.hpp>

#include "strategy/virtual_clock.hpp"

namespace {

template <bool compact>
struct MemoryHarness : idem::testing::Differences {
    using Store = idem::BasicMemoryStore<VirtualClock>;
    static constexpr bool exact_expiry = true;
    Store& store() { return store_; }
    static void let_lease_pass(idem::milliseconds lease) { VirtualClock::advance(lease); }

private:
    Store store_{{.compact = compact}};
};
using Stores = testing::Types<MemoryHarness<false>, MemoryHarness<true>>;

} // namespace

namespace idem::testing {

INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, RecordContract, Stores);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, LeaseStoreContract, Stores);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, RenewableStoreContract, Stores);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, RefundingStoreContract, Stores);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, ParkingStoreContract, Stores);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, BatchStoreContract, Stores);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, TokenStoreContract, Stores);

} // namespace idem::testing
