// SPDX-License-Identifier: MIT
// OffsetFence behind Kafka: the row in PostgreSQL or SQLite says where the source starts, and a dead
// letter moves it (semantics.md 6.3).

#include <idem/broker/kafka.hpp>
#include <idem/consumer.hpp>
#include <idem/store/postgres.hpp>
#include <idem/store/sqlite.hpp>
#include <idem/strategy/offset_fence.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "sqlite/database.hpp"
#include "support/kafka_records.hpp"
#include "support/kafka_server.hpp"
#include "support/needs.hpp"
#include "support/postgres_server.hpp"

namespace idem::kafka_test {

using testing_support::KafkaProducer;
using testing_support::KafkaServer;
using testing_support::PostgresServer;
using testing_support::PostgresSession;
using testing_support::read_topic;
using testing_support::shared_kafka;
using testing_support::shared_postgres;

/// A database with a table of effects, and how it is looked at from outside.
struct InPostgres {
    using Store = PostgresStore;
    InPostgres() : conninfo(shared_postgres().create_database()), outside(conninfo) {
        outside.run("CREATE TABLE effect (id text NOT NULL)");
    }
    static std::string missing() { return PostgresServer::missing(); }
    std::unique_ptr<Store> open() { return std::make_unique<Store>(conninfo); }
    static void write(PostgresTransaction& tx, std::string_view id) {
        tx.execute("INSERT INTO effect VALUES ($1)", id);
    }
    std::string effects() {
        return outside.run("SELECT coalesce(string_agg(id, ' ' ORDER BY id), '') FROM effect");
    }
    std::string conninfo;
    PostgresSession outside;
};
struct InSqlite {
    using Store = SqliteStore;
    static std::string missing() { return {}; }
    std::unique_ptr<Store> open() { return std::make_unique<Store>(database.path()); }
    static void write(SqliteTransaction& tx, std::string_view id) {
        tx.execute("INSERT INTO effect VALUES (?)", id);
    }
    std::string effects() {
        return database.plain().text("SELECT coalesce(group_concat(id, ' '), '') FROM (SELECT id "
                                     "FROM effect ORDER BY id)");
    }
    testing_support::TestDatabase database;
};

template <class Database>
class KafkaFence : public ::testing::Test {
protected:
    using Store = typename Database::Store;

    void SetUp() override {
        IDEM_TEST_NEEDS(KafkaServer::missing());
        IDEM_TEST_NEEDS(Database::missing());
        static int number = 0;
        name_ = std::string("fence-") + typeid(Database).name() + std::to_string(++number);
        shared_kafka().create_topic(name_);
        database_.emplace();
        store_ = database_->open();
        store_->migrate();
        keeper_.emplace(*store_, "billing");
        KafkaProducer(shared_kafka()).write_numbered(name_, 5);
    }
    KafkaOptions options(OffsetKeeper* offsets) {
        KafkaOptions options{
            .servers = shared_kafka().address(), .group = name_, .topics = {name_}};
        options.offsets = offsets;
        options.settings = testing_support::kafka_client_settings();
        options.settings.emplace_back("fetch.wait.max.ms", "20");
        options.settings.emplace_back("session.timeout.ms", "6000");
        options.commit_interval = milliseconds{3'600'000}; // only the row tells
        return options;
    }
    static std::vector<KafkaDelivery> take(KafkaSource& source, std::size_t count) {
        std::vector<KafkaDelivery> taken;
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(120);
        while (taken.size() < count && std::chrono::steady_clock::now() < until) {
            for (auto& delivery : source.receive(milliseconds{100}, count - taken.size())) {
                taken.push_back(std::move(delivery));
            }
        }
        EXPECT_EQ(taken.size(), count);
        return taken;
    }
    Verdict handle(const KafkaDelivery& delivery, bool fails = false) {
        return IdempotentConsumer(*store_, OffsetFence{}, {.max_attempts = 2})
            .wrap("billing",
                  delivery_id,
                  [&](const KafkaDelivery& message, typename Store::Transaction& tx) {
                      Database::write(tx, message.payload());
                      if (fails) {
                          throw std::runtime_error("no stock");
                      }
                  })
            .handle(delivery)
            .verdict();
    }
    /// Where the one partition stands in the row.
    std::optional<std::uint64_t> next(const KafkaDelivery& delivery) {
        return store_->next("billing", delivery.identity().position->partition);
    }

    std::string name_;
    std::optional<Database> database_;
    std::unique_ptr<Store> store_;
    std::optional<FenceKeeper<Store>> keeper_;
};

using Databases = ::testing::Types<InPostgres, InSqlite>;
class DatabaseNames {
public:
    template <class Database>
    static std::string GetName(int) {
        return std::is_same_v<Database, InSqlite> ? "sqlite" : "postgres";
    }
};
TYPED_TEST_SUITE(KafkaFence, Databases, DatabaseNames);

TYPED_TEST(KafkaFence, r6_3_a_source_starts_where_the_row_says_whatever_the_group_committed) {
    {
        KafkaSource source(this->options(&*this->keeper_));
        auto first = this->take(source, 3);
        for (const auto& delivery : first) { // committed in the database, and never acked
            EXPECT_EQ(this->handle(delivery).status, Status::executed);
        }
        EXPECT_EQ(this->next(first[0]), 3U);
        first.clear();
    }
    EXPECT_EQ(testing_support::committed_offset(shared_kafka(), this->name_, this->name_), -1);
    KafkaSource source(this->options(&*this->keeper_));
    auto rest = this->take(source, 2);
    EXPECT_EQ(rest[0].offset(), 3);
    for (auto& delivery : rest) {
        EXPECT_EQ(this->handle(delivery).status, Status::executed);
        EXPECT_EQ(source.settle(delivery, {Action::ack}), Settled::yes);
    }
    EXPECT_EQ(this->database_->effects(), "body 0 body 1 body 2 body 3 body 4");
    rest.clear();
}

TYPED_TEST(KafkaFence, r6_3_without_the_keeper_what_comes_again_is_skipped) {
    for (const char* const expected : {"executed", "skipped"}) {
        KafkaSource source(this->options(nullptr));
        auto all = this->take(source, 5);
        for (const auto& delivery : all) {
            EXPECT_EQ(to_string(this->handle(delivery).status), expected);
        }
        all.clear();
    }
    EXPECT_EQ(this->database_->effects(), "body 0 body 1 body 2 body 3 body 4");
}

TYPED_TEST(KafkaFence, a_dead_letter_moves_the_row_after_it_is_confirmed) {
    {
        KafkaSource source(this->options(&*this->keeper_));
        auto all = this->take(source, 2);
        EXPECT_EQ(this->handle(all[0]).status, Status::executed);
        Verdict verdict;
        for (unsigned tries = 0; tries < 5 && verdict.status != Status::dead; ++tries) {
            verdict = this->handle(all[1], true);
        }
        EXPECT_EQ(verdict.status, Status::dead);
        EXPECT_EQ(this->next(all[1]), 1U) << "not before the dead letter";
        EXPECT_EQ(source.settle(all[1], verdict.settlement()), Settled::yes);
        EXPECT_EQ(this->next(all[1]), 2U);
        EXPECT_EQ(read_topic(shared_kafka(), this->name_ + ".dead").size(), 1U);
        all.clear();
    }
    KafkaSource source(this->options(&*this->keeper_));
    auto behind = this->take(source, 1);
    EXPECT_EQ(behind[0].offset(), 2);
    EXPECT_EQ(this->handle(behind[0]).status, Status::executed);
    EXPECT_EQ(this->database_->effects(), "body 0 body 2");
    behind.clear();
}

TYPED_TEST(KafkaFence, r6_3_a_row_above_the_high_watermark_is_rejected) {
    {
        KafkaSource source(this->options(&*this->keeper_));
        auto one = this->take(source, 1);
        const std::string partition(one[0].identity().position->partition);
        this->store_->passed("billing", {.partition = partition, .offset = 1'000});
        one.clear();
    }
    KafkaSource source(this->options(&*this->keeper_));
    std::optional<Fault> fault;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!fault && std::chrono::steady_clock::now() < until) {
        try {
            EXPECT_TRUE(source.receive(milliseconds{50}).empty());
        } catch (const StoreError& error) {
            fault = error.fault();
        }
    }
    EXPECT_EQ(fault, Fault::rejected) << "the topic was made anew, or it is another cluster";
}

} // namespace idem::kafka_test
