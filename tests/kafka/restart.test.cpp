// SPDX-License-Identifier: MIT
// The broker dies, hangs, and comes back: the loop goes on by itself.
#include <idem/idem.hpp>

#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "kafka_test.hpp"

namespace idem::kafka_tests {
namespace {

struct Failures final : Observer {
    void on(const Event&) noexcept override {}
    void source_failed(const StoreError& error) noexcept override {
        rejected = rejected || error.fault() == Fault::rejected;
    }
    std::atomic<bool> rejected{false};
};

/// A run() of its own thread over MemoryStore, counting effects by payload.
class Worker {
public:
    explicit Worker(const KafkaOptions& options)
        : thread_([this, options](std::stop_token stop) {
            try {
                KafkaSource source(options);
                const auto bill =
                    consumer_.wrap("billing", delivery_id, [this](const KafkaMessage& message) {
                        if (message.payload() == "bad") {
                            throw Unprocessable("bad");
                        }
                        const std::scoped_lock lock(mutex_);
                        ++effects_[text(message)];
                    });
                run(source, bill, std::move(stop), {.concurrency = 2, .observer = &failures_});
            } catch (const std::exception& error) {
                ADD_FAILURE() << error.what();
            }
        }) {}
    [[nodiscard]] bool reaches(std::size_t count) {
        const auto until = std::chrono::steady_clock::now() + 2 * patience;
        while (size() < count) {
            if (std::chrono::steady_clock::now() > until) {
                return false;
            }
            std::this_thread::sleep_for(5ms);
        }
        return true;
    }
    std::map<std::string, int> end() {
        thread_.request_stop();
        thread_.join();
        EXPECT_FALSE(failures_.rejected);
        return effects_;
    }

private:
    std::size_t size() {
        const std::scoped_lock lock(mutex_);
        return effects_.size();
    }
    MemoryStore store_;
    IdempotentConsumer<MemoryStore, DistributedLock> consumer_{store_, DistributedLock{}};
    Failures failures_;
    std::mutex mutex_;
    std::map<std::string, int> effects_;
    std::jthread thread_;
};

TEST(KafkaRestart, the_loop_recovers_by_itself_and_each_effect_happens_once) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    KafkaServer server;
    Topic topic(2, server);
    topic.write(100, 0);
    topic.write(100, 1, 100);
    Worker worker(topic.options());
    ASSERT_TRUE(worker.reaches(200));
    server.restart();
    topic.producer.write({.topic = topic.name, .payload = "bad"});
    topic.write(100, 0, 200);
    topic.write(100, 1, 300);
    EXPECT_TRUE(worker.reaches(400));
    const auto effects = worker.end();
    EXPECT_EQ(effects.size(), 400U);
    for (const auto& [id, count] : effects) {
        EXPECT_EQ(count, 1) << id;
    }
    EXPECT_EQ(topic.committed(0), 201);
    EXPECT_EQ(topic.committed(1), 200);
    EXPECT_EQ(topic.dead().size(), 1U);
}

TEST(KafkaRestart, a_dead_letter_waits_for_the_broker_and_nothing_passes_it) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    KafkaServer server;
    Topic topic(1, server);
    topic.write(1);
    auto options = topic.options();
    options.deadline = 500ms;
    KafkaSource source(options);
    auto all = receive(source, 1);
    ASSERT_EQ(all.size(), 1U);
    server.kill();
    const auto letter = settlement(Action::dead_letter, reason::dead);
    try {
        static_cast<void>(source.settle(all[0], letter));
        FAIL() << "who has it?";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::unavailable) << error.what();
    }
    server.start();
    auto settled = Settled::in_doubt;
    const auto until = std::chrono::steady_clock::now() + patience;
    while (settled == Settled::in_doubt && std::chrono::steady_clock::now() < until) {
        try {
            settled = source.settle(all[0], letter);
        } catch (const StoreError& error) {
            ASSERT_EQ(error.fault(), Fault::unavailable) << error.what();
        }
    }
    if (settled ==
        Settled::yes) { // else the group had given it to nobody meanwhile: it comes again
        EXPECT_GE(topic.dead().size(), 1U);
    }
    EXPECT_NE(settled, Settled::in_doubt);
}

TEST(KafkaRestart, a_source_ends_while_the_broker_is_down) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    KafkaServer server;
    Topic topic(1, server);
    topic.write(1);
    auto options = topic.options();
    options.deadline = 500ms;
    auto source = std::make_unique<KafkaSource>(options);
    {
        auto all = receive(*source, 1);
        ASSERT_EQ(all.size(), 1U);
        EXPECT_EQ(source->settle(all[0], settlement(Action::ack)), Settled::yes);
    }
    server.kill();
    const auto began = std::chrono::steady_clock::now();
    source.reset();
    EXPECT_LT(std::chrono::steady_clock::now() - began, 40s);
}

TEST(KafkaRestart, a_broker_that_hangs_delays_and_loses_nothing) {
    IDEM_TEST_NEEDS(KafkaServer::missing());
    KafkaServer server;
    Topic topic(1, server);
    topic.write(50);
    Worker worker(topic.options());
    ASSERT_TRUE(worker.reaches(50));
    server.pause();
    std::this_thread::sleep_for(4s); // longer than the session
    server.resume();
    topic.write(50, 0, 50);
    EXPECT_TRUE(worker.reaches(100));
    // The group may have given its member up meanwhile: then it joins anew, and commits after that.
    const auto until = std::chrono::steady_clock::now() + patience;
    while (topic.committed() != 100 && std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_for(20ms);
    }
    EXPECT_EQ(topic.committed(), 100);
    for (const auto& [id, count] : worker.end()) {
        EXPECT_EQ(count, 1) << id;
    }
}

} // namespace
} // namespace idem::kafka_tests
