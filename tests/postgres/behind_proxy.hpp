// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_POSTGRES_BEHIND_PROXY_HPP
#define IDEM_TESTS_POSTGRES_BEHIND_PROXY_HPP

// PostgresTest with one more store, whose link can be broken.

#include <optional>

#include "postgres_test.hpp"
#include "support/link_proxy.hpp"

namespace idem::postgres_test {

using testing_support::LinkProxy;

class PostgresBehindProxy : public PostgresTest {
protected:
    void SetUp() override {
        PostgresTest::SetUp();
        if (IsSkipped() || HasFatalFailure()) {
            return;
        }
        if (!shared_postgres().owned()) {
            GTEST_SKIP() << "only the test's own server is stopped, or cut off";
        }
        proxy_.emplace(shared_postgres().socket());
        behind_.emplace(
            PostgresServer::with_database("user=postgres host=" + proxy_->host(),
                                          outside().run("SELECT current_database()")),
            PostgresOptions{.connections = 1, .deadline = milliseconds{60'000}, .prepared = false});
    }
    /// A store that reaches the server through the proxy.
    PostgresStore& behind() { return *behind_; }
    LinkProxy& proxy() { return *proxy_; }

private:
    std::optional<LinkProxy> proxy_;
    std::optional<PostgresStore> behind_;
};

} // namespace idem::postgres_test

#endif // IDEM_TESTS_POSTGRES_BEHIND_PROXY_HPP
