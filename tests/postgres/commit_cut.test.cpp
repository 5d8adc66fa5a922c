// SPDX-License-Identifier: MIT
// The link cut at every byte of the exchange that ends in COMMIT, in both directions: the answer is
// true, and in the end there is one effect (semantics.md 1.3, 2.1, 3.2, 9.1, 9.11).

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>

#include <ostream>
#include <string>
#include <vector>

#include "postgres_test.hpp"
#include "support/link_proxy.hpp"

namespace idem::postgres_test {

using testing_support::LinkProxy;
using Towards = LinkProxy::Towards;

/// What travels with the COMMIT, and what becomes of a transaction that did not commit.
struct Exchange {
    const char* name;
    bool posts = false;   ///< the handler's statement
    bool returns = false; ///< a result to be stored
    bool prepared = true; ///< names alone, or whole texts
    unsigned reruns = 0;  ///< 0: the bare answer of one transaction

    friend std::ostream& operator<<(std::ostream& out, const Exchange& exchange) {
        return out << exchange.name;
    }
};

class PostgresCommitCut : public PostgresTest, public ::testing::WithParamInterface<Exchange> {
protected:
    void SetUp() override {
        PostgresTest::SetUp();
        if (IsSkipped() || HasFatalFailure()) {
            return;
        }
        if (!shared_postgres().owned()) {
            GTEST_SKIP() << "the proxy needs a unix socket of the test's own server";
        }
        proxy_.emplace(shared_postgres().socket());
        behind_.emplace(PostgresServer::with_database("user=postgres host=" + proxy_->host(),
                                                      outside().run("SELECT current_database()")),
                        PostgresOptions{.connections = 1,
                                        .deadline = milliseconds{60'000},
                                        .prepared = GetParam().prepared});
    }
    /// One delivery.
    Verdict deliver(const std::string& id) {
        auto itself = [](const std::string& message) { return message; };
        auto work = [this](const std::string& message, PostgresTransaction& tx) {
            ++runs_;
            if (!GetParam().posts) {
                write_effect(tx, message);
            }
            before_ = {proxy_->bytes(Towards::server), proxy_->bytes(Towards::client)};
            if (cut_) { // whatever is sent from here on travels with the COMMIT
                proxy_->arm(cut_->end, cut_->bytes);
                cut_.reset();
            }
            if (GetParam().posts) {
                tx.post("INSERT INTO effect VALUES ($1)", message);
            }
        };
        IdempotentConsumer consumer(*behind_, DedupTable{.reruns = GetParam().reruns});
        if (GetParam().returns) {
            auto bill = consumer.wrap(
                "billing", itself, [&](const std::string& message, PostgresTransaction& tx) {
                    work(message, tx);
                    return message;
                });
            return bill.handle(id, {}).verdict();
        }
        return consumer.wrap("billing", itself, work).handle(id, {}).verdict();
    }
    /// Bytes of the last exchange of a delivery on a connection that has seen one before.
    std::size_t length(Towards end) {
        EXPECT_EQ(deliver("m-warm-1").status, Status::executed);
        EXPECT_EQ(deliver("m-warm-2").status, Status::executed);
        return proxy_->bytes(end) - (end == Towards::server ? before_.first : before_.second);
    }
    /// Effects and completed records of one key, as others see them.
    std::string seen(const std::string& id) {
        return outside().run("SELECT (SELECT count(*) FROM effect WHERE id = '" + id +
                             "') || ' ' || (SELECT count(*) FROM idem_record WHERE state = 2 AND "
                             "id = '" +
                             id + "')");
    }
    /// Cuts once, behind `bytes`, and delivers again. Returns whether the first delivery executed.
    bool cut(Towards end, std::size_t bytes) {
        SCOPED_TRACE("behind byte " + std::to_string(bytes));
        const auto number = std::to_string(1'000 + bytes);
        EXPECT_EQ(deliver("warm-" + number).status, Status::executed) << "a new connection";
        const auto id = "m-cut-" + number;
        runs_ = 0;
        cut_ = {end, bytes};
        const auto first = deliver(id);
        EXPECT_TRUE(proxy_->done()) << "nothing was cut";
        const bool executed = first.status == Status::executed;
        if (executed) {
            EXPECT_EQ(seen(id), "1 1");
        } else { // and never in doubt: the server could be asked
            EXPECT_EQ(first.fault, Fault::unavailable) << what_of(first);
            EXPECT_EQ(first.settlement().action, Settlement::retry);
            EXPECT_EQ(seen(id), "0 0");
        }
        last_runs_ = runs_;
        const auto again = deliver(id);
        EXPECT_EQ(again.status, executed ? Status::replayed : Status::executed);
        EXPECT_EQ(runs_, last_runs_ + (executed ? 0 : 1));
        EXPECT_EQ(seen(id), "1 1");
        return executed;
    }
    static std::string what_of(const Verdict& verdict) {
        return verdict.error ? detail::what_of(verdict.error) : "no error";
    }
    void expect_one_effect_each(std::size_t cuts) {
        EXPECT_EQ(outside().number("SELECT count(*) FROM effect WHERE id LIKE 'm-cut-%'"),
                  static_cast<long>(cuts));
        EXPECT_EQ(outside().number("SELECT count(DISTINCT id) FROM effect"), effects());
    }
    [[nodiscard]] unsigned last_runs() const { return last_runs_; }

private:
    struct Cut {
        Towards end;
        std::size_t bytes;
    };
    std::optional<LinkProxy> proxy_;
    std::optional<PostgresStore> behind_;
    std::optional<Cut> cut_;
    std::pair<std::size_t, std::size_t> before_;
    unsigned runs_ = 0, last_runs_ = 0;
};

TEST_P(PostgresCommitCut, r2_1_r9_11_a_request_cut_at_any_byte_did_all_or_nothing) {
    const auto all = length(Towards::server);
    ASSERT_GT(all, 20U);
    std::vector<std::size_t> executed, not_executed;
    for (std::size_t bytes = 0; bytes <= all; ++bytes) {
        (cut(Towards::server, bytes) ? executed : not_executed).push_back(bytes);
        ASSERT_FALSE(HasFailure());
    }
    expect_one_effect_each(all + 1);
    // Some byte is the last that the server needs, and no later one matters.
    ASSERT_FALSE(executed.empty() || not_executed.empty());
    EXPECT_LT(not_executed.back(), executed.front());
    EXPECT_LT(executed.front(), all) << "the Sync behind the COMMIT is not needed";
}

TEST_P(PostgresCommitCut, r2_1_an_answer_cut_at_any_byte_is_found_executed) {
    const auto all = length(Towards::client);
    ASSERT_GT(all, 20U);
    for (std::size_t bytes = 0; bytes < all; ++bytes) {
        EXPECT_TRUE(cut(Towards::client, bytes));
        EXPECT_EQ(last_runs(), 1U) << "it was read back, not run again";
        ASSERT_FALSE(HasFailure());
    }
    expect_one_effect_each(all);
}

INSTANTIATE_TEST_SUITE_P(
    ,
    PostgresCommitCut,
    ::testing::Values(Exchange{.name = "executes"},
                      Exchange{.name = "posts", .posts = true},
                      Exchange{.name = "returns", .returns = true},
                      Exchange{.name = "posts_in_text", .posts = true, .prepared = false}),
    [](const auto& tested) { return std::string(tested.param.name); });

class PostgresCommitCutAndReruns : public PostgresCommitCut {};

TEST_P(PostgresCommitCutAndReruns, r3_2_a_request_cut_anywhere_is_run_again_and_not_given_back) {
    const auto all = length(Towards::server);
    std::size_t cuts = 0;
    for (std::size_t bytes = 0; bytes <= all; bytes += 3, ++cuts) {
        EXPECT_TRUE(cut(Towards::server, bytes));
        EXPECT_LE(last_runs(), 2U);
        ASSERT_FALSE(HasFailure());
    }
    expect_one_effect_each(cuts);
    EXPECT_EQ(outside().number("SELECT max(attempts) FROM idem_record"), 1)
        << "a rerun is no attempt";
}

INSTANTIATE_TEST_SUITE_P(,
                         PostgresCommitCutAndReruns,
                         ::testing::Values(Exchange{.name = "posts", .posts = true, .reruns = 1}),
                         [](const auto& tested) { return std::string(tested.param.name); });

} // namespace idem::postgres_test
