// SPDX-License-Identifier: MIT
// Who is a member of the group, and of what: those that have a name, those that were stopped for
// longer than their session, and those whose topics are a pattern. The test program is its own
// helper: `membership.test stopped …` is what it starts.
#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>

#include <atomic>
#include <csignal>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>
#include <sys/wait.h>
#include <thread>

#include "kafka_test.hpp"
#include "sqlite/database.hpp"
#include "support/child_process.hpp"

namespace idem::kafka_tests {
namespace {

// ---- those that have a name ---------------------------------------------------------------------

/// Static membership: the group keeps the place of one that is gone, here for longer than any test.
KafkaOptions named(const Topic& topic,
                   const std::string& instance,
                   KafkaRebalance rebalance = KafkaRebalance::eager) {
    auto options = topic.options();
    options.rebalance = rebalance;
    for (auto& [name, value] : options.settings) {
        value = name == "session.timeout.ms" ? "250000" : value;
    }
    options.settings.emplace_back("group.instance.id", instance);
    return options;
}

/// What two sources have of a topic of two partitions once each has one, with 10 messages.
struct Shares {
    Shares(KafkaSource& first, KafkaSource& second) {
        const auto until = std::chrono::steady_clock::now() + patience;
        while ((of_first.size() != 10 || of_second.size() != 10) &&
               std::chrono::steady_clock::now() < until) {
            take(first, of_first);
            take(second, of_second);
        }
        EXPECT_EQ(of_first.size(), 10U);
        EXPECT_EQ(of_second.size(), 10U);
    }
    std::vector<KafkaDelivery> of_first, of_second;

private:
    static void take(KafkaSource& source, std::vector<KafkaDelivery>& share) {
        for (auto& delivery : source.receive(5ms)) {
            share.push_back(std::move(delivery));
        }
        std::erase_if(share, [&](auto& delivery) { return !source.extend(delivery, 1s); });
    }
};

class KafkaNamedMember : public ::testing::TestWithParam<KafkaRebalance> {};

TEST_P(KafkaNamedMember, that_restarts_keeps_its_partition_and_nobody_else_notices) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(10, 0);
    topic.write(10, 1, 10);
    auto restarts = std::make_unique<KafkaSource>(named(topic, "a", GetParam()));
    KafkaSource stays(named(topic, "b", GetParam()));
    Shares shares(*restarts, stays);
    ASSERT_FALSE(::testing::Test::HasFailure());
    const auto partition = shares.of_first[0].partition();
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(restarts->settle(shares.of_first[i], settlement(Action::ack)), Settled::yes);
    }
    shares.of_first.clear();
    restarts.reset();
    EXPECT_EQ(topic.committed(partition), 4);
    restarts = std::make_unique<KafkaSource>(named(topic, "a", GetParam()));
    const auto again = receive(*restarts, 6, {&stays});
    ASSERT_EQ(again.size(), 6U);
    EXPECT_EQ(again[0].partition(), partition);
    EXPECT_EQ(again[0].offset(), 4);
    for (auto& delivery : shares.of_second) { // of the same assignment still
        EXPECT_TRUE(stays.extend(delivery, 1s));
        EXPECT_EQ(stays.settle(delivery, settlement(Action::ack)), Settled::yes);
    }
}

INSTANTIATE_TEST_SUITE_P(Kafka,
                         KafkaNamedMember,
                         ::testing::Values(KafkaRebalance::eager, KafkaRebalance::cooperative),
                         [](const auto& each) {
                             return each.param == KafkaRebalance::eager ? "eager" : "cooperative";
                         });

/// What the source says of a human's mistake, the other being served beside it.
std::string refusal_of(KafkaSource& source, KafkaSource& other) {
    const auto until = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < until) {
        try {
            EXPECT_TRUE(source.receive(5ms).empty());
        } catch (const StoreError& error) {
            EXPECT_EQ(error.fault(), Fault::rejected) << error.what();
            return error.what();
        }
        EXPECT_TRUE(other.receive(5ms, 0).empty());
    }
    return {};
}

TEST(KafkaMember, r7_6_the_second_of_a_name_fences_the_first_which_says_so_and_loses_what_it_has) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(5);
    {
        KafkaSource first(named(topic, "a"));
        auto fenced = receive(first, 5);
        ASSERT_EQ(fenced.size(), 5U);
        EXPECT_EQ(first.settle(fenced[0], settlement(Action::ack)), Settled::yes);
        KafkaSource second(named(topic, "a"));
        auto all = receive(second, 5);
        EXPECT_EQ(all.size(), 5U);
        for (int time = 0; time < 3; ++time) { // whoever asks again is told again
            const auto said = refusal_of(first, second);
            EXPECT_NE(said.find("FENCED_INSTANCE_ID"), std::string::npos) << said;
            EXPECT_NE(said.find("group.instance.id of its own"), std::string::npos) << said;
        }
        for (auto& delivery : fenced) {
            EXPECT_FALSE(first.extend(delivery, 1s));
            EXPECT_EQ(first.settle(delivery, settlement(Action::ack)), Settled::lost);
        }
        for (auto& delivery : all) {
            EXPECT_TRUE(second.extend(delivery, 1s));
            EXPECT_EQ(second.settle(delivery, settlement(Action::ack)), Settled::yes);
        }
        fenced.clear();
        all.clear();
    }
    EXPECT_EQ(topic.committed(), 5);
}

struct Settlements final : Observer {
    void on(const Event&) noexcept override {}
    void settled(const Settlement&, Settled how) noexcept override {
        (how == Settled::lost ? lost : others) += 1;
    }
    int lost = 0, others = 0;
};

TEST(KafkaMember, r7_6_being_fenced_stops_run_and_what_is_at_work_is_lost) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(1);
    MemoryStore store;
    IdempotentConsumer consumer{store, DistributedLock{}};
    std::atomic<bool> works{false};
    const auto bill = consumer.wrap("billing", delivery_id, [&](const KafkaMessage&, Lease& held) {
        works = true;
        while (!held.stop_token().stop_requested()) { // when run() ends, for it has no grace
            std::this_thread::sleep_for(1ms);
        }
    });
    Settlements settlements;
    std::string said;
    std::jthread first([&] {
        KafkaSource source(named(topic, "a"));
        try {
            run(source, bill, std::stop_token(), {.grace = 0ms, .observer = &settlements});
        } catch (const StoreError& error) {
            said = error.what();
        }
    });
    const auto until = std::chrono::steady_clock::now() + patience;
    while (!works && std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_for(1ms);
    }
    ASSERT_TRUE(works) << "it would wait for ever";
    KafkaSource second(named(topic, "a"));
    EXPECT_EQ(receive(second, 1).size(), 1U);
    first.join();
    EXPECT_NE(said.find("FENCED_INSTANCE_ID"), std::string::npos) << said;
    EXPECT_EQ(settlements.lost, 1);
    EXPECT_EQ(settlements.others, 0);
    EXPECT_EQ(topic.committed(), -1);
}

// ---- those that leave ---------------------------------------------------------------------------

/// As the server calls it: PreparingRebalance, Stable …
std::string group_state(const Topic& topic) {
    const auto client = topic.server.client().make(RD_KAFKA_PRODUCER);
    const rd_kafka_group_list* groups = nullptr;
    const auto error = rd_kafka_list_groups(client.get(), topic.group.c_str(), &groups, 60'000);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        throw std::runtime_error(rd_kafka_err2str(error));
    }
    std::string state = groups->group_cnt == 1 ? groups->groups[0].state : "";
    rd_kafka_group_list_destroy(groups);
    return state;
}

/// librdkafka 2.0.2 does not wait for that callback when it closes.
TEST(KafkaMember, that_ends_when_it_is_to_give_back_its_partitions_commits_first) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic(2);
    topic.write(5);
    auto options = topic.options();
    options.commit_interval = 1h;
    auto ends = std::make_unique<KafkaSource>(options);
    auto all = receive(*ends, 5);
    ASSERT_EQ(all.size(), 5U);
    for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(ends->settle(all[i], settlement(Action::ack)), Settled::yes);
    }
    all.clear();
    KafkaSource joins(options);
    ASSERT_TRUE(serve_until({&joins}, [&] { return group_state(topic) == "PreparingRebalance"; }));
    // It learns of that by one of its heartbeats, in a thread of its own. Were it slower than
    // this, less would be tested.
    const auto until = std::chrono::steady_clock::now() + 400ms;
    while (std::chrono::steady_clock::now() < until) {
        EXPECT_TRUE(joins.receive(10ms).empty());
    }
    ends.reset();
    EXPECT_EQ(topic.committed(), 3);
    const auto rest = receive(joins, 2);
    ASSERT_EQ(rest.size(), 2U);
    EXPECT_EQ(rest[0].offset(), 3);
}

// ---- those that were stopped --------------------------------------------------------------------

/// Each message of billing into the database, once.
auto billing(SqliteStore& store) {
    static IdempotentConsumer<SqliteStore, DedupTable> consumer(store, DedupTable{});
    return consumer.wrap(
        "billing", delivery_id, [](const KafkaMessage& message, SqliteTransaction& tx) {
            tx.execute("INSERT INTO effect VALUES (?)", message.payload());
        });
}
KafkaOptions quick_to_commit(KafkaOptions options) {
    options.commit_interval = 1ms;
    return options;
}

/// In a process of its own: takes 10, handles 4 of them, settles 2, is stopped; handles and settles
/// the rest once it goes on, late. 0: all of that was lost.
int stopped(const KafkaOptions& options, const std::string& database) {
    SqliteStore store(database);
    const auto bill = billing(store);
    KafkaSource source(options);
    auto all = receive(source, 10);
    if (all.size() != 10) {
        std::cerr << "it has " << all.size() << '\n';
        return 1;
    }
    std::size_t executed = 0, lost = 0;
    for (std::size_t i = 0; i < 4; ++i) {
        executed += bill.handle(all[i]).status() == Status::executed ? 1 : 0;
    }
    const bool settled = source.settle(all[0], settlement(Action::ack)) == Settled::yes &&
                         source.settle(all[1], settlement(Action::ack)) == Settled::yes;
    ::raise(SIGSTOP);
    const auto until = std::chrono::steady_clock::now() + patience;
    while (source.extend(all[9], 1s) && std::chrono::steady_clock::now() < until) {
        try {
            static_cast<void>(source.receive(1ms, 0)); // would commit what was settled
        } catch (const StoreError& error) {
            std::cerr << error.what() << '\n';
        }
    }
    for (auto& delivery : all) {
        const auto outcome = bill.handle(delivery);
        executed += outcome.status() == Status::executed ? 1 : 0;
        lost += source.settle(delivery, outcome.settlement()) == Settled::lost ? 1 : 0;
    }
    std::cerr << executed << " executed, " << lost << " lost\n";
    return executed == 4 && settled && lost == 10 ? 0 : 1;
}

/// False: it ended instead.
bool await_stop(testing_support::ChildProcess& child) {
    const auto until = std::chrono::steady_clock::now() + 2 * patience;
    while (std::chrono::steady_clock::now() < until && child.running()) {
        siginfo_t what{};
        if (::waitid(P_PID, static_cast<id_t>(child.pid()), &what, WSTOPPED | WNOHANG) == 0 &&
            what.si_pid == child.pid()) {
            return true;
        }
        std::this_thread::sleep_for(1ms);
    }
    return false;
}

TEST(KafkaMember, r7_6_one_that_was_stopped_for_longer_than_its_session_changes_nothing) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Topic topic;
    topic.write(10);
    testing_support::TestDatabase database;
    SqliteStore store(database.path());
    store.migrate();
    const auto log = database.beside("stopped.log");
    testing_support::ChildOptions child_options;
    child_options.output = log;
    testing_support::ChildProcess child({"/proc/self/exe",
                                         "stopped",
                                         topic.server.address(),
                                         topic.group,
                                         topic.name,
                                         database.path()},
                                        child_options);
    const auto said = [&log] {
        std::ifstream file(log);
        return std::string{std::istreambuf_iterator<char>(file), {}};
    };
    ASSERT_TRUE(await_stop(child)) << said();
    const auto bill = billing(store);
    {
        KafkaSource successor(quick_to_commit(topic.options()));
        auto all = receive(successor, 10); // when the session of the other is over
        ASSERT_EQ(all.size(), 10U);
        std::size_t executed = 0;
        for (auto& delivery : all) {
            const auto outcome = bill.handle(delivery);
            executed += outcome.status() == Status::executed ? 1 : 0;
            EXPECT_EQ(outcome.settlement().action, Action::ack);
            EXPECT_EQ(successor.settle(delivery, outcome.settlement()), Settled::yes);
        }
        EXPECT_EQ(executed, 6U);
        ASSERT_TRUE(serve_until({&successor}, [&] { return topic.committed() == 10; }));
        child.kill(SIGCONT);
        ASSERT_TRUE(serve_until({&successor}, [&] { return !child.running(); })) << said();
        EXPECT_TRUE(child.wait(0ms)->cleanly()) << said();
        EXPECT_EQ(topic.committed(), 10);
        topic.write(1, 0, 10);
        auto next = receive(successor, 1);
        ASSERT_EQ(next.size(), 1U);
        EXPECT_EQ(next[0].offset(), 10);
        EXPECT_EQ(bill.handle(next[0]).status(), Status::executed);
    }
    EXPECT_EQ(database.plain().number("SELECT count(*) FROM effect"), 11);
    EXPECT_EQ(database.plain().number("SELECT count(DISTINCT id) FROM effect"), 11);
}

// ---- those whose topics are a pattern -----------------------------------------------------------

/// How many messages of each topic come until `topic` has given `count`. All are acked, but the
/// payload "bad", which is dead.
std::map<std::string, std::set<std::string>>
receive_of(KafkaSource& source, const std::string& topic, std::size_t count) {
    std::map<std::string, std::set<std::string>> received;
    const auto until = std::chrono::steady_clock::now() + patience;
    while (received[topic].size() < count && std::chrono::steady_clock::now() < until) {
        for (auto& delivery : source.receive(10ms)) {
            received[std::string(delivery.topic())].insert(delivery.position());
            const bool is_bad = delivery.payload() == "bad";
            EXPECT_EQ(source.settle(delivery,
                                    is_bad ? settlement(Action::dead_letter, reason::dead)
                                           : settlement(Action::ack)),
                      Settled::yes);
        }
    }
    EXPECT_EQ(received[topic].size(), count) << topic;
    return received;
}

struct Pattern : Topic {
    Pattern() : Topic(2) {
        write(5, 0);
        write(5, 1, 5);
        other.write(1);
    }
    [[nodiscard]] KafkaOptions options() const {
        auto options = Topic::options();
        options.topics = {'^' + name + "([.-].*)?$"};
        options.settings.emplace_back("topic.metadata.refresh.interval.ms", "100");
        return options;
    }
    /// A topic of the pattern that is made later, several times over so that any other that was
    /// made before it would have been noticed too.
    std::map<std::string, std::set<std::string>> receive_late(KafkaSource& source) {
        const auto late = name + "-late";
        server.create_topic(late);
        std::map<std::string, std::set<std::string>> received;
        for (int turn = 0; turn < 5; ++turn) {
            producer.write({.topic = late, .payload = "good"});
            received.merge(receive_of(source, late, 1));
        }
        return received;
    }
    Topic other;
};

TEST(KafkaMember, of_a_pattern_has_all_topics_of_it_those_made_later_too) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    Pattern pattern;
    KafkaSource source(pattern.options());
    auto all = receive(source, 10);
    ASSERT_EQ(all.size(), 10U);
    std::set<std::uint64_t> lanes;
    for (auto& delivery : all) {
        EXPECT_EQ(delivery.topic(), pattern.name);
        const auto place = '/' + pattern.name + '/' + std::to_string(delivery.partition());
        const std::string position(delivery.identity().position->partition);
        EXPECT_EQ(position.substr(position.find('/')), place);
        lanes.insert(source.lane(delivery));
        EXPECT_EQ(source.settle(delivery, settlement(Action::ack)), Settled::yes);
    }
    EXPECT_EQ(lanes.size(), 2U);
    const auto late = pattern.receive_late(source);
    EXPECT_EQ(late.size(), 1U) << "the first ones were acked, and the other topic is none of it";
    EXPECT_EQ(pattern.committed(0), 5);
    EXPECT_EQ(pattern.committed(1), 5);
}

TEST(KafkaMember, of_a_pattern_does_not_get_its_own_dead_letters) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    for (const bool by_name : {false, true}) {
        Pattern pattern;
        auto options = pattern.options();
        const auto dead = pattern.name + (by_name ? ".of-all" : ".dead");
        options.dead_letter_topic = by_name ? dead : "";
        KafkaSource source(options);
        pattern.producer.write({.topic = pattern.name, .payload = "bad"});
        EXPECT_EQ(receive_of(source, pattern.name, 11).size(), 1U);
        EXPECT_EQ(testing_support::read_topic(pattern.server, dead).size(), 1U);
        const auto late = pattern.receive_late(source);
        EXPECT_EQ(late.size(), 1U);
        EXPECT_FALSE(late.contains(dead));
        EXPECT_TRUE(testing_support::read_topic(pattern.server, dead + ".dead").empty());
    }
}

} // namespace
} // namespace idem::kafka_tests

int main(int count, char** values) {
    const std::vector<std::string> arguments(values, values + count);
    if (arguments.size() == 6 && arguments[1] == "stopped") {
        idem::KafkaOptions options{
            .servers = arguments[2], .group = arguments[3], .topics = {arguments[4]}};
        options.settings = idem::testing_support::kafka_client_settings();
        options.settings.emplace_back("session.timeout.ms", "3000");
        options.settings.emplace_back("heartbeat.interval.ms", "200");
        try {
            return idem::kafka_tests::stopped(idem::kafka_tests::quick_to_commit(options),
                                              arguments[5]);
        } catch (const std::exception& error) {
            std::cerr << error.what() << '\n';
            return 1;
        }
    }
    ::testing::InitGoogleTest(&count, values);
    return RUN_ALL_TESTS();
}
