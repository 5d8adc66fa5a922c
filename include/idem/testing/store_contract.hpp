// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_STORE_CONTRACT_HPP
#define IDEM_TESTING_STORE_CONTRACT_HPP

// The laws of dedup_store.hpp as GoogleTest suites, a test per row, to run over a store of your
// own.
//
// Write a harness, a class that GoogleTest can make anew for each test, and instantiate the suites
// of the concepts that the store models, in the suites' namespace:
//
//     struct MyHarness : idem::testing::Differences {
//         using Store = MyStore;
//         Store& store() { return store_; }
//         void let_lease_pass(idem::milliseconds lease); // returns once such a lease has ended
//         Store store_;
//     };
//     namespace idem::testing {
//     INSTANTIATE_TYPED_TEST_SUITE_P(MyStore, RecordContract, MyHarness);
//     INSTANTIATE_TYPED_TEST_SUITE_P(MyStore, LeaseStoreContract, MyHarness);
//     }
//
// RecordContract and LeaseStoreContract are for every DedupStore; RenewableStoreContract,
// RefundingStoreContract, ParkingStoreContract, BatchStoreContract and TokenStoreContract for the
// powers beyond. A TransactionalStore takes RecordContract, TransactionalStoreContract, and where
// it models them BatchTransactionContract and PeekingStoreContract; its harness has, beside
// store(), `void write_effect(Store::Transaction&, const std::string& id)` and `std::size_t
// count_effects(const std::string& id)`, which counts what is committed, through a connection of
// its own.
//
// InspectionContract is for every InspectableStore, by lease or by transactions. For the laws of
// prune() its harness has `void let_retention_pass(seconds)`, which returns once records of such a
// retention are past it, and its store a table of its own; without it they are skipped.
//
// Where a law allows stores to differ, the harness says which by a constant of
// idem::testing::Differences. `static std::string missing()` skips every test with the reason it
// returns, for want of a server; an empty string runs them. Each test has a scope of its own, so
// that a server may be shared. Instantiate each suite in one translation unit.

#include <idem/testing/batch_transaction_contract.hpp>
#include <idem/testing/inspection_contract.hpp>
#include <idem/testing/lease_power_contract.hpp>
#include <idem/testing/lease_store_contract.hpp>
#include <idem/testing/record_contract.hpp>
#include <idem/testing/token_store_contract.hpp>
#include <idem/testing/transactional_store_contract.hpp>
#include <idem/testing/two_mode_contract.hpp>

#endif // IDEM_TESTING_STORE_CONTRACT_HPP
