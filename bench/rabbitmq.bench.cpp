// SPDX-License-Identifier: MIT

// idem::run over RabbitMQ against rabbitmq-c doing the least that works: the same prefetch, one ack
// per message on both sides.

#include <idem/broker/rabbitmq.hpp>
#include <idem/idem.hpp>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "interleaved.hpp"
#include "order.hpp"
#include "report.hpp"
#include "support/rabbitmq_server.hpp"
#include "support/rabbitmq_session.hpp"

namespace idem::bench {
namespace {

using testing_support::RabbitArguments;
using testing_support::RabbitLetter;
using testing_support::RabbitServer;
using testing_support::RabbitSession;

constexpr std::uint16_t prefetch = 256;
constexpr std::uint64_t reserve = 60'000; // what no variant consumes in a slice

/// A queue that is filled up before each slice.
class Orders {
public:
    Orders(const RabbitServer& server, std::string queue, const RabbitArguments& arguments)
        : session_(server.address())
        , queue_(std::move(queue)) {
        session_.declare(queue_, arguments);
    }
    void prepare() {
        const std::string body(100, 'x');
        std::vector<RabbitLetter> letters;
        while (published_ < consumed + reserve) {
            letters.push_back({.body = body, .message_id = order_number(published_++).id});
            if (letters.size() == 2'000) {
                session_.publish(queue_, std::exchange(letters, {}));
            }
        }
        session_.publish(queue_, letters);
    }
    [[nodiscard]] const std::string& queue() const noexcept { return queue_; }
    std::uint64_t consumed = 0;

private:
    RabbitSession session_;
    std::string queue_;
    std::uint64_t published_ = 0;
};

class RawConsumer {
public:
    RawConsumer(const RabbitServer& server, const std::string& queue)
        : session_(server.address())
        , connection_(session_.native()) {
        amqp_basic_qos(connection_, 1, 0, prefetch, 0);
        amqp_basic_consume(
            connection_, 1, detail::bytes_of(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
        if (amqp_get_rpc_reply(connection_).reply_type != AMQP_RESPONSE_NORMAL) {
            throw std::runtime_error("basic.consume failed");
        }
    }
    std::uint64_t handle_one() {
        amqp_maybe_release_buffers(connection_);
        amqp_envelope_t envelope;
        timeval time{.tv_sec = 30, .tv_usec = 0};
        const auto reply = amqp_consume_message(connection_, &envelope, &time, 0);
        if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
            throw std::runtime_error(amqp_error_string2(reply.library_error));
        }
        bytes_ += envelope.message.body.len;
        const int status = amqp_basic_ack(connection_, 1, envelope.delivery_tag, 0);
        amqp_destroy_envelope(&envelope);
        if (status != AMQP_STATUS_OK) {
            throw std::runtime_error(amqp_error_string2(status));
        }
        return 1;
    }

private:
    RabbitSession session_;
    amqp_connection_state_t connection_;
    std::uint64_t bytes_ = 0;
};

void row(Report& report, RabbitServer& server, bool quorum) {
    const std::string kind = quorum ? "quorum" : "classic";
    const auto name = kind + " queue, run + MemoryStore, no-op handler, 100 B, one worker";
    if (!report.wants(name)) {
        return;
    }
    const auto arguments = quorum ? RabbitArguments{{"x-queue-type", "quorum"}} : RabbitArguments{};
    Orders raw_orders(server, kind + " raw", arguments), orders(server, kind, arguments);
    RawConsumer raw(server, raw_orders.queue());
    MemoryStore store({.max_records = 20'000'000, .compact = true});
    RabbitSource source(server.address(), {.queue = orders.queue(), .prefetch = prefetch});
    std::uint64_t bytes = 0;
    report.run({.name = name,
                .variants = {{.name = "rabbitmq-c: consume, ack",
                              .step =
                                  [&](unsigned) {
                                      const auto handled = raw.handle_one();
                                      raw_orders.consumed += handled;
                                      return handled;
                                  },
                              .prepare = [&] { raw_orders.prepare(); }},
                             {.name = "run",
                              .step =
                                  [&](unsigned) {
                                      constexpr std::uint64_t messages = 10'000;
                                      const IdempotentConsumer consumer(store, DistributedLock{});
                                      std::stop_source stop;
                                      std::atomic<std::uint64_t> handled{0};
                                      const auto handler = consumer.wrap(
                                          kind, delivery_id, [&](const RabbitDelivery& delivery) {
                                              bytes += delivery.payload().size();
                                              if (++handled == messages) {
                                                  stop.request_stop();
                                              }
                                          });
                                      idem::run(source, handler, stop.get_token());
                                      orders.consumed += handled;
                                      return handled.load();
                                  },
                              .target = rate_at_least(0.9),
                              .prepare = [&] { orders.prepare(); }}}});
}

int run(const Options& options) {
    Report report(options);
    RabbitServer server({.own = true});
    report.note("server", "RabbitMQ on the loopback interface");
    report.note("client", std::string("rabbitmq-c ") + amqp_version());
    row(report, server, false);
    row(report, server, true);
    return report.end();
}

} // namespace
} // namespace idem::bench

int main(int argc, char** argv) {
    return idem::bench::bench_main(
        argc,
        argv,
        "Compares idem::run over RabbitMQ with rabbitmq-c, on a server that it starts and ends.",
        idem::testing_support::RabbitServer::missing_program(),
        idem::bench::run);
}
