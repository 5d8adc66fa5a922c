// SPDX-License-Identifier: MIT
// idem::run over a Redis stream: what the server shows afterwards.
#include <idem/idem.hpp>

#include <cstdlib>
#include <functional>
#include <latch>
#include <mutex>
#include <set>
#include <thread>

#include "redis_group.hpp"
#include "settlement_rows.hpp"
#include "support/child_process.hpp"

namespace idem::broker_tests {
namespace {

using testing_support::ChildProcess;

class SettlementTable : public ::testing::TestWithParam<Row> {};

TEST_P(SettlementTable, r7_is_what_the_server_shows) {
    IDEM_TEST_NEEDS(RedisServer::missing());
    const auto& row = GetParam();
    Group group;
    const auto id = group.add({"message-id", "m", "payload", "body"});
    RedisStreamSource source(group.address, group.options("c1"));
    std::stop_source stop;
    const Answering handler{row.verdict, &stop};
    if (row.action == Action::stop) {
        EXPECT_THROW(run(source, handler, stop.get_token()), StoreError);
    } else {
        run(source, handler, stop.get_token());
    }
    EXPECT_EQ(group.length(group.stream), 1);
    const auto pending = group.pending();
    const auto dead = group.dead();
    switch (row.action) {
    case Action::ack:
        EXPECT_TRUE(pending.empty());
        EXPECT_TRUE(dead.empty());
        break;
    case Action::dead_letter:
        EXPECT_TRUE(pending.empty());
        ASSERT_EQ(dead.size(), 1U);
        EXPECT_EQ(dead[0].at("idem-reason"), row.reason);
        EXPECT_EQ(dead[0].at("idem-origin"), id);
        EXPECT_EQ(dead[0].at("payload"), "body");
        EXPECT_EQ(dead[0].at("message-id"), "m");
        break;
    case Action::retry:
    case Action::stop:
        ASSERT_EQ(pending.size(), 1U);
        EXPECT_EQ(pending[0].id, id);
        EXPECT_EQ(pending[0].count, 1);
        EXPECT_TRUE(dead.empty());
        break;
    }
}

INSTANTIATE_TEST_SUITE_P(RedisStream,
                         SettlementTable,
                         ::testing::ValuesIn(rows()),
                         [](const auto& each) { return each.param.name; });

/// A handler that counts by payload, behind a store.
struct Counting {
    MemoryStore store;
    IdempotentConsumer<MemoryStore, DistributedLock> consumer{store, DistributedLock{}};
    std::mutex mutex;
    std::map<std::string, int> handled;

    auto handler(const std::function<void(const std::string&)>& then = {}) {
        return consumer.wrap(
            "billing", delivery_id, [this, then](const RedisStreamDelivery& delivery) {
                const std::string payload(delivery.payload());
                {
                    const std::scoped_lock lock(mutex);
                    ++handled[payload];
                }
                if (then) {
                    then(payload);
                }
            });
    }
    std::size_t distinct() {
        const std::scoped_lock lock(mutex);
        return handled.size();
    }
};

/// Requests the stop once `count` deliveries were settled for good.
class StopAfter : public Observer {
public:
    StopAfter(std::stop_source& stop, std::size_t count) : stop_(stop), count_(count) {}
    void on(const Event&) noexcept override {}
    void settled(const Settlement& settlement, Settled how) noexcept override {
        if (settlement.action != Action::retry && how == Settled::yes && ++done_ == count_) {
            stop_.request_stop();
        }
        in_doubt += how == Settled::in_doubt ? 1 : 0;
    }
    void source_failed(const StoreError&) noexcept override { ++failures; }
    int failures = 0, in_doubt = 0;

private:
    std::stop_source& stop_;
    std::size_t count_, done_ = 0;
};

/// Until the group has nothing pending and nothing new; fails the test where that does not come.
void wait_until_empty(const std::string& address, const std::string& stream) {
    RedisSession look(address);
    const auto until = std::chrono::steady_clock::now() + 60s;
    while (std::chrono::steady_clock::now() < until) {
        const auto groups = look.run({"XINFO", "GROUPS", stream});
        const auto group = groups.value()[0]; // name, consumers, pending, last delivered id, …
        const auto after = "(" + std::string(group[7].text());
        const auto next = look.run({"XRANGE", stream, after, "+", "COUNT", "1"});
        if (group[5].integer() == 0 && next.value().size() == 0) {
            return;
        }
        std::this_thread::sleep_for(2ms);
    }
    ADD_FAILURE() << "entries are left";
}

class RedisStreamRun : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RedisServer::missing_program()); }
};

TEST_F(RedisStreamRun, every_message_is_handled_once_and_acked) {
    Group group;
    group.add_numbered(500);
    for (int i = 0; i < 500; i += 3) { // the producer's resends
        const auto number = std::to_string(i);
        group.add({"message-id", number, "payload", "body " + number});
    }
    group.add({"message-id", "7", "payload", "something else"});
    group.add({"message-id", "8"});
    RedisStreamSource source(group.address, group.options("c1"));
    std::stop_source stop;
    StopAfter observer(stop, 500 + 167 + 2);
    Counting counting;
    run(source, counting.handler(), stop.get_token(), {.concurrency = 4, .observer = &observer});
    EXPECT_EQ(counting.handled.size(), 500U);
    for (const auto& [payload, times] : counting.handled) {
        EXPECT_EQ(times, 1) << payload;
    }
    EXPECT_TRUE(group.pending().empty());
    const auto dead = group.dead();
    ASSERT_EQ(dead.size(), 2U);
    std::set<std::string> reasons;
    for (const auto& letter : dead) {
        reasons.insert(letter.at("idem-reason"));
    }
    EXPECT_EQ(
        reasons,
        (std::set<std::string>{std::string(reason::conflict), std::string(reason::undecodable)}));
}

TEST_F(RedisStreamRun, a_graceful_stop_leaves_nothing_acked_that_was_not_handled) {
    Group group;
    group.add_numbered(300);
    RedisStreamSource source(group.address, group.options("c1"));
    std::stop_source stop;
    Counting counting;
    run(source,
        counting.handler([&](const std::string&) {
            // Not ==: two threads may both count before either asks.
            if (counting.distinct() >= 50) {
                stop.request_stop();
            }
        }),
        stop.get_token(),
        {.concurrency = 3});
    std::set<std::string> unhandled;
    for (int i = 0; i < 300; ++i) {
        unhandled.insert("body " + std::to_string(i));
    }
    for (const auto& [payload, times] : counting.handled) {
        unhandled.erase(payload);
    }
    EXPECT_LE(counting.handled.size(), 55U);
    // Pending, or never given, is exactly what was not handled.
    std::set<std::string> left;
    for (const auto& entry : group.pending()) {
        EXPECT_GE(entry.idle, 60'000 - 1'000) << "others may take it at once";
        const auto found = group.redis.run({"XRANGE", group.stream, entry.id, entry.id});
        left.insert(std::string(found.value()[0][1][3].text()));
    }
    const auto fresh = group.redis.run({"XREADGROUP",
                                        "GROUP",
                                        group.group,
                                        "look",
                                        "COUNT",
                                        "1000",
                                        "STREAMS",
                                        group.stream,
                                        ">"});
    const auto entries = fresh.value()[0][1];
    for (std::size_t i = 0; i < entries.size(); ++i) {
        left.insert(std::string(entries[i][1][3].text()));
    }
    EXPECT_EQ(left, unhandled);
}

TEST_F(RedisStreamRun, after_a_restart_of_the_server_it_goes_on_by_itself) {
    RedisServer server(
        {.own = true, .arguments = {"--appendonly", "yes", "--appendfsync", "always"}});
    Group group(server);
    group.add_numbered(400);
    RedisStreamSource source(group.address, group.options("c1"));
    std::stop_source stop;
    Counting counting;
    std::latch killed(1);
    StopAfter observer(stop, 1'000'000);
    std::jthread loop([&] { // the server must be started by the thread of the test
        run(source,
            counting.handler([&](const std::string&) {
                if (counting.distinct() >= 100) {
                    killed.wait();
                }
            }),
            stop.get_token(),
            {.concurrency = 2, .observer = &observer});
    });
    while (counting.distinct() < 100) {
        std::this_thread::yield();
    }
    server.kill();
    killed.count_down(); // the handlers go on, and their acks find nobody
    server.start();
    wait_until_empty(server.address(), group.stream);
    stop.request_stop();
    loop.join();
    EXPECT_GE(observer.failures + observer.in_doubt, 1);
    EXPECT_EQ(counting.handled.size(), 400U);
    for (const auto& [payload, times] : counting.handled) {
        EXPECT_EQ(times, 1) << payload;
    }
    RedisSession look(server.address());
    EXPECT_EQ(look.run({"XPENDING", group.stream, group.group}).value()[0].integer(), 0);
}

TEST_F(RedisStreamRun, r7_2_a_held_delivery_stays_this_consumer_s) {
    Group group;
    group.add_numbered(1);
    auto options = group.options("holds");
    options.claim_idle = 3s;
    RedisStreamSource source(group.address, options);
    std::stop_source stop;
    const Answering handler{thrown(std::make_exception_ptr(RetryLater(1h))), nullptr};
    group.redis.run({"XGROUP", "CREATE", group.stream, group.group, "0"});
    std::jthread watch([&] { // until its idle time fell back twice
        RedisSession look(group.address);
        long long idle = 0, fell = 0;
        const auto until = std::chrono::steady_clock::now() + 60s;
        while (fell < 2 && std::chrono::steady_clock::now() < until) {
            const auto pending = look.run({"XPENDING", group.stream, group.group, "-", "+", "1"});
            if (pending.value().size() == 1) {
                EXPECT_EQ(pending.value()[0][1].text(), "holds");
                fell += pending.value()[0][2].integer() < idle ? 1 : 0;
                idle = pending.value()[0][2].integer();
            }
        }
        EXPECT_EQ(fell, 2);
        stop.request_stop();
    });
    run(source, handler, stop.get_token());
    EXPECT_EQ(group.pending().size(), 1U);
}

constexpr const char* worker_variable = "IDEM_TEST_STREAM_WORKER";

/// The process that is killed: says in a list what it handles, acks, and hangs at the tenth.
void work_until_killed() {
    const std::string address = std::getenv(worker_variable);
    const std::string stream = std::getenv("IDEM_TEST_STREAM");
    struct Listing {
        std::string address;
        [[nodiscard]] Outcome<void> handle(const RedisStreamDelivery& delivery,
                                           const std::stop_token&) const {
            RedisSession redis(address);
            if (redis.number({"RPUSH", "handled", delivery.payload()}) >= 10) {
                for (;;) {
                    ::pause();
                }
            }
            return Outcome<void>(of(Status::executed));
        }
    };
    RedisStreamSource source(
        address, {.stream = stream, .group = "billing", .consumer = "victim", .claim_idle = 300ms});
    run(source, Listing{address}, {}, {.concurrency = 1});
}
const bool is_worker = [] { // before GoogleTest's main
    if (std::getenv(worker_variable) != nullptr) {
        work_until_killed();
        ::_exit(3);
    }
    return false;
}();

TEST_F(RedisStreamRun, what_a_killed_worker_had_is_taken_over_and_nothing_is_lost) {
    ASSERT_FALSE(is_worker);
    RedisServer server({.own = true});
    Group group(server);
    group.add_numbered(100);
    ChildProcess worker(
        {"/proc/self/exe"},
        {.environment = {{worker_variable, server.address()}, {"IDEM_TEST_STREAM", group.stream}}});
    while (group.redis.number({"LLEN", "handled"}) < 10) {
        ASSERT_TRUE(worker.running());
    }
    worker.kill(SIGKILL);
    ASSERT_TRUE(worker.wait(30s));
    const auto pending = group.pending();
    ASSERT_FALSE(pending.empty());
    std::set<std::string> acked_by_victim; // all but what it hung at
    const auto list = group.redis.run({"LRANGE", "handled", "0", "-1"});
    ASSERT_EQ(list.value().size(), 10U);
    for (std::size_t i = 0; i < 9; ++i) {
        acked_by_victim.insert(std::string(list.value()[i].text()));
    }

    auto options = group.options("heir");
    options.claim_idle = 300ms;
    RedisStreamSource source(group.address, options);
    std::stop_source stop;
    StopAfter observer(stop, 1'000'000);
    Counting counting;
    std::jthread watch([&] {
        wait_until_empty(server.address(), group.stream);
        stop.request_stop();
    });
    run(source, counting.handler(), stop.get_token(), {.concurrency = 2, .observer = &observer});
    EXPECT_TRUE(group.pending().empty());
    std::set<std::string> handled = acked_by_victim;
    for (const auto& [payload, times] : counting.handled) {
        EXPECT_EQ(times, 1) << payload;
        handled.insert(payload);
    }
    EXPECT_EQ(handled.size(), 100U);
    EXPECT_TRUE(counting.handled.contains(std::string(list.value()[9].text())))
        << "what it hung at was not acked";
}

} // namespace
} // namespace idem::broker_tests
