// SPDX-License-Identifier: MIT
// The contract over the example's store: what a user does with a store of their own.

#include "../../examples/custom_store.hpp"

#include <idem/testing/store_contract.hpp>

#include <thread>

namespace {

struct MapStoreHarness : idem::testing::Differences {
    using Store = MapStore;
    Store& store() { return store_; }
    static void let_lease_pass(idem::milliseconds lease) { std::this_thread::sleep_for(lease); }

private:
    Store store_;
};

} // namespace

namespace idem::testing {

INSTANTIATE_TYPED_TEST_SUITE_P(MapStore, RecordContract, MapStoreHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(MapStore, LeaseStoreContract, MapStoreHarness);

} // namespace idem::testing
