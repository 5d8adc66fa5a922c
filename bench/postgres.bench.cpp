// SPDX-License-Identifier: MIT

// DedupTable and DistributedLock over PostgresStore against raw libpq doing the least that works.

#include <idem/idem.hpp>
#include <idem/store/postgres.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <exception>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "interleaved.hpp"
#include "order.hpp"
#include "raw_postgres.hpp"
#include "report.hpp"
#include "support/postgres_server.hpp"

namespace idem::bench {
namespace {

constexpr const char* table = "idem_record";
constexpr const char* insert_order = "INSERT INTO orders (cust, amount, note) VALUES ($1, $2, $3)";

/// The server, durable and with room, and what is measured in it.
class Database {
public:
    Database()
        : server_({.settings = {"fsync=on",
                                "synchronous_commit=on",
                                "full_page_writes=on",
                                "shared_buffers=1GB",
                                "max_wal_size=8GB",
                                "checkpoint_timeout=30min"}})
        , conninfo_(server_.create_database())
        , session_(conninfo_) {
        PostgresStore(conninfo_).migrate();
        session_.run("CREATE TABLE orders (id bigserial PRIMARY KEY, cust integer, amount numeric, "
                     "note text, at timestamptz DEFAULT now())");
        session_.run("CREATE TABLE raw_key (key text PRIMARY KEY, state smallint DEFAULT 1, "
                     "created_at timestamptz DEFAULT now(), response text)");
        session_.run("CREATE TABLE raw_lease (LIKE idem_record INCLUDING ALL)");
    }

    [[nodiscard]] std::string conninfo(bool synchronous = true) const {
        return synchronous ? conninfo_ : conninfo_ + " options='-c synchronous_commit=off'";
    }
    testing_support::PostgresSession& session() noexcept { return session_; }
    std::uint64_t number(const std::string& sql) {
        return static_cast<std::uint64_t>(session_.number(sql));
    }
    /// Of processor, of all server processes that are alive, until now; 0 where it cannot be told.
    double processor_seconds() {
        if (!server_.owned()) {
            return 0;
        }
        if (postmaster_.empty()) {
            postmaster_ = parent_of(session_.run("SELECT pg_backend_pid()"));
        }
        double nanoseconds = 0;
        for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
            const auto pid = entry.path().filename().string();
            if (parent_of(pid) == postmaster_) {
                double spent = 0;
                std::ifstream(entry.path() / "schedstat") >> spent;
                nanoseconds += spent;
            }
        }
        return nanoseconds / 1e9;
    }
    std::uint64_t orders() { return number("SELECT count(*) FROM orders"); }

    /// With what the server spends beside.
    std::vector<std::uint64_t> run(Report& report, Row row) {
        row.server_seconds = [this] { return processor_seconds(); };
        return report.run(row);
    }
    void describe(Report& report) {
        std::string settings;
        for (const auto* name : {"server_version",
                                 "fsync",
                                 "synchronous_commit",
                                 "full_page_writes",
                                 "wal_sync_method",
                                 "shared_buffers",
                                 "max_wal_size",
                                 "checkpoint_timeout"}) {
            settings += settings.empty() ? "" : ", ";
            settings += std::string(name) + " " + session_.run("SHOW " + std::string(name));
        }
        report.note("server", settings);
        if (server_.owned()) {
            report.note_directory(session_.run("SHOW data_directory"));
        }
    }

private:
    /// Empty for what is no process.
    static std::string parent_of(const std::string& pid) {
        std::ifstream file("/proc/" + pid + "/stat"); // pid (name) state parent ...
        std::string rest, state, parent;
        std::getline(file, rest, ')') >> state >> parent;
        return parent;
    }

    testing_support::PostgresServer server_;
    std::string conninfo_;
    testing_support::PostgresSession session_;
    std::string postmaster_;
};

/// A connection per thread. A deque, as they do not move.
class RawConnections {
public:
    RawConnections(const std::string& conninfo, unsigned count) {
        while (connections_.size() < count) {
            connections_.emplace_back(conninfo);
        }
    }
    RawConnections& prepare(const char* name, const std::string& sql) {
        for (auto& connection : connections_) {
            connection.prepare(name, sql);
        }
        return *this;
    }
    RawConnections& enter_pipeline() {
        for (auto& connection : connections_) {
            connection.enter_pipeline();
        }
        return *this;
    }
    RawConnection& operator[](unsigned thread) { return connections_[thread]; }

private:
    std::deque<RawConnection> connections_;
};

void raw_insert(RawConnection& connection, const Order& order) {
    const auto customer = std::to_string(order.customer);
    connection.execute("insert", {customer, order.amount, order.note});
}
void raw_send_insert(RawConnection& connection, const Order& order) {
    const auto customer = std::to_string(order.customer);
    connection.send("insert", {customer, order.amount, order.note});
}

/// What DedupTable sends (detail/postgres_claims.hpp), with the same texts, parameters and trips.
class ByHand {
public:
    ByHand(const std::string& conninfo, unsigned count) : connections_(conninfo, count) {
        const detail::PostgresStatements sql(table);
        connections_.prepare("begin", sql.begin.text())
            .prepare("claim", sql.opening_claim.text())
            .prepare("read", sql.read_one.text())
            .prepare("rollback", sql.rollback.text())
            .prepare("commit", sql.commit.text())
            .prepare("insert", insert_order)
            .enter_pipeline();
    }
    /// [BEGIN, claim], [INSERT], [COMMIT].
    std::uint64_t insert(unsigned thread, const Order& order) {
        auto& connection = connections_[thread];
        if (!claim(connection, order.id)) {
            throw std::runtime_error("a fresh key was not claimed");
        }
        raw_send_insert(connection, order);
        connection.receive();
        connection.send("commit", {});
        connection.receive();
        return 1;
    }
    /// [BEGIN, claim], [ROLLBACK, read]. Returns how many records it found.
    std::uint64_t meet_duplicate(const std::string& id) {
        auto& connection = connections_[0];
        if (claim(connection, id)) {
            throw std::runtime_error("a duplicate was claimed");
        }
        connection.send("rollback", {});
        connection.send("read", {raw_bytes(scope), raw_bytes(id)}, true);
        const auto found = connection.receive();
        return static_cast<std::uint64_t>(PQntuples(found.get()));
    }

private:
    static constexpr std::string_view scope = "bench";

    static std::int64_t lock_of(const std::string& id) {
        return detail::advisory_lock_of(table, {scope, id});
    }
    static bool claim(RawConnection& connection, const std::string& id) {
        connection.send("begin", {});
        connection.send("claim",
                        {raw_bytes(scope),
                         raw_bytes(id),
                         raw_bytes("0123456789abcdef"),
                         {nullptr},
                         "0",
                         "604800",
                         std::to_string(lock_of(id)),
                         "300000"});
        return std::string_view(PQcmdTuples(connection.receive().get())) == "1";
    }

    RawConnections connections_;
};

/// The handler under measurement, both ways of sending its statement.
auto executing(const IdempotentConsumer<PostgresStore, DedupTable>& consumer) {
    return consumer.wrap("bench", &Order::id, [](const Order& order, PostgresTransaction& tx) {
        tx.execute(insert_order, order.customer, order.amount, order.note);
    });
}
auto posting(const IdempotentConsumer<PostgresStore, DedupTable>& consumer) {
    return consumer.wrap("bench", &Order::id, [](const Order& order, PostgresTransaction& tx) {
        tx.post(insert_order, order.customer, order.amount, order.note);
    });
}
void must_be(Status wanted, Status found) {
    if (wanted != found) {
        throw std::runtime_error("the outcome is " + std::string(to_string(found)));
    }
}

void insert_row(Report& report, Database& database, unsigned threads, bool synchronous) {
    const auto name = "one INSERT, " + std::to_string(threads) +
                      (threads == 1 ? " connection" : " connections") +
                      (synchronous ? "" : ", synchronous_commit = off");
    if (!report.wants(name)) {
        return;
    }
    RawConnections raw(database.conninfo(synchronous), threads);
    raw.prepare("insert", insert_order);
    ByHand by_hand(database.conninfo(synchronous), threads);
    PostgresStore store(database.conninfo(synchronous), {.connections = threads});
    const IdempotentConsumer consumer(store, DedupTable{});
    const auto execute = executing(consumer);
    const auto post = posting(consumer);
    auto target = [&](double bound) {
        return synchronous ? std::optional(time_at_most(bound)) : std::nullopt;
    };
    const auto before = database.orders();
    const auto done = database.run(
        report,
        {.name = name,
         .threads = threads,
         .variants = {{"libpq: BEGIN; INSERT; COMMIT",
                       [&](unsigned thread) {
                           const auto order = fresh_order();
                           raw[thread].command("BEGIN");
                           raw_insert(raw[thread], order);
                           raw[thread].command("COMMIT");
                           return 1;
                       }},
                      {"DedupTable, executed",
                       [&](unsigned) {
                           must_be(Status::executed, execute(fresh_order()).status());
                           return 1;
                       },
                       target(1.2)},
                      {"DedupTable, posted",
                       [&](unsigned) {
                           must_be(Status::executed, post(fresh_order()).status());
                           return 1;
                       },
                       target(threads == 1 ? 0.95 : 1.15)},
                      {"libpq: the statements of DedupTable",
                       [&](unsigned thread) { return by_hand.insert(thread, fresh_order()); }},
                      {"libpq: INSERT alone, autocommit", [&](unsigned thread) {
                           raw_insert(raw[thread], fresh_order());
                           return 1;
                       }}}});
    report.require("orders",
                   std::accumulate(done.begin(), done.end(), std::uint64_t{0}),
                   database.orders() - before);
}

void batch_row(Report& report, Database& database) {
    constexpr std::size_t size = 64;
    const std::string name = "batch of 64, one commit";
    if (!report.wants(name)) {
        return;
    }
    RawConnections raw(database.conninfo(), 1), pipeline(database.conninfo(), 1);
    raw.prepare("insert", insert_order)
        .prepare("keys",
                 "INSERT INTO raw_key (key) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING");
    pipeline.prepare("begin", "BEGIN")
        .prepare("insert", insert_order)
        .prepare("commit", "COMMIT")
        .enter_pipeline();
    PostgresStore store(database.conninfo());
    const IdempotentConsumer consumer(store, DedupTable{});
    const auto execute = executing(consumer);
    const auto post = posting(consumer);
    auto all_executed = [](const auto& outcomes) {
        for (const auto& outcome : outcomes) {
            must_be(Status::executed, outcome.status());
        }
        return outcomes.size();
    };
    const auto before = database.orders();
    const auto done = database.run(
        report,
        {.name = name,
         .threads = 1,
         .variants = {{"libpq, one by one, and their keys",
                       [&](unsigned) {
                           std::string keys = "{";
                           raw[0].command("BEGIN");
                           for (const auto& order : fresh_orders(size)) {
                               raw_insert(raw[0], order);
                               keys.append(keys.size() > 1 ? "," : "").append(order.id);
                           }
                           raw[0].execute("keys", {keys + "}"});
                           raw[0].command("COMMIT");
                           return size;
                       }},
                      {"DedupTable, executed",
                       [&](unsigned) { return all_executed(execute.batch(fresh_orders(size))); },
                       time_at_most(1.3)},
                      {"DedupTable, posted",
                       [&](unsigned) { return all_executed(post.batch(fresh_orders(size))); }},
                      {"libpq, one by one, no keys",
                       [&](unsigned) {
                           raw[0].command("BEGIN");
                           for (const auto& order : fresh_orders(size)) {
                               raw_insert(raw[0], order);
                           }
                           raw[0].command("COMMIT");
                           return size;
                       }},
                      {"libpq, pipelined, no keys", [&](unsigned) {
                           pipeline[0].send("begin", {});
                           for (const auto& order : fresh_orders(size)) {
                               raw_send_insert(pipeline[0], order);
                           }
                           pipeline[0].send("commit", {});
                           pipeline[0].receive();
                           return size;
                       }}}});
    report.require("orders",
                   std::accumulate(done.begin(), done.end(), std::uint64_t{0}),
                   database.orders() - before);
}

/// 500 claims by lease in one statement. A template, so that it is not compiled before the store
/// has a leased mode.
template <class Store>
void lease_row(Report& report, Database& database) {
    const std::string name = "500 claims by lease, one statement";
    if constexpr (!BatchStore<Store>) {
        if (report.wants(name)) {
            report.note("left out", name + ": PostgresStore is no BatchStore yet");
        }
    } else {
        if (!report.wants(name)) {
            return;
        }
        constexpr std::size_t size = 500;
        RawConnections raw(database.conninfo(), 1);
        raw.prepare("claim",
                    "INSERT INTO raw_lease (changed, expires, lease_until, attempts, fence, format,"
                    " state, scope, id, owner) "
                    "SELECT clock_timestamp(), clock_timestamp() + interval '7 days', "
                    "clock_timestamp() + interval '30 seconds', 1, 1, 1, 1, $1, asked.id, $2 "
                    "FROM unnest($3::bytea[]) AS asked (id) ON CONFLICT DO NOTHING RETURNING id");
        Store store(database.conninfo());
        auto records = [&] { return database.number("SELECT count(*) FROM idem_record"); };
        const auto before = records();
        const auto done = database.run(
            report,
            {.name = name,
             .threads = 1,
             .variants = {
                 {"libpq: INSERT ... SELECT unnest",
                  [&](unsigned) {
                      const auto orders = fresh_orders(size);
                      std::vector<std::string_view> ids;
                      for (const auto& order : orders) {
                          ids.push_back(order.id);
                      }
                      const auto rows = raw[0].execute("claim",
                                                       {raw_bytes("bench"),
                                                        raw_bytes("0123456789abcdef"),
                                                        *detail::bytes_array(ids).value});
                      return static_cast<std::uint64_t>(PQntuples(rows.get()));
                  }},
                 {"claim(span of ClaimRequest)",
                  [&](unsigned) {
                      const auto orders = fresh_orders(size);
                      std::vector<ClaimRequest> requests;
                      for (const auto& order : orders) {
                          requests.push_back({.key = {"bench", order.id}});
                      }
                      const auto claims = store.claim(std::span<const ClaimRequest>(requests));
                      return static_cast<std::uint64_t>(
                          std::count_if(claims.begin(), claims.end(), [](const auto& claim) {
                              return std::holds_alternative<Claimed<typename Store::Ticket>>(claim);
                          }));
                  },
                  time_at_most(1.5)}}});
        report.require("records", done[1], records() - before);
    }
}

/// Keys that are completed, in both tables.
std::vector<Order> completed_orders(Database& database) {
    auto orders = fresh_orders(2'000);
    PostgresStore store(database.conninfo());
    const IdempotentConsumer consumer(store, DedupTable{});
    static_cast<void>(posting(consumer).batch(orders));
    for (const auto& order : orders) {
        database.session().run("INSERT INTO raw_key (key) VALUES ('" + order.id + "')");
    }
    return orders;
}

void duplicate_row(Report& report, Database& database) {
    const std::string name = "duplicate of a completed key, claim first";
    if (!report.wants(name)) {
        return;
    }
    const auto orders = completed_orders(database);
    ByHand raw(database.conninfo(), 1);
    PostgresStore store(database.conninfo());
    const IdempotentConsumer consumer(store, DedupTable{});
    const auto execute = executing(consumer);
    std::size_t next = 0;
    auto any = [&]() -> const Order& { return orders[next++ % orders.size()]; };
    const auto before = database.orders();
    database.run(report,
                 {.name = name,
                  .threads = 1,
                  .variants = {{"libpq: the same statements",
                                [&](unsigned) {
                                    if (raw.meet_duplicate(any().id) != 1) {
                                        throw std::runtime_error("the record is gone");
                                    }
                                    return 1;
                                }},
                               {"DedupTable",
                                [&](unsigned) {
                                    must_be(Status::replayed, execute(any()).status());
                                    return 1;
                                },
                                rate_at_least(0.9)}}});
    report.require("orders", 0, database.orders() - before);

    // The server writes of its own accord too, now and then: the quietest of several windows counts.
    double least = 1e9;
    for (int window = 0; window < 20 && least > 0; ++window) {
        const auto written = [&] {
            return database.number("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn");
        };
        const auto start = written();
        for (int times = 0; times < 200; ++times) {
            must_be(Status::replayed, execute(any()).status());
        }
        least = std::min(least, static_cast<double>(written() - start) / 200);
    }
    report.count("bytes of WAL for one duplicate", least, 0);
}

void redelivered_row(Report& report, Database& database) {
    const std::string name = "duplicate of a completed key, redelivered";
    if (!report.wants(name)) {
        return;
    }
    const auto orders = completed_orders(database);
    RawConnections raw(database.conninfo(), 1);
    raw.prepare("claim", "INSERT INTO raw_key (key) VALUES ($1) ON CONFLICT DO NOTHING");
    PostgresStore store(database.conninfo());
    const IdempotentConsumer consumer(store, DedupTable{});
    const auto execute = consumer.wrap(
        "bench",
        [](const Order& order) { return Identity{.id = order.id, .redelivered = true}; },
        [](const Order& order, PostgresTransaction& tx) {
            tx.execute(insert_order, order.customer, order.amount, order.note);
        });
    std::size_t next = 0;
    auto any = [&]() -> const Order& { return orders[next++ % orders.size()]; };
    const auto before = database.orders();
    database.run(report,
                 {.name = name,
                  .threads = 1,
                  .variants = {{"libpq: INSERT ... DO NOTHING",
                                [&](unsigned) {
                                    const auto none = raw[0].execute("claim", {any().id});
                                    if (std::string_view(PQcmdTuples(none.get())) != "0") {
                                        throw std::runtime_error("a duplicate was claimed");
                                    }
                                    return 1;
                                }},
                               {"DedupTable",
                                [&](unsigned) {
                                    must_be(Status::replayed, execute(any()).status());
                                    return 1;
                                },
                                rate_at_least(0.85)}}});
    report.require("orders", 0, database.orders() - before);
}

/// Each thread draws its batches, in any order, from those orders that the others draw from too.
void overlap_row(Report& report, Database& database) {
    constexpr unsigned threads = 4;
    constexpr std::size_t size = 64, window = 2 * size;
    const std::string name = "overlapping batches of 64, 4 connections";
    if (!report.wants(name)) {
        return;
    }
    PostgresStore store(database.conninfo(), {.connections = threads});
    const IdempotentConsumer consumer(store, DedupTable{});
    const auto execute = executing(consumer);
    std::atomic<std::uint64_t> drawn{0}, executed{0}, in_progress{0};
    std::vector<std::mt19937_64> random;
    for (unsigned thread = 0; thread < threads; ++thread) {
        random.emplace_back(thread);
    }
    auto deadlocks = [&] {
        database.session().run("SELECT pg_stat_force_next_flush()");
        return database.number("SELECT deadlocks FROM pg_stat_database "
                               "WHERE datname = current_database()");
    };
    constexpr std::uint64_t origin = std::uint64_t{1} << 40U; // far from fresh_order()
    const auto orders_before = database.orders(), deadlocks_before = deadlocks();
    const auto done = database.run(
        report,
        {.name = name,
         .threads = threads,
         .variants = {{"DedupTable, messages", [&](unsigned thread) {
                           // Each window is drawn from four times before the next one begins.
                           const auto first = origin + drawn++ / threads * window;
                           std::vector<Order> orders;
                           for (std::size_t at = 0; at < window; ++at) {
                               orders.push_back(order_number(first + at));
                           }
                           std::shuffle(orders.begin(), orders.end(), random[thread]);
                           orders.resize(size);
                           for (const auto& outcome : execute.batch(orders)) {
                               executed += outcome.status() == Status::executed ? 1 : 0;
                               in_progress += outcome.status() == Status::in_progress ? 1 : 0;
                           }
                           return size;
                       }}}});
    const auto messages = static_cast<double>(done[0]);
    report.count("share executed", static_cast<double>(executed) / messages);
    report.count("share in progress", static_cast<double>(in_progress) / messages);
    report.count("deadlocks", static_cast<double>(deadlocks() - deadlocks_before), 0);
    report.require("orders", executed, database.orders() - orders_before);
}

int run(const Options& options) {
    Report report(options);
    Database database;
    database.describe(report);
    insert_row(report, database, 1, true);
    insert_row(report, database, 8, true);
    insert_row(report, database, 1, false);
    insert_row(report, database, 8, false);
    batch_row(report, database);
    lease_row<PostgresStore>(report, database);
    duplicate_row(report, database);
    redelivered_row(report, database);
    overlap_row(report, database);
    return report.end();
}

} // namespace
} // namespace idem::bench

int main(int argc, char** argv) {
    return idem::bench::bench_main(argc,
                                   argv,
                                   "Compares idem over PostgreSQL with raw libpq, on a durable "
                                   "server that it starts and ends.",
                                   idem::testing_support::PostgresServer::missing(),
                                   idem::bench::run);
}
