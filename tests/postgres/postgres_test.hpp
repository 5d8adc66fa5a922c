// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_POSTGRES_POSTGRES_TEST_HPP
#define IDEM_TESTS_POSTGRES_POSTGRES_TEST_HPP

// A fresh database with a table of records and a table of effects, and a look at both from outside.

#include <idem/store/postgres.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>

#include "support/needs.hpp"
#include "support/postgres_server.hpp"

namespace idem::postgres_test {

using testing_support::PostgresServer;
using testing_support::PostgresSession;
using testing_support::shared_postgres;

inline bool is_claimed(const Claim<std::monostate>& claim) {
    return std::holds_alternative<Claimed<std::monostate>>(claim);
}
template <class Alternative>
bool is(const Claim<std::monostate>& claim) {
    return std::holds_alternative<Alternative>(claim);
}

/// The error of type E that `call` throws; a failed test where it throws none or another.
template <class E, class Call>
std::optional<E> thrown(Call call) {
    try {
        call();
        ADD_FAILURE() << "nothing was thrown";
    } catch (const E& error) {
        return error;
    } catch (const std::exception& other) {
        ADD_FAILURE() << "another exception: " << other.what();
    }
    return std::nullopt;
}
/// The fault of the StoreError that `call` throws.
template <class Call>
std::optional<Fault> fault_thrown(Call call) {
    const auto error = thrown<StoreError>(call);
    return error ? std::optional(error->fault()) : std::nullopt;
}

/// Whether `happened` comes true within a time that no working machine needs.
template <class Happened>
bool eventually(Happened happened) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!happened()) {
        if (std::chrono::steady_clock::now() > until) {
            return false;
        }
        std::this_thread::yield();
    }
    return true;
}

/// The database of tests that differ by their tables only: made once, as that is slow.
inline const std::string& one_database() {
    static const std::string conninfo = shared_postgres().create_database();
    return conninfo;
}
inline std::string next_number() {
    static unsigned number = 0;
    return std::to_string(++number);
}

class PostgresTest : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(PostgresServer::missing());
        conninfo_ = shared_postgres().create_database();
        outside_.emplace(conninfo_);
        outside_->run("CREATE TABLE effect (id text NOT NULL)");
        store_.emplace(conninfo_, options_);
        store_->migrate();
    }

    [[nodiscard]] PostgresStore& store() { return *store_; }
    /// Another connection, for what happens beside the store.
    [[nodiscard]] PostgresSession& outside() { return *outside_; }
    [[nodiscard]] const std::string& conninfo() const { return conninfo_; }

    static ClaimRequest request(std::string_view id = "m-1", Fingerprint fingerprint = {}) {
        return {.key = {"billing", id}, .fingerprint = fingerprint};
    }
    static void write_effect(PostgresTransaction& tx, std::string_view id = "m-1") {
        tx.execute("INSERT INTO effect VALUES ($1)", id);
    }
    long effects() { return outside().number("SELECT count(*) FROM effect"); }
    long records() { return outside().number("SELECT count(*) FROM idem_record"); }
    /// A new claim's answer, given back.
    Claim<std::monostate> look(const ClaimRequest& asked) {
        auto tx = store().begin();
        auto claim = tx.claim(asked);
        tx.rollback();
        return claim;
    }
    /// What DedupTable does of a message that succeeds.
    void handle(const ClaimRequest& asked, std::string_view result = "") {
        auto tx = store().begin();
        ASSERT_TRUE(is_claimed(tx.claim(asked)));
        write_effect(tx, asked.key.id);
        tx.complete(asked, result);
        tx.commit();
    }

    PostgresOptions options_{};

private:
    std::string conninfo_;
    std::optional<PostgresSession> outside_;
    std::optional<PostgresStore> store_;
};

} // namespace idem::postgres_test

#endif // IDEM_TESTS_POSTGRES_POSTGRES_TEST_HPP
