// SPDX-License-Identifier: MIT
// BrokerTransaction over Kafka: outputs and offsets in one step, as readers of committed records and
// the group's offsets show it (semantics.md 6.4, 7.6).

#include <idem/broker/source.hpp>

#include <gtest/gtest.h>

#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "kafka/transactional_worker.hpp"
#include "support/needs.hpp"

namespace idem::kafka_test {

using testing_support::committed_offset;
using testing_support::Isolation;
using testing_support::KafkaProducer;
using testing_support::read_topic;
using testing_support::shared_kafka;
using Words = std::vector<std::string>;

class KafkaTransactions : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(KafkaServer::missing());
        static int number = 0;
        name_ = "orders-" + std::to_string(++number);
        server().create_topic(input(), 2);
        server().create_topic(output());
        producer_.emplace(server());
    }
    static KafkaServer& server() { return shared_kafka(); }
    [[nodiscard]] std::string input() const { return name_; }
    [[nodiscard]] std::string output() const { return name_ + "-out"; }
    [[nodiscard]] KafkaOptions options() const { return source_options(server(), input(), name_); }
    void write(int count, int first = 0, std::int32_t partition = 0) {
        producer_->write_numbered(input(), count, partition, first);
    }
    Words outputs(Isolation isolation = Isolation::read_committed) {
        Words all;
        for (const auto& record : read_topic(server(), output(), isolation)) {
            all.push_back(*record.payload);
        }
        return all;
    }
    std::int64_t committed(std::int32_t partition = 0) {
        return committed_offset(server(), name_, input(), partition);
    }
    /// Within a time that no working machine needs.
    template <class Happened>
    static bool eventually(Happened happened) {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(120);
        while (!happened()) {
            if (std::chrono::steady_clock::now() > until) {
                return false;
            }
        }
        return true;
    }
    /// The markers of a transaction are written behind the answer to its commit.
    void expect_committed(std::int64_t offset, std::int32_t partition = 0) {
        EXPECT_TRUE(eventually([&] { return committed(partition) == offset; }))
            << committed(partition) << " and not " << offset;
    }
    void expect_outputs(const Words& expected) {
        EXPECT_TRUE(eventually([&] { return outputs().size() >= expected.size(); }));
        EXPECT_EQ(outputs(), expected);
    }
    static Words bodies(int count, int first = 0) {
        Words all;
        for (int i = first; i < first + count; ++i) {
            all.push_back("body " + std::to_string(i));
        }
        return all;
    }

    std::string name_;
    std::optional<KafkaProducer> producer_;
};

TEST_F(KafkaTransactions, r6_4_outputs_and_offsets_become_visible_in_one_step) {
    write(3);
    TransactionalWorker worker(options(), sink_options(name_), output());
    auto deliveries = worker.take(3);
    worker.handler = [&](const KafkaDelivery&, KafkaTransaction&) {
        EXPECT_TRUE(outputs().empty()) << "nothing is visible before the commit";
    };
    const auto verdicts = worker.handle(deliveries);
    EXPECT_EQ(TransactionalWorker::words(verdicts), (Words{"executed", "executed", "executed"}));
    expect_outputs(bodies(3));
    expect_committed(3);
    for (const auto settled : worker.settle(deliveries, verdicts)) {
        EXPECT_EQ(settled, Settled::yes) << "there is nothing left to do";
    }
    const auto records = read_topic(server(), output());
    EXPECT_EQ(records[0].key, "key");
    EXPECT_EQ(records[0].header("from"), "test");
}

TEST_F(KafkaTransactions, transactions_follow_each_other_on_one_producer) {
    write(6);
    TransactionalWorker worker(options(), sink_options(name_), output());
    for (int round = 1; round <= 3; ++round) {
        auto deliveries = worker.take(2);
        worker.settle(deliveries, worker.handle(deliveries));
        expect_committed(std::int64_t{2} * round);
    }
    expect_outputs(bodies(6));
}

TEST_F(KafkaTransactions, a_failed_handler_aborts_all_and_the_rest_is_committed_without_it) {
    write(3);
    write(1, 10, 1);
    TransactionalWorker worker(options(), sink_options(name_), output());
    worker.handler = [](const KafkaDelivery& delivery, KafkaTransaction&) {
        if (delivery.payload() == "body 1") {
            throw std::runtime_error("no stock");
        }
    };
    auto deliveries = worker.take(4);
    std::map<std::string, std::string> words;
    const auto verdicts = worker.handle(deliveries);
    for (std::size_t i = 0; i < 4; ++i) {
        words[std::string(deliveries[i].payload())] = TransactionalWorker::words(verdicts)[i];
    }
    EXPECT_EQ(words["body 0"], "executed");
    EXPECT_EQ(words["body 1"], "failed");
    EXPECT_EQ(words["body 2"], "in progress");
    EXPECT_EQ(words["body 10"], "executed");
    EXPECT_TRUE(eventually([&] { return outputs().size() == 2; }));
    expect_committed(1, 0);
    expect_committed(1, 1);
    EXPECT_EQ(worker.starts["body 1"], 1U);
    EXPECT_EQ(worker.starts["body 2"], 0U);
}

TEST_F(KafkaTransactions,
       poison_is_dead_after_max_attempts_and_holds_the_commit_until_it_is_lettered) {
    write(3);
    TransactionalWorker worker(options(), sink_options(name_), output());
    worker.consuming.max_attempts = 2;
    worker.handler = [](const KafkaDelivery& delivery, KafkaTransaction&) {
        if (delivery.payload() == "body 0") {
            throw std::runtime_error("no stock");
        }
    };
    auto deliveries = worker.take(3);
    const Words failed{"failed", "in progress", "in progress"};
    EXPECT_EQ(TransactionalWorker::words(worker.handle(deliveries)), failed);
    EXPECT_EQ(TransactionalWorker::words(worker.handle(deliveries)), failed);
    const auto dead = worker.handle(deliveries);
    EXPECT_EQ(TransactionalWorker::words(dead), (Words{"dead", "in progress", "in progress"}));
    EXPECT_EQ(dead[0].attempts, 2U);
    EXPECT_EQ(worker.starts["body 0"], 2U);
    EXPECT_EQ(committed(), -1);

    std::vector<KafkaDelivery> behind;
    behind.push_back(std::move(deliveries[1]));
    behind.push_back(std::move(deliveries[2]));
    EXPECT_EQ(TransactionalWorker::words(worker.handle(behind)),
              (Words{"in progress", "in progress"}))
        << "the dead letter below is not confirmed yet";
    EXPECT_EQ(worker.starts["body 1"], 0U);
    ASSERT_EQ(worker.source.settle(deliveries[0], dead[0].settlement()), Settled::yes);
    EXPECT_EQ(TransactionalWorker::words(worker.handle(behind)), (Words{"executed", "executed"}));
    expect_committed(3);
    expect_outputs(bodies(2, 1));
    const auto letters = read_topic(server(), input() + ".dead");
    ASSERT_EQ(letters.size(), 1U);
    EXPECT_EQ(letters[0].header(header::reason), reason::dead);
    EXPECT_EQ(letters[0].header(header::attempts), "2");
}

TEST_F(KafkaTransactions, an_unprocessable_one_in_a_batch_goes_alone) {
    write(3);
    TransactionalWorker worker(options(), sink_options(name_), output());
    worker.handler = [](const KafkaDelivery& delivery, KafkaTransaction&) {
        if (delivery.payload() == "body 1") {
            throw Unprocessable("no such customer");
        }
    };
    auto deliveries = worker.take(3);
    const auto verdicts = worker.handle(deliveries);
    EXPECT_EQ(TransactionalWorker::words(verdicts), (Words{"executed", "failed", "in progress"}));
    EXPECT_EQ(verdicts[1].settlement().action, Action::dead_letter);
    worker.settle(deliveries, verdicts);
    auto again = worker.take(1);
    worker.settle(again, worker.handle(again));
    expect_outputs((Words{"body 0", "body 2"}));
    expect_committed(3);
    EXPECT_EQ(read_topic(server(), input() + ".dead").size(), 1U);
}

TEST_F(KafkaTransactions, an_output_that_is_too_large_is_the_failure_of_its_own_message) {
    write(2);
    auto sink = sink_options(name_);
    sink.settings.emplace_back("message.max.bytes", "2000000"); // the broker takes 1 MiB
    TransactionalWorker worker(options(), sink, output());
    worker.handler = [this](const KafkaDelivery& delivery, KafkaTransaction& tx) {
        if (delivery.payload() == "body 0") {
            tx.send(output(), {}, std::string(1'500'000, 'x'));
        }
    };
    auto deliveries = worker.take(2);
    const auto verdicts = worker.handle(deliveries);
    EXPECT_EQ(TransactionalWorker::words(verdicts), (Words{"failed", "in progress"}));
    EXPECT_FALSE(verdicts[0].fault);
    EXPECT_THROW(std::rethrow_exception(verdicts[0].error), KafkaOutputError);
    worker.handler = [this](const KafkaDelivery&, KafkaTransaction& tx) {
        tx.send(output(), {}, std::string(3'000'000, 'x')); // not even sent
    };
    EXPECT_EQ(TransactionalWorker::words(worker.handle(deliveries))[0], "failed");
    EXPECT_TRUE(outputs().empty());
    worker.handler = {};
    EXPECT_EQ(TransactionalWorker::words(worker.handle(deliveries)),
              (Words{"executed", "executed"}));
    expect_outputs(bodies(2));
}

TEST_F(KafkaTransactions,
       r7_6_a_second_sink_of_the_name_fences_and_the_first_goes_on_with_a_new_producer) {
    write(2);
    TransactionalWorker worker(options(), sink_options(name_), output());
    auto deliveries = worker.take(2);
    std::optional<KafkaSink> zombie;
    worker.handler = [&](const KafkaDelivery& delivery, KafkaTransaction&) {
        if (delivery.payload() == "body 1" && !zombie) {
            zombie.emplace(worker.source, sink_options(name_));
            zombie->begin().abort();
        }
    };
    EXPECT_EQ(TransactionalWorker::words(worker.handle(deliveries)),
              (Words{"executed", "executed"}));
    EXPECT_EQ(worker.starts["body 0"], 2U) << "nothing of the fenced transaction happened";
    expect_outputs(bodies(2));
    expect_committed(2);
}

TEST_F(KafkaTransactions, r7_6_a_transaction_that_took_too_long_is_run_again) {
    write(1);
    auto sink = sink_options(name_);
    sink.transaction_timeout = milliseconds{3'000};
    TransactionalWorker worker(options(), sink, output());
    auto deliveries = worker.take(1);
    bool late = true;
    worker.handler = [&](const KafkaDelivery&, KafkaTransaction& tx) {
        if (std::exchange(late, false)) { // until the broker has aborted it
            EXPECT_TRUE(eventually([&] {
                tx.send(output(), {}, "more"); // serves the producer
                return !outputs(Isolation::read_uncommitted).empty();
            }));
            EXPECT_GT(producer_->write({.topic = output(), .payload = "behind it"}), 0);
            EXPECT_TRUE(eventually([&] { return !outputs().empty(); })) << "the broker aborts it";
        }
    };
    EXPECT_EQ(TransactionalWorker::words(worker.handle(deliveries)), Words{"executed"});
    EXPECT_EQ(worker.starts["body 0"], 2U);
    expect_outputs((Words{"behind it", "body 0"}));
    expect_committed(1);
}

TEST_F(KafkaTransactions, r7_6_of_a_partition_that_was_taken_away_nothing_is_sent) {
    write(2);
    std::optional<TransactionalWorker> worker(
        std::in_place, options(), sink_options(name_), output());
    auto deliveries = worker->take(2);
    std::optional<TransactionalWorker> other(
        std::in_place, options(), sink_options(name_ + "-other"), output());
    const auto rebalance = [&] { // both have a partition, or have had all taken and given anew
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (worker->source.extend(deliveries[0], milliseconds{0}) &&
               std::chrono::steady_clock::now() < until) {
            static_cast<void>(other->source.receive(milliseconds{10}, 0));
            static_cast<void>(worker->source.receive(milliseconds{10}, 0));
        }
    };
    worker->handler = [&](const KafkaDelivery& delivery, KafkaTransaction&) {
        if (delivery.payload() == "body 1") {
            rebalance();
        }
    };
    EXPECT_EQ(TransactionalWorker::words(worker->handle(deliveries)),
              (Words{"in progress", "in progress"}));
    EXPECT_EQ(worker->starts["body 0"], 1U) << "its deliveries are lost: not run again";
    EXPECT_TRUE(outputs().empty());
    EXPECT_EQ(committed(), -1);
    EXPECT_EQ(worker->source.settle(deliveries[0], {Action::ack}), Settled::lost);
    deliveries.clear();
    std::thread leaving([&] { worker.reset(); });
    auto again = other->take(2);
    leaving.join();
    EXPECT_EQ(TransactionalWorker::words(other->handle(again)), (Words{"executed", "executed"}));
    expect_outputs(bodies(2));
    expect_committed(2);
    again.clear();
}

TEST_F(KafkaTransactions, threads_take_turns) {
    write(4);
    write(4, 10, 1);
    auto from = options();
    TransactionalWorker worker(from, sink_options(name_), output());
    auto bill = IdempotentConsumer(worker.sink, BrokerTransaction{})
                    .wrap("billing",
                          delivery_id,
                          [this](const KafkaDelivery& delivery, KafkaTransaction& tx) {
                              tx.send(output(), {}, delivery.payload());
                          });
    std::stop_source stop;
    std::thread watch([&] {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(120);
        while (outputs().size() < 8 && std::chrono::steady_clock::now() < until) {
        }
        stop.request_stop();
    });
    run(worker.source, bill, stop.get_token(), {.concurrency = 2, .batch = 2});
    watch.join();
    EXPECT_EQ(outputs().size(), 8U);
    expect_committed(4, 0);
    expect_committed(4, 1);
}

TEST_F(KafkaTransactions, options_are_refused_by_name) {
    KafkaSource source(options());
    for (const auto& wrong :
         {KafkaSinkOptions{},
          KafkaSinkOptions{.transactional_id = "x", .deadline = milliseconds{0}},
          KafkaSinkOptions{.transactional_id = "x", .transaction_timeout = milliseconds{1}},
          KafkaSinkOptions{.transactional_id = "x", .settings = {{"acks", "0"}}}}) {
        EXPECT_THROW(KafkaSink(source, wrong), std::invalid_argument);
    }
}

TEST(KafkaTransactionOptions, a_source_that_reads_what_is_not_committed_gets_no_sink) {
    KafkaSource source({.servers = "127.0.0.1:1",
                        .group = "g",
                        .topics = {"t"},
                        .settings = {{"isolation.level", "read_uncommitted"}}});
    try {
        const KafkaSink sink(source, {.transactional_id = "one"});
        FAIL() << "accepted";
    } catch (const std::invalid_argument& error) {
        EXPECT_NE(std::string(error.what()).find("isolation.level"), std::string::npos);
    }
}

} // namespace idem::kafka_test
