// SPDX-License-Identifier: MIT
// The laws of the concepts that PostgresStore models, on a real server.

#include <idem/testing/store_contract.hpp>

#include "postgres_test.hpp"

namespace idem::postgres_test {

struct Harness : testing::Differences {
    using Store = PostgresStore;
    static constexpr bool survives_restart = true;

    static std::string missing() { return PostgresServer::missing(); }

    Harness() {
        outside_->run("CREATE TABLE " + effects_ + " (id text NOT NULL)");
        store_.migrate();
    }
    Store& store() { return store_; }
    void write_effect(PostgresTransaction& tx, const std::string& id) {
        tx.execute("INSERT INTO " + effects_ + " VALUES ($1)", id);
    }
    std::size_t count_effects(const std::string& id) {
        return static_cast<std::size_t>(
            outside_->number("SELECT count(*) FROM " + effects_ + " WHERE id = '" + id + "'"));
    }
    /// By the server's clock.
    void let_retention_pass(seconds retention) {
        outside_->run("SELECT pg_sleep(" + std::to_string(retention.count()) + ".001)");
    }
    void restart() {
        outside_.reset();
        shared_postgres().restart();
        outside_.emplace(one_database());
    }

private:
    std::string number_ = next_number();
    std::string effects_ = "effect_" + number_;
    std::optional<PostgresSession> outside_{one_database()};
    PostgresStore store_{one_database(), {.table = "record_" + number_}};
};

} // namespace idem::postgres_test

namespace idem::testing {

using PostgresHarness = postgres_test::Harness;
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresStore, RecordContract, PostgresHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresStore, TransactionalStoreContract, PostgresHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresStore, BatchTransactionContract, PostgresHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresStore, PeekingStoreContract, PostgresHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(PostgresStore, InspectionContract, PostgresHarness);

} // namespace idem::testing
