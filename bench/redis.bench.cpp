// SPDX-License-Identifier: MIT

// RedisLockStore against raw hiredis doing the least that works, with a connection per thread.

#include <idem/broker/source.hpp>
#include <idem/idem.hpp>
#include <idem/store/redis_lock.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <exception>
#include <span>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "interleaved.hpp"
#include "order.hpp"
#include "raw_redis.hpp"
#include "report.hpp"
#include "support/link_proxy.hpp"
#include "support/redis_server.hpp"

namespace idem::bench {
namespace {

constexpr std::string_view receipt = "charged 42.50, number 123"; // 25 bytes
static_assert(receipt.size() == 25);

/// Without persistence, so that nothing but work and round trips is measured.
class Server {
public:
    Server() : server_({.own = true, .tcp = true}), session_(server_.address()) {}

    [[nodiscard]] std::string path() const { return server_.socket().string(); }
    [[nodiscard]] int port() const { return server_.port(); }
    [[nodiscard]] std::string address(bool tcp = false) const {
        return tcp ? server_.tcp_address() : server_.address();
    }
    testing_support::RedisSession& session() noexcept { return session_; }
    /// Of processor until now.
    double processor_seconds() {
        const auto info = session_.text({"INFO", "cpu"});
        auto field = [&](std::string_view name) {
            return std::stod(std::string(detail::redis_info_field(info, name)));
        };
        return field("used_cpu_user") + field("used_cpu_sys");
    }
    double bytes_used() {
        const auto info = session_.text({"INFO", "memory"});
        return std::stod(std::string(detail::redis_info_field(info, "used_memory_dataset")));
    }
    std::uint64_t scripts() { return static_cast<std::uint64_t>(session_.calls("evalsha")); }

    /// Each slice begins with an empty server, emptied outside of what is timed: else the table of
    /// keys grows in another's time. With what the server spends beside.
    std::vector<std::uint64_t> run(Report& report, Row row) {
        row.server_seconds = [this, before = true]() mutable { // called around each slice
            if (std::exchange(before, !before)) {
                flush();
            }
            return processor_seconds();
        };
        return report.run(row);
    }
    void describe(Report& report) {
        report.note("server",
                    "Redis " +
                        std::string(detail::redis_info_field(session_.text({"INFO", "server"}),
                                                             "redis_version")) +
                        ", no snapshots, no append-only file");
    }
    void flush() { session_.run({"FLUSHALL", "SYNC"}); }

private:
    testing_support::RedisServer server_;
    testing_support::RedisSession session_;
};

std::string raw_key(const Order& order) {
    return "idem:bench:" + order.id;
}

class RawConnections {
public:
    RawConnections(const Server& server, unsigned count, bool tcp = false) {
        while (connections_.size() < count) {
            if (tcp) {
                connections_.emplace_back(server.port());
            } else {
                connections_.emplace_back(server.path());
            }
        }
    }
    std::uint64_t handle(unsigned thread, const Order& order) {
        const auto key = raw_key(order);
        connections_[thread].claim(key);
        connections_[thread].complete(key, receipt);
        return 1;
    }
    RawRedis& operator[](unsigned thread) { return connections_[thread]; }

private:
    std::deque<RawRedis> connections_;
};

ClaimRequest request_for(const Order& order) {
    return {.key = {"bench", order.id}, .fingerprint = fingerprint_of(order.note)};
}
std::uint64_t handle(RedisLockStore& store, const Order& order) {
    const auto mine = std::get<0>(store.claim(request_for(order)));
    if (store.complete(mine.ticket, receipt) != TicketState::valid) {
        throw std::runtime_error("a fresh claim is outdated");
    }
    return 1;
}
auto charging(const IdempotentConsumer<RedisLockStore, DistributedLock>& consumer) {
    return consumer.wrap("bench", &Order::id, [](const Order&) { return std::string(receipt); });
}
std::uint64_t handle(const auto& charge, const Order& order) {
    if (charge(order).status() != Status::executed) {
        throw std::runtime_error("a fresh message was not executed");
    }
    return 1;
}

/// One message at a time on each thread: claim, complete.
void calls_row(Report& report, Server& server, unsigned threads, bool tcp, double bound) {
    const auto name = std::to_string(threads) + (threads == 1 ? " thread" : " threads") +
                      ", separate calls" + (tcp ? ", TCP" : "");
    if (!report.wants(name)) {
        return;
    }
    RawConnections raw(server, threads, tcp);
    RedisLockStore store(server.address(tcp));
    RedisLockStore sleeping(server.address(tcp), {.looks = 0});
    const IdempotentConsumer consumer(store, DistributedLock{});
    const auto charge = charging(consumer);
    const bool alone = threads == 1; // then against a client that does not look either
    auto target = [&](bool wanted) {
        return wanted ? std::optional(rate_at_least(bound)) : std::nullopt;
    };
    server.run(report,
               {.name = name,
                .threads = threads,
                .variants = {{"hiredis: SET NX GET, SET XX",
                              [&](unsigned thread) { return raw.handle(thread, fresh_order()); }},
                             {"RedisLockStore",
                              [&](unsigned) { return handle(store, fresh_order()); },
                              target(!alone)},
                             {"RedisLockStore, looks = 0",
                              [&](unsigned) { return handle(sleeping, fresh_order()); },
                              target(alone)},
                             {"DistributedLock, a handler",
                              [&](unsigned) { return handle(charge, fresh_order()); }}}});
    if (alone) {
        testing_support::LinkProxy proxy(server.path());
        RedisLockStore counted("unix:" + proxy.socket());
        handle(counted, fresh_order()); // connects, and loads the script
        const auto before = proxy.trips();
        handle(counted, fresh_order());
        report.count("trips of a message", proxy.trips() - before, 2);
    }
}

/// Gives orders as fast as they are taken, and stops the loop after the last one.
class OrderSource {
public:
    using Delivery = Order;
    OrderSource(std::size_t count, std::stop_source& stop)
        : left_(count)
        , open_(count)
        , stop_(stop) {}
    std::vector<Order> receive(milliseconds) { return receive({}, 64); }
    std::vector<Order> receive(milliseconds, std::size_t at_most) {
        const auto count = std::min(left_, at_most);
        left_ -= count;
        return fresh_orders(count);
    }
    Settled settle(Order&, const Settlement& how) {
        executed_ += how.action == Action::ack ? 1 : 0;
        if (--open_ == 0) {
            stop_.request_stop();
        }
        return Settled::yes;
    }
    static bool extend(Order&, milliseconds) { return true; }
    [[nodiscard]] std::uint64_t executed() const noexcept { return executed_; }

private:
    std::size_t left_, open_;
    std::uint64_t executed_ = 0;
    std::stop_source& stop_;
};

void run_row(Report& report, Server& server) {
    constexpr std::size_t messages = 16'384; // the loop begins slowly, and ends with a poll
    const std::string name = "idem::run over a source in memory, batch = 16, one worker";
    if (!report.wants(name)) {
        return;
    }
    RawConnections raw(server, 1);
    RedisLockStore store(server.address());
    const IdempotentConsumer consumer(store, DistributedLock{});
    const auto charge = charging(consumer);
    server.run(report,
               {.name = name,
                .variants = {
                    {"hiredis: one by one", [&](unsigned) { return raw.handle(0, fresh_order()); }},
                    {"run, batch = 16",
                     [&](unsigned) {
                         std::stop_source stop;
                         OrderSource source(messages, stop);
                         idem::run(source, charge, stop.get_token(), {.batch = 16});
                         return source.executed();
                     },
                     rate_at_least(3)}}});
}

void deep_row(Report& report, Server& server) {
    constexpr std::size_t depth = 256;
    const std::string name = "256 deep on one connection";
    if (!report.wants(name)) {
        return;
    }
    RawConnections raw(server, 1);
    RedisLockStore store(server.address(), {.connections = 1});
    auto raw_batch = [&](unsigned) {
        std::vector<std::string> keys;
        for (const auto& order : fresh_orders(depth)) {
            keys.push_back(raw_key(order));
            raw[0].send_claim(keys.back());
        }
        for (std::size_t at = 0; at < depth; ++at) {
            if (!raw[0].receive_claim()) {
                throw std::runtime_error("a fresh key was not claimed");
            }
        }
        for (const auto& key : keys) {
            raw[0].send_complete(key, receipt);
        }
        for (std::size_t at = 0; at < depth; ++at) {
            raw[0].receive_complete();
        }
        return depth;
    };
    auto batch = [&](unsigned) {
        const auto orders = fresh_orders(depth);
        std::vector<ClaimRequest> asked;
        for (const auto& order : orders) {
            asked.push_back(request_for(order));
        }
        std::vector<RedisLockStore::Ticket> tickets;
        for (auto& claim : store.claim(std::span<const ClaimRequest>(asked))) {
            tickets.push_back(std::move(std::get<0>(claim).ticket));
        }
        const std::vector<std::string> results(depth, std::string(receipt));
        const auto states =
            store.complete(std::span<const RedisLockStore::Ticket>(tickets), std::span(results));
        return static_cast<std::uint64_t>(
            std::count(states.begin(), states.end(), TicketState::valid));
    };
    server.run(report,
               {.name = name,
                .variants = {{"hiredis: pipelines", raw_batch},
                             {"RedisLockStore, spans", batch, rate_at_least(0.5)}}});
    // The processor's time by itself: rounds of equal work, in turn.
    std::vector<double> shares;
    for (int round = 0; round < 9; ++round) {
        double spent[2] = {};
        for (const int which : {round % 2, 1 - round % 2}) {
            server.flush();
            const auto before = server.processor_seconds();
            for (int step = 0; step < 100; ++step) {
                which == 0 ? raw_batch(0) : batch(0);
            }
            spent[which] = server.processor_seconds() - before;
        }
        shares.push_back(spent[1] / spent[0]);
    }
    report.count("server's processor time, of hiredis's", spread_of(shares).median, 2.4);
}

/// Also of messages that carry a fingerprint.
void memory_row(Report& report, Server& server) {
    constexpr int keys = 100'000;
    const std::string name = "bytes per completed key, result of 25 bytes";
    if (!report.wants(name)) {
        return;
    }
    RawConnections raw(server, 1);
    RedisLockStore store(server.address());
    auto bytes_of = [&](const auto& step) {
        server.flush();
        const double before = server.bytes_used();
        for (int key = 0; key < keys; ++key) {
            step();
        }
        return (server.bytes_used() - before) / keys;
    };
    std::printf("%s\n", name.c_str());
    const auto least = bytes_of([&] { raw.handle(0, fresh_order()); });
    report.count("hiredis", least);
    report.count("RedisLockStore", bytes_of([&] { handle(store, fresh_order()); }), least + 40);
}

void duplicate_row(Report& report, Server& server) {
    const std::string name = "duplicates of a completed key, one thread";
    if (!report.wants(name)) {
        return;
    }
    RawConnections raw(server, 1);
    RedisLockStore store(server.address()), sleeping(server.address(), {.looks = 0});
    const auto order = fresh_order();
    auto meet = [&](RedisLockStore& at) { // the first of a slice finds an empty server
        const auto claim = at.claim(request_for(order));
        if (const auto* mine = std::get_if<0>(&claim)) {
            static_cast<void>(at.complete(mine->ticket, receipt));
        } else if (!std::holds_alternative<Completed>(claim)) {
            throw std::runtime_error("a completed key is not known as such");
        }
        return std::uint64_t{1};
    };
    server.run(
        report,
        {.name = name,
         .variants = {{"hiredis: SET NX GET",
                       [&](unsigned) {
                           raw[0].send_claim(raw_key(order));
                           raw[0].receive_claim();
                           return std::uint64_t{1};
                       }},
                      {"RedisLockStore", [&](unsigned) { return meet(store); }},
                      {"RedisLockStore, looks = 0", [&](unsigned) { return meet(sleeping); }}}});
    meet(store);
    testing_support::LinkProxy proxy(server.path());
    RedisLockStore counted("unix:" + proxy.socket());
    meet(counted); // connects
    const auto trips = proxy.trips();
    const auto scripts = server.scripts();
    meet(counted);
    report.count("trips of a duplicate", proxy.trips() - trips, 1);
    report.count("scripts", static_cast<double>(server.scripts() - scripts), 0);
}

int run(const Options& options) {
    Report report(options);
    Server server;
    server.describe(report);
    calls_row(report, server, 1, false, 0.85);
    calls_row(report, server, 1, true, 0.85);
    calls_row(report, server, 8, false, 1.0);
    calls_row(report, server, 32, false, 1.4);
    calls_row(report, server, 32, true, 1.4);
    run_row(report, server);
    deep_row(report, server);
    memory_row(report, server);
    duplicate_row(report, server);
    return report.end();
}

} // namespace
} // namespace idem::bench

int main(int argc, char** argv) {
    return idem::bench::bench_main(
        argc,
        argv,
        "Compares RedisLockStore with raw hiredis, on a server that it starts and ends.",
        idem::testing_support::RedisServer::missing_program(),
        idem::bench::run);
}
