// SPDX-License-Identifier: MIT
// 20,000 messages of a quorum queue into PostgreSQL, by two workers that are killed, cut off and
// left without a broker: each effect once. And plain loops, of which the same look shows the faults.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <sys/types.h>
#include <thread>
#include <vector>

#include "proof/rabbitmq_messages.hpp"
#include "proof/rabbitmq_stage.hpp"
#include "proof/rabbitmq_trace.hpp"
#include "proof/seed.hpp"
#include "support/needs.hpp"

namespace idem::proof {
namespace {

RabbitServer& server() {
    static RabbitServer own({.own = true});
    return own;
}

class RabbitProof : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(RabbitServer::missing_program());
        IDEM_TEST_NEEDS(testing_support::PostgresServer::missing());
    }
};

enum class Fault { kill, cut, cut_midway, silence, broker };

/// Faults at chosen shares of the work, in turn.
class Faults {
public:
    Faults(RabbitStage& stage, Seed& seed) : stage_(stage), seed_(seed) {
        add(Fault::kill, 14);
        add(Fault::cut, 8);
        add(Fault::cut_midway, 10);
        add(Fault::silence, 2);
        plan_.push_back({450 + seed_.below(100), Fault::broker, 0});
        std::stable_sort(plan_.begin(), plan_.end(), [](const auto& one, const auto& other) {
            return one.permille < other.permille;
        });
        stage_.produce_at_most(stage_.messages().letters.size() * 65 / 100); // until the broker's
    }

    void run() {
        for (const auto& planned : plan_) {
            const auto all = stage_.messages().good.size();
            const auto due = all * planned.permille / 1'000;
            stage_.await("effects for the next fault", [&] {
                end_silence();
                return stage_.effects() >= due;
            });
            inflict(planned);
        }
        stage_.await("the end of silences", [&] { return end_silence(); });
    }

private:
    struct Planned {
        std::size_t permille;
        Fault fault;
        std::size_t worker;
    };

    void add(Fault fault, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            plan_.push_back({20 + seed_.below(930), fault, i % 2});
        }
    }
    void inflict(const Planned& planned) {
        auto& worker = stage_.workers()[planned.worker];
        std::cout << "  " << stage_.effects() << " of " << stage_.messages().good.size() << ": "
                  << std::flush;
        switch (planned.fault) {
        case Fault::kill:
            std::cout << "kill " << worker.member.incarnation() << std::endl;
            worker.member.kill();
            worker.member.start();
            break;
        case Fault::cut:
            std::cout << "cut the links of " << worker.member.incarnation() << std::endl;
            worker.link->cut();
            break;
        case Fault::cut_midway: {
            const auto bytes = seed_.below(2'000);
            std::cout << "cut the links of " << worker.member.incarnation() << " after " << bytes
                      << " bytes" << std::endl;
            worker.link->cut_after(bytes);
            break;
        }
        case Fault::silence:
            std::cout << "nothing reaches " << worker.member.incarnation() << std::endl;
            worker.link->silence_server();
            silent_[planned.worker] = worker.link->connections();
            break;
        case Fault::broker:
            std::cout << "kill the broker" << std::endl;
            kill_broker();
            break;
        }
    }
    /// Heard again once it has given the silent links up and made another. True: none is silent.
    bool end_silence() {
        std::erase_if(silent_, [this](const auto& silence) {
            auto& link = *stage_.workers()[silence.first].link;
            const bool given_up = link.connections() > silence.second;
            if (given_up) {
                link.resume();
            }
            return given_up;
        });
        return silent_.empty();
    }
    /// The workers live through it, and go on by themselves.
    void kill_broker() {
        stage_.await("the end of silences", [&] { return end_silence(); });
        stage_.produce_all();
        const auto failures = traced(stage_.trace(), trace::source_failed);
        const auto all_pids = pids();
        stage_.server().kill();
        const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(2);
        while (traced(stage_.trace(), trace::source_failed) < failures + 2) {
            if (std::chrono::steady_clock::now() > until) {
                throw std::runtime_error("the workers do not notice that the broker is gone");
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
        stage_.server().start();
        stage_.connect();
        // One message at a time until both are back, or the first that is could do all the work
        // while the other waits for its next try. The broker itself cannot be asked who consumes: a
        // quorum queue goes on counting the consumers that it had before its crash.
        stage_.await("an empty queue", [&] { return stage_.ready() == 0; });
        await_more(20, [this] {
            if (stage_.ready() == 0) {
                stage_.produce_at_most(stage_.produced() + 1);
            }
        });
        stage_.produce_at_most(stage_.messages().letters.size());
        await_more(RabbitOptions{}.prefetch + 44, [] {}); // than it could have had in hand
        EXPECT_EQ(pids(), all_pids) << "a worker was started again";
        std::cout << "  " << stage_.effects() << ": both went on after the broker's restart"
                  << std::endl;
    }
    void await_more(std::size_t more, const std::function<void()>& meanwhile) {
        const auto before = effects();
        stage_.await("effects of both workers after the broker's restart", [&] {
            meanwhile();
            const auto now = effects();
            return now[0] >= before[0] + more && now[1] >= before[1] + more;
        });
    }
    std::vector<pid_t> pids() {
        std::vector<pid_t> all;
        for (auto& worker : stage_.workers()) {
            all.push_back(worker.member.pid());
        }
        return all;
    }
    std::vector<std::size_t> effects() {
        std::vector<std::size_t> all;
        for (auto& worker : stage_.workers()) {
            all.push_back(stage_.effects_of(worker.member));
        }
        return all;
    }

    RabbitStage& stage_;
    Seed& seed_;
    std::vector<Planned> plan_;
    std::map<std::size_t, unsigned> silent_; // connections when it began
};

/// The dead letters, as payload → reason.
std::map<std::string, std::string> reasons(RabbitStage& stage) {
    std::map<std::string, std::string> found;
    for (auto& letter : stage.dead_letters()) {
        EXPECT_EQ(letter.headers["idem-origin"], stage.queue()) << letter.body;
        const auto [at, first] = found.emplace(letter.body, letter.headers["idem-reason"]);
        EXPECT_EQ(at->second, letter.headers["idem-reason"]) << letter.body;
    }
    return found;
}

/// Each good one once; of what conflicts all but the one that took effect are dead letters.
void expect_each_once(RabbitStage& stage) {
    EXPECT_EQ(stage.doubles(), 0U);
    EXPECT_EQ(stage.lost(), 0U);
    EXPECT_EQ(stage.count("SELECT count(*) FROM effect WHERE id = '' OR payload LIKE '% bad'"), 0U);
    std::map<std::string, std::string> expected; // dead letters
    for (const auto& id : stage.messages().bad) {
        expected[id + " bad"] = reason::unprocessable;
    }
    for (const auto& payload : stage.messages().nameless) {
        expected[payload] = reason::invalid_key;
    }
    for (const auto& [id, payloads] : stage.messages().good) {
        if (payloads.size() > 1) {
            const auto first =
                stage.database().run("SELECT payload FROM effect WHERE id = '" + id + "'");
            EXPECT_TRUE(payloads.contains(first)) << id << " took effect as " << first;
            for (const auto& payload : payloads) {
                if (payload != first) {
                    expected[payload] = reason::conflict;
                }
            }
        }
    }
    EXPECT_EQ(reasons(stage), expected);
}

/// Of workers that lost their links again and again: those of three streams, a trace, two links to
/// the broker, the pool of the store.
void expect_few_descriptors(RabbitStage& stage) {
    for (auto& worker : stage.workers()) {
        const auto folder = "/proc/" + std::to_string(worker.member.pid()) + "/fd";
        std::ptrdiff_t count = 0;
        for (const auto& each : std::filesystem::directory_iterator(folder)) {
            count += each.is_symlink() ? 1 : 0;
        }
        EXPECT_LE(count, 20) << worker.member.incarnation();
    }
}

/// On the servers, once the workers are gone.
void expect_nothing_left(RabbitStage& stage) {
    EXPECT_EQ(stage.ready(), 0U);
    EXPECT_EQ(stage.waiting(), 0U);
    EXPECT_EQ(stage.consumers(), 0U) << "nobody has anything unacked";
    EXPECT_EQ(stage.count("SELECT count(*) FROM idem_record WHERE state = 2"),
              stage.messages().good.size());
    EXPECT_EQ(stage.count("SELECT count(*) FROM idem_record WHERE lease_until IS NOT NULL"), 0U);
    EXPECT_EQ(stage.count("SELECT count(*) FROM pg_prepared_xacts"), 0U);
    stage.await("that no session of a worker is left", [&] {
        return stage.count("SELECT count(*) FROM pg_stat_activity WHERE datname = "
                           "current_database() AND pid <> pg_backend_pid()") == 0;
    });
}

TEST_F(RabbitProof, of_20000_messages_each_takes_effect_once_whatever_breaks) {
    Seed seed("RabbitMQ");
    RabbitStage stage(server(), RabbitMessages::mixed(20'000, seed));
    stage.produce(2'000);
    stage.add_worker("table", "singly", {4, 1});
    stage.add_worker("table", "batches", {2, 32});
    Faults(stage, seed).run();
    stage.await_effects(stage.messages().good.size());
    expect_few_descriptors(stage);
    const auto rounds = stage.finish();
    expect_each_once(stage);
    expect_nothing_left(stage);

    const auto count = [&](char what) { return traced(stage.trace(), what); };
    std::cout << "  " << stage.messages().letters.size() << " sent, unconfirmed "
              << stage.unconfirmed() << " time(s); acks " << count(trace::acked)
              << ", dead letters " << count(trace::dead) << ", retries " << count(trace::retried)
              << ", lost " << count(trace::lost) << ", in doubt " << count(trace::in_doubt)
              << "; replayed " << count(trace::replayed) << "; the source failed "
              << count(trace::source_failed) << " times; " << rounds << " round(s) to the end"
              << std::endl;
    EXPECT_GT(count(trace::replayed), stage.messages().resent / 2) << "no duplicate was met";
    EXPECT_GT(count(trace::lost), 0U) << "no delivery outlived its channel";
    EXPECT_GT(count(trace::retried), 0U) << "nothing went through a retry queue";
}

/// Kills the only worker of a plain loop now and then, in the middle of what it does.
void kill_now_and_then(RabbitStage& stage, Seed& seed) {
    stage.produce_all();
    for (std::size_t due = 100; due < 1'900; due += 150 + seed.below(100)) {
        stage.await("effects, or an empty queue",
                    [&] { return stage.effects() >= due || stage.ready() == 0; });
        stage.workers()[0].member.kill();
        stage.workers()[0].member.start();
    }
    stage.finish();
    std::cout << "  " << stage.doubles() << " doubles, " << stage.lost() << " lost" << std::endl;
}

TEST_F(RabbitProof, mutant_effect_then_ack_without_a_record_makes_doubles) {
    Seed seed("RabbitMQ");
    RabbitStage stage(server(), RabbitMessages::plain(2'000));
    stage.produce_all();
    stage.add_worker("effect_then_ack", "plain", {1, 64});
    kill_now_and_then(stage, seed);
    EXPECT_GT(stage.doubles(), 0U);
    EXPECT_EQ(stage.lost(), 0U);
}

TEST_F(RabbitProof, mutant_ack_then_effect_loses) {
    Seed seed("RabbitMQ");
    RabbitStage stage(server(), RabbitMessages::plain(2'000));
    stage.produce_all();
    stage.add_worker("ack_then_effect", "plain", {1, 64});
    kill_now_and_then(stage, seed);
    EXPECT_GT(stage.lost(), 0U); // and doubles where the ack itself was lost with the link
}

} // namespace
} // namespace idem::proof
