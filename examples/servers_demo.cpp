// SPDX-License-Identifier: MIT

// The main job over servers: a Redis stream of charges with resends, three billing workers of one
// group that are killed again and again, PostgreSQL for records and charges. What a killed worker
// had in hand is taken over by another.

#include <idem/store/postgres.hpp>

#include <chrono>
#include <exception>
#include <filesystem>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../tests/support/child_process.hpp"
#include "../tests/support/postgres_server.hpp"
#include "../tests/support/redis_server.hpp"
#include "../tests/support/temporary_directory.hpp"
#include "demo.hpp"
#include "tally.hpp"

using idem::testing_support::ChildProcess;
using idem::testing_support::PostgresServer;
using idem::testing_support::PostgresSession;
using idem::testing_support::RedisServer;
using idem::testing_support::RedisSession;
using idem::testing_support::TemporaryDirectory;

class ServersRun {
    using Workers = std::vector<std::optional<ChildProcess>>;

public:
    ServersRun(std::filesystem::path worker, std::uint64_t seed)
        : worker_(std::move(worker))
        , random_(seed)
        , postgres_({.settings = {"fsync=on", "synchronous_commit=on"}})
        , conninfo_(postgres_.create_database())
        , redis_({.own = true})
        , database_(conninfo_)
        , stream_(redis_.address()) {
        database_.run("CREATE TABLE charge (order_id text NOT NULL, cents bigint NOT NULL)");
        idem::PostgresStore(conninfo_).migrate();
    }

    Count over(const std::vector<Resent>& stream, int kills) {
        publish(stream);
        Progress progress("idem");
        const auto all = static_cast<long>(stream.size());
        auto workers = start(3);
        for (int killed = 0; settled() < all;) {
            progress.show(settled(), all, killed);
            if (settled() > all * (killed + 1) / (kills + 1) && killed < kills) {
                auto& one = workers[random_() % workers.size()];
                one->kill(SIGKILL);
                one.emplace(command()); // which waits for the killed one's end first
                count_.kills = ++killed;
            }
        }
        progress.over();
        stop(workers);
        return count(stream);
    }

private:
    void publish(const std::vector<Resent>& stream) {
        for (const auto& [order_id, cents] : stream) {
            stream_.run({"XADD",
                         "charges",
                         "*",
                         "idempotency-key",
                         order_id,
                         "payload",
                         order_id + ' ' + std::to_string(cents)});
        }
    }
    [[nodiscard]] std::vector<std::string> command() {
        return {worker_.string(),
                "stream",
                redis_.address(),
                "worker-" + std::to_string(++workers_),
                conninfo_,
                tally_path()};
    }
    [[nodiscard]] std::string tally_path() const { return (home_ / "tally").string(); }
    Workers start(int number) {
        Workers workers;
        for (int i = 0; i < number; ++i) {
            workers.emplace_back().emplace(command());
        }
        return workers;
    }
    static void stop(Workers& workers) {
        for (auto& worker : workers) {
            worker->kill(SIGTERM);
            const auto ended = worker->wait(std::chrono::seconds(60));
            if (!ended || !ended->cleanly()) {
                throw std::runtime_error("a worker failed");
            }
        }
    }
    /// Entries that no worker has yet to handle or has in hand; asked for every 20 ms.
    long settled() {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        const auto reply = stream_.run({"XINFO", "GROUPS", "charges"});
        if (reply.value().size() == 0) {
            return 0; // no worker has made the group yet
        }
        std::map<std::string, long> facts;
        const auto group = reply.value()[0];
        for (std::size_t at = 0; at + 1 < group.size(); at += 2) {
            facts[std::string(group[at].text())] = static_cast<long>(group[at + 1].integer());
        }
        return facts["entries-read"] - facts["pending"];
    }
    Count count(const std::vector<Resent>& stream) {
        const Tally tally(tally_path());
        count_.delivered = tally.counters().delivered;
        count_.replayed = tally.counters().replayed;
        count_.handled = database_.number("SELECT count(*) FROM idem_record");
        count_.charges = database_.number("SELECT count(*) FROM charge");
        count_.cents = database_.number("SELECT coalesce(sum(cents), 0) FROM charge");
        judge(count_, stream, database_.number("SELECT count(DISTINCT order_id) FROM charge"));
        return count_;
    }

    TemporaryDirectory home_;
    std::filesystem::path worker_;
    std::mt19937_64 random_;
    PostgresServer postgres_;
    std::string conninfo_;
    RedisServer redis_;
    PostgresSession database_;
    RedisSession stream_;
    Count count_;
    int workers_ = 0;
};

int demonstrate(std::size_t distinct, std::uint64_t seed) {
    const auto why = PostgresServer::missing() + RedisServer::missing_program();
    if (!why.empty()) {
        throw std::runtime_error(why);
    }
    const auto programs = std::filesystem::canonical("/proc/self/exe").parent_path();
    const auto stream = charges_with_resends(distinct, seed);
    std::printf(
        "A Redis stream of %zu messages: %zu charges, %zu resends. Three workers; one of them "
        "is killed with SIGKILL and replaced, 8 times.\n\n",
        stream.size(),
        distinct,
        stream.size() - distinct);
    const auto idem = ServersRun(programs / "billing_worker", seed).over(stream, 8);
    print_header();
    print_row("idem: DedupTable, PostgreSQL", idem);
    return print_verdict(idem, distinct);
}

int main(int count, char** arguments) try {
    const auto asked =
        demo_arguments({arguments + 1, arguments + count},
                       "servers_demo [--messages N] [--seed N]\n"
                       "Kills billing workers over Redis Streams and PostgreSQL, and "
                       "counts what they charged.\n");
    return asked.exit_code ? *asked.exit_code : demonstrate(asked.messages, asked.seed);
} catch (const std::exception& error) {
    std::cerr << "servers_demo: " << error.what() << '\n';
    return 1;
}
