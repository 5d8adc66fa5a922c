// SPDX-License-Identifier: MIT
// The laws of leases over the table of records.

#include <idem/store/sqlite.hpp>
#include <idem/testing/store_contract.hpp>

#include <optional>

#include "sqlite/database.hpp"
#include "sqlite/still_clock.hpp"

namespace {

struct SqliteLeaseHarness : idem::testing::Differences {
    using Store = idem::BasicSqliteStore<StillClock>;
    static constexpr bool exact_expiry = true;
    static constexpr bool survives_restart = true;

    SqliteLeaseHarness() {
        restart();
        store().migrate();
    }
    Store& store() { return *store_; }
    // A deadline that 64 threads on one file do not reach.
    void restart() {
        store_.emplace(database_.path(), idem::SqliteOptions{.busy = idem::milliseconds{120'000}});
    }
    static void let_lease_pass(idem::milliseconds lease) { StillClock::advance(lease); }
    static void let_retention_pass(idem::seconds retention) { StillClock::advance(retention); }

    idem::testing_support::TestDatabase database_;
    std::optional<Store> store_;
};

} // namespace

namespace idem::testing {

INSTANTIATE_TYPED_TEST_SUITE_P(SqliteLease, RecordContract, SqliteLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteLease, LeaseStoreContract, SqliteLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteLease, RenewableStoreContract, SqliteLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteLease, RefundingStoreContract, SqliteLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteLease, ParkingStoreContract, SqliteLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteLease, BatchStoreContract, SqliteLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteLease, InspectionContract, SqliteLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteLease, TokenStoreContract, SqliteLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteLease, TwoModeContract, SqliteLeaseHarness);

} // namespace idem::testing
