// SPDX-License-Identifier: MIT
// SqliteStore keeps the laws of dedup_store.hpp and inspectable_store.hpp.

#include <idem/store/sqlite.hpp>
#include <idem/testing/store_contract.hpp>

#include <optional>
#include <string>

#include "sqlite/database.hpp"
#include "sqlite/shifted_clock.hpp"

namespace {

struct SqliteHarness : idem::testing::Differences {
    using Store = idem::BasicSqliteStore<ShiftedClock>;
    static constexpr bool in_progress_occurs = false; // r1.9
    static constexpr bool survives_restart = true;

    SqliteHarness() {
        restart();
        store().migrate();
    }
    Store& store() { return *store_; }
    void restart() { store_.emplace(database_.path()); }
    static void let_retention_pass(idem::seconds retention) { ShiftedClock::advance(retention); }
    static void write_effect(idem::SqliteTransaction& transaction, const std::string& id) {
        transaction.execute("INSERT INTO effect VALUES (?)", id);
    }
    std::size_t count_effects(const std::string& id) {
        return static_cast<std::size_t>(
            database_.plain().number("SELECT count(*) FROM effect WHERE id = '" + id + "'"));
    }

    idem::testing_support::TestDatabase database_;
    std::optional<Store> store_;
};

} // namespace

namespace idem::testing {

INSTANTIATE_TYPED_TEST_SUITE_P(SqliteStore, RecordContract, SqliteHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteStore, TransactionalStoreContract, SqliteHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteStore, PeekingStoreContract, SqliteHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteStore, BatchTransactionContract, SqliteHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(SqliteStore, InspectionContract, SqliteHarness);

} // namespace idem::testing
