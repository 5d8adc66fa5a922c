// SPDX-License-Identifier: MIT

// The main job on the embedded default: a journal of charges with resends, a worker that is killed
// again and again in mid-work, and a count in the database. Then the same for handlers without
// idem.

#include <idem/store/sqlite.hpp>

#include <algorithm>
#include <chrono>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../tests/support/child_process.hpp"
#include "../tests/support/temporary_directory.hpp"
#include "database.hpp"
#include "demo.hpp"
#include "tally.hpp"

using idem::testing_support::ChildProcess;
using idem::testing_support::TemporaryDirectory;

constexpr const char* tables =
    "PRAGMA journal_mode=WAL;"
    "CREATE TABLE charge (order_id TEXT NOT NULL, cents INTEGER NOT NULL);"
    "CREATE TABLE seen (order_id TEXT PRIMARY KEY)";

/// One way to handle the stream, from an empty database to the count.
class Run {
public:
    Run(const TemporaryDirectory& home, std::vector<std::string> worker, std::string name)
        : home_(home)
        , worker_(std::move(worker))
        , name_(std::move(name))
        , database_((home / (name_ + ".db")).string())
        , journal_((home / (name_ + ".journal")).string()) {}

    Count over(const std::vector<Resent>& stream, int kills) {
        Database database(database_);
        database.number(tables);
        idem::SqliteStore(database_).migrate();
        write(stream);
        work(static_cast<long>(stream.size()), kills);
        return count(database, stream);
    }

private:
    void write(const std::vector<Resent>& stream) {
        std::ofstream journal(journal_);
        for (const auto& [order_id, cents] : stream) {
            journal << order_id << ' ' << cents << '\n';
        }
    }
    /// Kills the worker each time that it has handled a further part of the stream, in mid-work:
    /// while it has deliveries in hand.
    void work(long messages, int kills) {
        Progress progress(name_);
        const Tally tally(tally_path());
        const auto size = static_cast<long>(std::filesystem::file_size(journal_));
        auto watch = [&](ChildProcess& worker, long until) {
            while (tally.counters().delivered < until && done() < size && worker.running()) {
                progress.show(tally.counters().delivered, messages, killed_);
            }
        };
        for (killed_ = 0; killed_ < kills; ++killed_) {
            ChildProcess worker(command());
            watch(worker, messages * (killed_ + 1) / (kills + 1));
            if (!worker.kill(SIGKILL) || !worker.wait(std::chrono::seconds(60))) {
                throw std::runtime_error("the worker ended by itself");
            }
        }
        ChildProcess worker(command());
        watch(worker, std::numeric_limits<long>::max());
        worker.kill(SIGTERM);
        const auto ended = worker.wait(std::chrono::seconds(60));
        if (!ended || (!ended->cleanly() && ended->signal != SIGTERM)) {
            throw std::runtime_error("the worker failed");
        }
        progress.over();
    }
    [[nodiscard]] std::vector<std::string> command() const {
        auto words = worker_;
        words.insert(words.end(), {journal_, database_, tally_path()});
        return words;
    }
    [[nodiscard]] std::string tally_path() const { return (home_ / (name_ + ".tally")).string(); }
    /// The journal's checkpoint, looked at every millisecond.
    [[nodiscard]] long done() const {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        std::uint64_t offset = 0;
        std::ifstream(journal_ + ".done", std::ios::binary)
            .read(reinterpret_cast<char*>(&offset), sizeof offset);
        return static_cast<long>(offset);
    }
    Count count(Database& database, const std::vector<Resent>& stream) const {
        Count all;
        const Tally tally(tally_path());
        all.delivered = tally.counters().delivered;
        all.handled = tally.counters().handled;
        if (const auto records = database.number("SELECT count(*) FROM idem_record"); records > 0) {
            all.handled = static_cast<long>(records);
        }
        all.replayed = tally.counters().replayed;
        all.kills = killed_;
        all.charges = static_cast<long>(database.number("SELECT count(*) FROM charge"));
        all.cents = database.number("SELECT sum(cents) FROM charge");
        judge(all,
              stream,
              static_cast<long>(database.number("SELECT count(DISTINCT order_id) FROM charge")));
        return all;
    }

    const TemporaryDirectory& home_;
    std::vector<std::string> worker_;
    std::string name_, database_, journal_;
    int killed_ = 0;
};

/// Durable commits per second of this disk.
double commits_per_second(const TemporaryDirectory& home) {
    Database database((home / "probe.db").string());
    database.number(tables);
    const auto start = std::chrono::steady_clock::now();
    int commits = 0;
    std::chrono::duration<double> took{0};
    for (; took.count() < 0.3; took = std::chrono::steady_clock::now() - start, ++commits) {
        database.number("INSERT INTO charge VALUES ('probe', 1)");
    }
    return commits / took.count();
}

int demonstrate(std::size_t wanted, std::uint64_t seed) {
    const auto programs = std::filesystem::canonical("/proc/self/exe").parent_path();
    const TemporaryDirectory home;
    const double speed = commits_per_second(home);
    // About five commits a charge in all; 12 seconds of them.
    const auto affordable = std::max<std::size_t>(500, static_cast<std::size_t>(speed * 12 / 5));
    const auto distinct = std::min(wanted, affordable);
    if (distinct < wanted) {
        std::printf("This disk makes %.0f durable commits a second: %zu charges instead of %zu.\n",
                    speed,
                    distinct,
                    wanted);
    }
    const auto stream = charges_with_resends(distinct, seed);
    std::printf("A journal of %zu messages: %zu charges, %zu resends. Each worker is killed with "
                "SIGKILL 8 times and started again.\n\n",
                stream.size(),
                distinct,
                stream.size() - distinct);
    const auto naive = (programs / "naive_worker").string();
    const auto idem =
        Run(home, {(programs / "billing_worker").string(), "journal"}, "idem").over(stream, 8);
    const auto plain = Run(home, {naive, "plain"}, "plain").over(stream, 8);
    const auto check = Run(home, {naive, "check"}, "check").over(stream, 8);
    print_header();
    print_row("idem: DedupTable, SQLite", idem);
    print_row("plain handler", plain);
    print_row("if exists(id) return; save", check);
    return print_verdict(idem, distinct);
}

int main(int count, char** arguments) try {
    const auto asked = demo_arguments({arguments + 1, arguments + count},
                                      "journal_demo [--messages N] [--seed N]\n"
                                      "Kills a billing worker in mid-work, and counts what it "
                                      "charged.\n");
    return asked.exit_code ? *asked.exit_code : demonstrate(asked.messages, asked.seed);
} catch (const std::exception& error) {
    std::cerr << "journal_demo: " << error.what() << '\n';
    return 1;
}
