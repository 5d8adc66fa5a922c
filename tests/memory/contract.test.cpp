// SPDX-License-Identifier: MIT
// MemoryStore keeps every law that it claims, by virtual time.

#include <idem/store/memory.hpp>
#include <idem/testing/store_contract.hpp>

#include "strategy/virtual_clock.hpp"

namespace {

struct MemoryHarness : idem::testing::Differences {
    using Store = idem::BasicMemoryStore<VirtualClock>;
    static constexpr bool exact_expiry = true;
    Store& store() { return store_; }
    static void let_lease_pass(idem::milliseconds lease) { VirtualClock::advance(lease); }

private:
    Store store_;
};

} // namespace

namespace idem::testing {

INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, RecordContract, MemoryHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, LeaseStoreContract, MemoryHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, RenewableStoreContract, MemoryHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, RefundingStoreContract, MemoryHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, ParkingStoreContract, MemoryHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, BatchStoreContract, MemoryHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(MemoryStore, TokenStoreContract, MemoryHarness);

} // namespace idem::testing
