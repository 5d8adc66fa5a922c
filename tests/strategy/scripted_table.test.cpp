// SPDX-License-Identifier: MIT
// The contract over the model that the strategy tests use.

#include "strategy/scripted_table.hpp"

#include <idem/testing/store_contract.hpp>

namespace {

struct TableHarness : idem::testing::Differences {
    using Store = ScriptedTable;
    Store& store() { return store_; }
    static void write_effect(Store::Transaction& transaction, const std::string& id) {
        transaction.write(id);
    }
    std::size_t count_effects(const std::string& id) { return store_.effects(id); }

private:
    Store store_;
};

} // namespace

namespace idem::testing {

INSTANTIATE_TYPED_TEST_SUITE_P(ScriptedTable, RecordContract, TableHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(ScriptedTable, TransactionalStoreContract, TableHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(ScriptedTable, BatchTransactionContract, TableHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(ScriptedTable, PeekingStoreContract, TableHarness);

} // namespace idem::testing
