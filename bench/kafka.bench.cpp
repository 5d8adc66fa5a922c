// SPDX-License-Identifier: MIT

// idem::run over Kafka, and BrokerTransaction, against librdkafka doing the least that works.

#include <idem/broker/kafka.hpp>
#include <idem/broker/kafka_transaction.hpp>
#include <idem/idem.hpp>
#include <idem/strategy/broker_transaction.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>
#include <variant>

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
constexpr std::uint64_t prepared = 600'000;  // orders in the topic that is read as a whole
constexpr std::uint64_t to_copy = 1'200'000; // in those that are copied, more than that takes

void fill(KafkaServer& server, const std::string& topic, std::uint64_t count) {
    std::printf("writing %llu messages ...\n", static_cast<unsigned long long>(count));
    std::fflush(stdout);
    server.create_topic(topic, partitions);
    KafkaProducer producer(server, {{"linger.ms", "20"}, {"batch.size", "1000000"}});
    const std::string payload(100, 'x');
    for (std::uint64_t number = 0; number < count; ++number) {
        producer.send({.topic = topic,
                       .partition = static_cast<std::int32_t>(number % partitions),
                       .payload = payload,
                       .headers = {{"message-id", order_number(number).id}}});
    }
    producer.flush();
}

/// With more than this waiting in a partition, librdkafka does not fetch for a second.
const KafkaSetting no_stalls{"queued.min.messages", "1000000"};

/// Reads a whole topic in each slice, as a group of its own that has just joined. A consumer that
/// lived on would read ahead, some 100,000 messages of each partition, while others are measured.
template <class Member>
class Reader {
public:
    Reader(KafkaServer& server, std::string name) : server_(server), name_(std::move(name)) {}
    void join() {
        member_.reset();
        member_ = std::make_unique<Member>(server_, name_ + '-' + std::to_string(++joined_));
    }
    std::uint64_t read() {
        if (!member_ || member_->consumed == prepared) { // a slice longer than it takes
            join();
        }
        member_->read();
        return member_->consumed;
    }

private:
    KafkaServer& server_;
    std::string name_;
    int joined_ = 0;
    std::unique_ptr<Member> member_;
};

template <bool claims>
struct Raw {
    Raw(const KafkaServer& server, const std::string& group)
        : consumer(server, group, "orders", {no_stalls}) {
        while (consumed == 0) {
            take(1);
        }
    }
    void take(std::size_t at_most) {
        consumed += consumer.take(at_most, [&](const rd_kafka_message_t& record) {
            if constexpr (claims) {
                const auto identity = KafkaMessage(record).identity();
                auto claim = store.claim(
                    {.key = {"bench", identity.id.view()}, .fingerprint = identity.fingerprint});
                bytes += record.len;
                bytes += store.complete(std::get<Claimed<MemoryStore::Ticket>>(claim).ticket, {}) ==
                                 TicketState::valid
                             ? 0
                             : 1;
            } else {
                bytes += record.len;
            }
        });
    }
    void read() {
        while (consumed < prepared) {
            take(1'000);
            consumer.commit_each_second();
        }
    }
    RawKafkaConsumer consumer;
    MemoryStore store{{.max_records = 2 * prepared, .compact = true}};
    std::uint64_t consumed = 0, bytes = 0;
};

/// A source with a store of its own: the messages are new to it.
template <std::size_t batch>
struct Looped {
    Looped(const KafkaServer& server, const std::string& group)
        : source({.servers = server.address(),
                  .group = group,
                  .topics = {"orders"},
                  .settings = {no_stalls}}) {
        while (consumed == 0) {
            for (auto& delivery : source.receive(milliseconds{100}, 1)) {
                static_cast<void>(source.settle(delivery, Settlement{}));
                ++consumed;
            }
        }
    }
    void read() {
        const IdempotentConsumer consumer(store, DistributedLock{});
        std::stop_source stop;
        const auto handler =
            consumer.wrap("bench", delivery_id, [&](const KafkaDelivery& delivery) {
                bytes += delivery.payload().size();
                if (++consumed == prepared) {
                    stop.request_stop();
                }
            });
        idem::run(source, handler, stop.get_token(), {.batch = batch});
    }
    MemoryStore store{{.max_records = 2 * prepared, .compact = true}};
    KafkaSource source;
    std::uint64_t consumed = 0, bytes = 0; // by the one handler
};

void loop_row(Report& report, KafkaServer& server) {
    const std::string name = "run + MemoryStore, no-op handler, 100 B, one worker";
    if (!report.wants(name)) {
        return;
    }
    fill(server, "orders", prepared);
    Reader<Raw<false>> raw(server, "raw");
    Reader<Raw<true>> by_hand(server, "hand");
    Reader<Looped<1>> single(server, "single");
    Reader<Looped<256>> batched(server, "batched");
    report.run({.name = name,
                .variants = {{.name = "librdkafka: consume_batch, commit each second",
                              .step = [&](unsigned) { return raw.read(); },
                              .prepare = [&] { raw.join(); }},
                             {.name = "the same, claim and complete by hand",
                              .step = [&](unsigned) { return by_hand.read(); },
                              .prepare = [&] { by_hand.join(); }},
                             {"run, one by one",
                              [&](unsigned) { return single.read(); },
                              rate_at_least(0.5),
                              [&] { single.join(); }},
                             {"run, batch = 256",
                              [&](unsigned) { return batched.read(); },
                              rate_at_least(0.8),
                              [&] { batched.join(); }}}});
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
    fill(server, topic, to_copy);
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
    return idem::bench::bench_main(argc,
                                   argv,
                                   "Compares idem::run over Kafka and BrokerTransaction with "
                                   "librdkafka, on a server that it starts and ends.",
                                   idem::testing_support::KafkaServer::missing(),
                                   idem::bench::run);
}
