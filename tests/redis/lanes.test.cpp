// SPDX-License-Identifier: MIT
// Many threads on few connections: each gets its own answer, or its own error, whatever befalls the
// connection that it shares.

#include <idem/detail/redis_lanes.hpp>
#include <idem/store/redis_lock.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <variant>
#include <vector>

#include "support/link_proxy.hpp"
#include "support/needs.hpp"
#include "support/redis_server.hpp"
#include "support/temporary_directory.hpp"

namespace {

using namespace idem;
using idem::testing::in_parallel;
using testing_support::LinkProxy;
using testing_support::RedisServer;
using testing_support::RedisSession;

class RedisLanesTest : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(RedisServer::missing_program());
        server_.emplace(RedisServer::Options{.own = true});
    }
    [[nodiscard]] RedisSession session() { return RedisSession(server_->address()); }
    /// Connections of the server, the one that asks included.
    int clients() {
        const auto info = session().text({"INFO", "clients"});
        return std::stoi(std::string(detail::redis_info_field(info, "connected_clients")));
    }
    /// As the loop does: nothing happened, so once more.
    template <class Call>
    static auto until_available(const Call& call) {
        for (;;) {
            try {
                return call();
            } catch (const StoreError& error) {
                if (error.fault() != Fault::unavailable) {
                    throw;
                }
            }
            std::this_thread::sleep_for(milliseconds{1});
        }
    }
    /// A message from claim to duplicate. What it says went wrong; empty: nothing.
    static std::string handle(RedisLockStore& store, const std::string& id) {
        const ClaimRequest asked{.key = {"lanes", id}};
        const auto claim = until_available([&] { return store.claim(asked); });
        const auto* mine = std::get_if<0>(&claim);
        if (mine == nullptr || mine->attempt != 1) {
            return "not claimed, or not at first: " + id;
        }
        if (until_available([&] { return store.complete(mine->ticket, "result of " + id); }) !=
            TicketState::valid) {
            return "outdated: " + id;
        }
        const auto again = until_available([&] { return store.claim(asked); });
        const auto* done = std::get_if<Completed>(&again);
        return done != nullptr && done->result == "result of " + id ? "" : "another's: " + id;
    }
    /// `count` messages on each of `threads`.
    static void handle_all(RedisLockStore& store, unsigned threads, int count) {
        in_parallel(threads, [&](unsigned thread) {
            for (int number = 0; number < count; ++number) {
                EXPECT_EQ(handle(store, std::to_string(thread) + "-" + std::to_string(number)), "");
            }
        });
    }
    /// Runs `disturb(session)` again and again until `work` is done.
    template <class Work, class Disturb>
    void while_disturbed(const Work& work, const Disturb& disturb) {
        std::jthread other([&](const std::stop_token& stop) {
            auto beside = session();
            while (!stop.stop_requested()) {
                disturb(beside);
                std::this_thread::sleep_for(milliseconds{2});
            }
        });
        work();
    }

    std::optional<RedisServer> server_;
};

TEST_F(RedisLanesTest, many_threads_share_the_connections_and_each_gets_its_own_answer) {
    for (const unsigned looks : {0U, 60U}) {
        session().run({"FLUSHALL"});
        RedisLockStore store(server_->address(), {.deadline = seconds{20}, .looks = looks});
        handle_all(store, 16, 100);
        EXPECT_LE(clients(), 3) << "two, and this look";
        EXPECT_EQ(session().number({"DBSIZE"}), 1'600);
    }
}

TEST_F(RedisLanesTest, commands_of_many_travel_together) {
    LinkProxy proxy(server_->socket());
    RedisLockStore store("unix:" + proxy.socket(), {.deadline = seconds{20}});
    handle_all(store, 16, 50);
    EXPECT_LT(proxy.trips(), 16U * 50 * 3) << "one by one each message takes three";
}

TEST_F(RedisLanesTest, one_connection_serves_all) {
    RedisLockStore store(server_->address(), {.connections = 1, .deadline = seconds{20}});
    handle_all(store, 8, 100);
    EXPECT_EQ(clients(), 2);
}

TEST_F(RedisLanesTest, r2_2_connections_cut_in_mid_work_cost_no_answer_and_no_attempt) {
    for (const std::size_t connections : {1U, 2U}) {
        session().run({"FLUSHALL"});
        RedisLockStore store(server_->address(),
                             {.connections = connections, .deadline = seconds{60}});
        const auto before = session().number({"CLIENT", "ID"});
        while_disturbed([&] { handle_all(store, 8, 150); },
                        [](RedisSession& beside) {
                            beside.run({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
                        });
        EXPECT_GT(session().number({"CLIENT", "ID"}), before + 4) << "they were cut";
        EXPECT_EQ(session().number({"DBSIZE"}), 1'200);
    }
}

TEST_F(RedisLanesTest, scripts_forgotten_in_mid_work_are_loaded_again) {
    RedisLockStore store(server_->address(), {.deadline = seconds{60}});
    while_disturbed([&] { handle_all(store, 8, 150); },
                    [](RedisSession& beside) {
                        beside.run({"SCRIPT", "FLUSH"});
                    });
}

TEST_F(RedisLanesTest, the_error_of_one_is_not_the_error_of_those_beside_it) {
    RedisLockStore store(server_->address(), {.deadline = seconds{20}});
    const Key bad{"lanes", "bad"};
    session().run({"RPUSH", detail::redis_key("idem", bad), "theirs"});
    std::atomic<int> rejected{0};
    in_parallel(8, [&](unsigned thread) {
        for (int number = 0; number < 100; ++number) {
            if (thread % 2 == 0) {
                EXPECT_EQ(handle(store, std::to_string(thread) + "-" + std::to_string(number)), "");
            } else {
                try {
                    static_cast<void>(store.claim({.key = bad}));
                } catch (const StoreError& error) {
                    rejected += error.fault() == Fault::rejected ? 1 : 0;
                }
            }
        }
    });
    EXPECT_EQ(rejected, 400);
}

TEST_F(RedisLanesTest, r2_4_nobody_outlives_the_deadline_of_a_server_that_hangs) {
    RedisLockStore store(server_->address(), {.deadline = milliseconds{300}});
    handle_all(store, 4, 1);
    server_->pause();
    std::atomic<int> in_doubt{0}, unavailable{0};
    const auto begin = std::chrono::steady_clock::now();
    in_parallel(16, [&](unsigned thread) {
        const auto id = "hung-" + std::to_string(thread);
        try {
            static_cast<void>(store.claim({.key = {"lanes", id}}));
            ADD_FAILURE() << "it answered";
        } catch (const StoreError& error) {
            in_doubt += error.fault() == Fault::in_doubt ? 1 : 0;
            unavailable += error.fault() == Fault::unavailable ? 1 : 0;
        }
    });
    EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds{10}) << "for a slow machine";
    server_->resume();
    EXPECT_EQ(in_doubt + unavailable, 16);
    EXPECT_GE(in_doubt, 1) << "what was sent";
    for (int number = 0; number < 16; ++number) { // what never was sent is not there
        const auto claim = store.claim({.key = {"lanes", "hung-" + std::to_string(number)}});
        unavailable -= claim.index() == 0 ? 1 : 0;
    }
    EXPECT_LE(unavailable, 0) << "unavailable: nothing happened";
}

TEST_F(RedisLanesTest, r2_4_a_restart_in_mid_work_is_survived) {
    RedisServer durable({.arguments = {"--appendonly", "yes", "--appendfsync", "always"}});
    RedisLockStore store(durable.address(), {.deadline = seconds{60}});
    std::jthread working([&] { handle_all(store, 8, 100); });
    durable.restart(); // by this thread: the server does not outlive the one that started it
    working.join();
    EXPECT_EQ(RedisSession(durable.address()).number({"DBSIZE"}), 800);
}

/// Greets every client; answers none but those that come after the first.
class HalfHungServer {
public:
    HalfHungServer() : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        const auto path = (directory_ / "half.sock").string();
        std::memcpy(address.sun_path, path.data(), path.size());
        EXPECT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address),
                  0);
        EXPECT_EQ(::listen(listener_, 8), 0);
        thread_ = std::jthread([this] {
            hung_ = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
            greet(hung_);
            char bytes[4'096];
            EXPECT_GT(::read(hung_, bytes, sizeof bytes), 0);
            hangs_ = true;
            const int other = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
            greet(other);
            for (ssize_t size = 0; (size = ::read(other, bytes, sizeof bytes)) > 0;) {
                for (ssize_t at = 0; at < size; ++at) {
                    if (bytes[at] == '*') {
                        say(other, "+PONG\r\n");
                    }
                }
            }
            ::close(hung_);
            ::close(other);
        });
    }
    HalfHungServer(const HalfHungServer&) = delete;
    HalfHungServer& operator=(const HalfHungServer&) = delete;
    ~HalfHungServer() {
        thread_ = {};
        ::close(listener_);
    }
    [[nodiscard]] detail::RedisAddress address() const {
        return detail::parse_redis_address("unix:" + (directory_ / "half.sock").string());
    }

    void end_hang() { ::shutdown(hung_, SHUT_RDWR); }
    void await_hang() const {
        while (!hangs_) {
            std::this_thread::yield();
        }
    }

private:
    static void say(int client, std::string_view text) {
        EXPECT_GT(::send(client, text.data(), text.size(), MSG_NOSIGNAL), 0);
    }
    static void greet(int client) {
        char bytes[1'024];
        EXPECT_GT(::read(client, bytes, sizeof bytes), 0);
        say(client, "*2\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n");
    }
    testing_support::TemporaryDirectory directory_;
    int listener_;
    std::atomic<int> hung_{-1};
    std::atomic<bool> hangs_{false};
    std::jthread thread_;
};

TEST(RedisLanes, a_lane_that_does_not_come_back_holds_nobody_but_those_on_it) {
    HalfHungServer server;
    std::optional<detail::RedisLanes> lanes(std::in_place, server.address(), 2, 0);
    detail::RedisPipeline ping;
    ping.append({"PING"});
    std::atomic<bool> over{false};
    std::jthread on_the_first([&] {
        EXPECT_THROW(lanes->exchange(ping, std::chrono::steady_clock::now() + seconds{20}),
                     StoreError);
        over = true;
    });
    server.await_hang();
    std::atomic<int> answered{0};
    in_parallel(8, [&](unsigned) {
        for (int number = 0; number < 20; ++number) {
            const auto replies =
                lanes->exchange(ping, std::chrono::steady_clock::now() + seconds{15});
            answered += (*replies[0]).text() == "PONG" ? 1 : 0;
        }
    });
    EXPECT_EQ(answered, 160);
    EXPECT_FALSE(over) << "they did not wait for it";
    server.end_hang();
    on_the_first.join();
    lanes.reset(); // the server's end
}

} // namespace
