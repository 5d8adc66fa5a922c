// SPDX-License-Identifier: MIT
// Kafka into PostgreSQL through DedupTable under kills, rebalances and a broker's death: each effect
// once, in order, and never an offset that passes a message without one.

#include <idem/store/postgres.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <thread>
#include <utility>

#include "proof/kafka_input.hpp"
#include "proof/kafka_site.hpp"
#include "support/kafka_records.hpp"
#include "support/kafka_server.hpp"
#include "support/needs.hpp"
#include "support/postgres_server.hpp"

namespace {

using namespace idem::proof;
using idem::testing_support::PostgresServer;
using idem::testing_support::PostgresSession;
using idem::testing_support::shared_kafka;
using idem::testing_support::shared_postgres;

/// The effects, while they are written. Nothing in the table keeps doubles out.
class Effects {
public:
    Effects(std::string database, const KafkaSite& site)
        : database_(std::move(database))
        , site_(site)
        , session_(database_) {
        session_.run("CREATE TABLE effect (message text NOT NULL, partition int NOT NULL, "
                     "position bigint NOT NULL, worker text NOT NULL, number bigserial)");
        session_.run(idem::PostgresStore::schema_sql({}));
    }
    [[nodiscard]] const std::string& database() const noexcept { return database_; }
    long number(const std::string& sql) { return session_.number(sql); }

    void read() {
        const auto before = count_;
        count_ = static_cast<std::size_t>(number("SELECT count(*) FROM effect"));
        if (count_ == before) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        if (count_ >= check_at_) {
            check_at_ = count_ + site_.input().count() / 50;
            check_offsets();
        }
    }
    /// Rows, so as many as there are distinct ones where none is doubled.
    [[nodiscard]] std::size_t distinct() const noexcept { return count_; }
    [[nodiscard]] std::string last_writer() const { return {}; }
    [[nodiscard]] std::size_t checks() const noexcept { return checks_; }
    void mark() {}
    [[nodiscard]] bool went_on_without(const std::string&) const { return true; }

private:
    /// Invariant 9, and 3.
    void check_offsets() {
        const auto committed = site_.group().committed(); // before the effects are looked at
        for (std::size_t i = 0; committed && i < committed->size(); ++i) {
            const auto end = (*committed)[i];
            const auto& bad = site_.input().bad()[i];
            const auto bad_before = std::lower_bound(bad.begin(), bad.end(), end) - bad.begin();
            EXPECT_EQ(number("SELECT count(DISTINCT position) FROM effect WHERE partition = " +
                             std::to_string(i) + " AND position < " + std::to_string(end)),
                      end - bad_before)
                << "committed of partition " << i;
            ++checks_;
        }
    }

    std::string database_;
    const KafkaSite& site_;
    PostgresSession session_;
    std::size_t count_ = 0, check_at_ = 1, checks_ = 0;
};

class KafkaPostgresProof : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(KafkaServer::missing());
        IDEM_TEST_NEEDS(PostgresServer::missing());
    }
};

TEST_F(KafkaPostgresProof, i1_i2_i3_i8_i9_each_effect_once_whatever_is_killed) {
    KafkaSite site(shared_kafka(), "table", 33'333, {.kills = 2, .visits = 2, .broker = true});
    Effects effects(shared_postgres().create_database(), site);
    ASSERT_NO_FATAL_FAILURE(site.work(effects.database(), effects));

    const auto count = static_cast<long>(site.input().count());
    EXPECT_EQ(effects.number("SELECT count(*) FROM effect"), count);
    EXPECT_EQ(effects.number("SELECT count(DISTINCT message) FROM effect"), count);
    EXPECT_EQ(effects.number("SELECT count(*) FROM effect WHERE message !~ '^payment [0-9]+$'"), 0);
    EXPECT_EQ(
        effects.number("SELECT count(*) FROM (SELECT position - lag(position) OVER (PARTITION "
                       "BY partition ORDER BY number) AS step FROM effect) AS steps WHERE "
                       "step < 0"),
        0)
        << "out of order";
    EXPECT_EQ(effects.number("SELECT count(*) FROM idem_record WHERE state = 2"), count);
    EXPECT_GT(effects.checks(), 40U);
    EXPECT_TRUE(dead_letters_are_the_bad(shared_kafka(), site.input()));
    if (HasFailure()) {
        std::cout << site.said();
    }
}

} // namespace
