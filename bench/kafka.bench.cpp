// SPDX-License-Identifier: MIT

// idem::run over Kafka, and BrokerTransaction, against librdkafka doing the least that works.

#include <idem/broker/kafka.hpp>
#include <idem/broker/kafka_transaction.hpp>
#include <idem/idem.hpp>
#include <idem/strategy/broker_transaction.hpp>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include "interleaved.hpp"
#include "order.hpp"
#include "raw_kafka.hpp"
#include "report.hpp"
#include "support/kafka_records.hpp"
#include "support/kafka_server.hpp"

namespace idem::bench {
namespace {

using testing_support::KafkaProducer;
using testing_support::KafkaServer;

constexpr int partitions = 4;
constexpr std::uint64_t prepared = 1'200'000; // orders in the topic that all variants read
constexpr std::uint64_t reserve = 500'000;    // what no variant consumes in a slice

void fill(KafkaServer& server, const std::string& topic) {
    std::printf("writing %llu messages ...\n", static_cast<unsigned long long>(prepared));
    std::fflush(stdout);
    server.create_topic(topic, partitions);
    KafkaProducer producer(server, {{"linger.ms", "20"}, {"batch.size", "1000000"}});
    const std::string payload(100, 'x');
    for (std::uint64_t number = 0; number < prepared; ++number) {
        producer.send({.topic = topic,
                       .partition = static_cast<std::int32_t>(number % partitions),
                       .payload = payload,
                       .headers = {{"message-id", order_number(number).id}}});
    }
    producer.flush();
}

/// Of a member of a group that reads the topic from its beginning: made anew, with another group,
/// when little is left.
template <class Member>
class Renewed {
public:
    explicit Renewed(std::string name) : name_(std::move(name)) {}
    template <class Make>
    void prepare(const Make& make) {
        if (!member_ || consumed + reserve > prepared) {
            member_.reset();
            member_ = make(name_ + '-' + std::to_string(++made_));
            consumed = 0;
        }
    }
    Member& operator*() { return *member_; }
    std::uint64_t consumed = 0;

private:
    std::string name_;
    int made_ = 0;
    std::unique_ptr<Member> member_;
};

struct Raw {
    Raw(const KafkaServer& server, const std::string& group, const std::string& topic)
        : consumer(server, group, topic) {
        while (consumer.take(1, [](const rd_kafka_message_t&) {}) == 0) { // it has joined
        }
    }
    RawKafkaConsumer consumer;
    std::uint64_t bytes = 0;
};

/// A source with a store of its own: the messages are new to it.
struct Looped {
    Looped(const KafkaServer& server, const std::string& group, const std::string& topic)
        : source({.servers = server.address(),
                  .group = group,
                  .topics = {topic},
                  .count = 1'000,
                  .settings = {little_ahead}}) {
        for (std::size_t left = 1; left > 0;) { // it has joined
            for (auto& delivery : source.receive(milliseconds{100}, 1)) {
                static_cast<void>(source.settle(delivery, Settlement{}));
                --left;
            }
        }
    }
    std::uint64_t run(std::size_t batch) {
        constexpr std::uint64_t messages = 100'000; // the loop begins slowly, and ends with a poll
        const IdempotentConsumer consumer(store, DistributedLock{});
        std::stop_source stop;
        std::atomic<std::uint64_t> handled{0};
        const auto handler =
            consumer.wrap("bench", delivery_id, [&](const KafkaDelivery& delivery) {
                bytes += delivery.payload().size();
                if (++handled == messages) {
                    stop.request_stop();
                }
            });
        idem::run(source, handler, stop.get_token(), {.batch = batch});
        return handled;
    }
    MemoryStore store{{.max_records = 2 * prepared, .compact = true}};
    KafkaSource source;
    std::uint64_t bytes = 0;
};

void loop_row(Report& report, KafkaServer& server) {
    const std::string name = "run + MemoryStore, no-op handler, 100 B, one worker";
    if (!report.wants(name)) {
        return;
    }
    fill(server, "orders");
    Renewed<Raw> raw("raw");
    Renewed<Looped> single("single"), batched("batched");
    auto looped = [&](Renewed<Looped>& member, std::size_t batch) {
        return [&member, batch](unsigned) {
            const auto handled = (*member).run(batch);
            member.consumed += handled;
            return handled;
        };
    };
    auto renew = [&](Renewed<Looped>& member) {
        return [&] {
            member.prepare([&](const std::string& group) {
                return std::make_unique<Looped>(server, group, "orders");
            });
        };
    };
    report.run({.name = name,
                .variants = {
                    {.name = "librdkafka: consume_batch, commit each second",
                     .step =
                         [&](unsigned) {
                             const auto taken =
                                 (*raw).consumer.take(1'000, [&](const rd_kafka_message_t& record) {
                                     (*raw).bytes += record.len;
                                 });
                             (*raw).consumer.commit_each_second();
                             raw.consumed += taken;
                             return taken;
                         },
                     .prepare =
                         [&] {
                             raw.prepare([&](const std::string& group) {
                                 return std::make_unique<Raw>(server, group, "orders");
                             });
                         }},
                    {"run, one by one", looped(single, 1), rate_at_least(0.5), renew(single)},
                    {"run, batch = 256", looped(batched, 256), rate_at_least(0.8), renew(batched)},
                }});
}

/// A source with its sink.
struct Transactions {
    Transactions(const KafkaServer& server, const std::string& name, const std::string& topic)
        : source({.servers = server.address(), .group = name, .topics = {topic}})
        , sink(source, {.transactional_id = name}) {}

    std::uint64_t copy(std::size_t batch) {
        const IdempotentConsumer consumer(sink, BrokerTransaction{});
        std::stop_source stop;
        const std::uint64_t messages = 20 * batch;
        std::uint64_t handled = 0;
        const auto handler = consumer.wrap(
            "bench", delivery_id, [&](const KafkaDelivery& delivery, KafkaTransaction& tx) {
                tx.send({.topic = "copies",
                         .payload = delivery.payload(),
                         .partition = delivery.partition()});
                if (++handled == messages) {
                    stop.request_stop();
                }
            });
        idem::run(source, handler, stop.get_token(), {.batch = batch});
        return handled;
    }
    KafkaSource source;
    KafkaSink sink;
};

void transaction_row(Report& report, KafkaServer& server, std::size_t batch) {
    const auto size = std::to_string(batch);
    const auto name = "BrokerTransaction, " + size + " messages in each, 100 B";
    if (!report.wants(name)) {
        return;
    }
    const auto topic = "copied-" + size;
    fill(server, topic);
    RawKafkaTransactions raw(server, "raw-" + size, topic, "copies");
    Transactions ours(server, "ours-" + size, topic);
    report.run(
        {.name = name,
         .variants = {{"librdkafka: the same by hand", [&](unsigned) { return raw.copy(batch); }},
                      {"run + BrokerTransaction",
                       [&](unsigned) { return ours.copy(batch); },
                       rate_at_least(0.9)}}});
}

int run(const Options& options) {
    Report report(options);
    KafkaServer server;
    report.note("server", "Kafka 3.9.2, one node, on the loopback interface");
    report.note("client", std::string("librdkafka ") + rd_kafka_version_str());
    server.create_topic("copies", partitions);
    loop_row(report, server);
    transaction_row(report, server, 100);
    transaction_row(report, server, 750);
    return report.end();
}

} // namespace
} // namespace idem::bench

int main(int argc, char** argv) {
    const auto options = idem::bench::options_from(argc,
                                                   argv,
                                                   "Compares idem::run over Kafka and "
                                                   "BrokerTransaction with librdkafka, on a server "
                                                   "that it starts and ends.");
    if (const auto missing = idem::testing_support::KafkaServer::missing(); !missing.empty()) {
        std::fprintf(stderr, "%s: %s\n", argv[0], missing.c_str());
        return 1;
    }
    try {
        return idem::bench::run(options);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "\n%s: %s\n", argv[0], error.what());
        return 1;
    }
}
