// SPDX-License-Identifier: MIT
// The laws of leases over the table of records, on a real server.

#include <idem/testing/store_contract.hpp>

#include "postgres_test.hpp"

namespace idem::postgres_test {

struct LeaseHarness : testing::Differences {
    using Store = PostgresStore;
    static constexpr bool survives_restart = true;

    static std::string missing() { return PostgresServer::missing(); }

    LeaseHarness() { store_.migrate(); }
    Store& store() { return store_; }
    /// By the server's clock.
    void let_lease_pass(milliseconds lease) {
        outside_->run("SELECT pg_sleep(" + std::to_string(lease.count() + 1) + " / 1000.0)");
    }
    void let_retention_pass(seconds retention) { let_lease_pass(retention); }
    void restart() {
        outside_.reset();
        shared_postgres().restart();
        outside_.emplace(one_database());
    }

private:
    std::optional<PostgresSession> outside_{one_database()};
    // A deadline that 64 threads on one server do not reach.
    PostgresStore store_{one_database(),
                         {.table = "record_" + next_number(), .deadline = milliseconds{20'000}}};
};

} // namespace idem::postgres_test

namespace idem::testing {

using PostgresLeaseHarness = postgres_test::LeaseHarness;
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresLease, RecordContract, PostgresLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresLease, LeaseStoreContract, PostgresLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresLease, RenewableStoreContract, PostgresLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresLease, RefundingStoreContract, PostgresLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresLease, ParkingStoreContract, PostgresLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresLease, BatchStoreContract, PostgresLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresLease, InspectionContract, PostgresLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresLease, TokenStoreContract, PostgresLeaseHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresLease, TwoModeContract, PostgresLeaseHarness);

} // namespace idem::testing
