// SPDX-License-Identifier: MIT
// The connection and the scripts below the stores: deadlines, broken links, error codes.

#include <idem/detail/redis_record_scripts.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "support/needs.hpp"
#include "support/redis_server.hpp"
#include "support/temporary_directory.hpp"

namespace {

using namespace idem;
using namespace idem::detail;
using testing_support::RedisServer;
using testing_support::RedisSession;
using testing_support::shared_redis;

Deadline in(milliseconds time) {
    return std::chrono::steady_clock::now() + time;
}

/// Greets one client as Redis 7 does, then does what the test says.
class FakeServer {
public:
    explicit FakeServer(std::function<void(int)> then,
                        std::string greeting = "*2\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n")
        : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        const auto path = (directory_ / "fake.sock").string();
        std::memcpy(address.sun_path, path.data(), path.size());
        EXPECT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address),
                  0);
        EXPECT_EQ(::listen(listener_, 1), 0);
        thread_ = std::jthread([this, then = std::move(then), greeting = std::move(greeting)] {
            const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
            char bytes[1'024];
            static_cast<void>(!::read(client, bytes, sizeof bytes));
            say(client, greeting);
            static_cast<void>(!::read(client, bytes, sizeof bytes));
            then(client);
            ::close(client);
        });
    }
    FakeServer(const FakeServer&) = delete;
    FakeServer& operator=(const FakeServer&) = delete;
    ~FakeServer() {
        thread_ = {};
        ::close(listener_);
    }
    [[nodiscard]] RedisAddress address() const {
        return parse_redis_address("unix:" + (directory_ / "fake.sock").string());
    }
    static bool say(int client, std::string_view text) {
        return ::send(client, text.data(), text.size(), MSG_NOSIGNAL) > 0;
    }

private:
    testing_support::TemporaryDirectory directory_;
    int listener_;
    std::jthread thread_;
};

Fault fault_of(RedisConnection& connection, milliseconds deadline) {
    try {
        static_cast<void>(connection.command({"GET", "k"}, in(deadline)));
    } catch (const StoreError& error) {
        return error.fault();
    }
    ADD_FAILURE() << "it answered";
    return Fault::rejected;
}

TEST(RedisConnection, r2_4_a_dripping_answer_does_not_outlive_the_deadline) {
    FakeServer server([](int client) { // each byte in time, the whole never
        FakeServer::say(client, "$1000000\r\n");
        while (FakeServer::say(client, "x")) {
            std::this_thread::sleep_for(milliseconds{5});
        }
    });
    RedisConnection connection(server.address(), in(seconds{20}));
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(fault_of(connection, milliseconds{200}), Fault::in_doubt);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds{10});
    EXPECT_TRUE(connection.broken());
    EXPECT_FALSE(connection.usable());
    EXPECT_EQ(fault_of(connection, milliseconds{200}), Fault::in_doubt) << "broken for good";
}

TEST(RedisConnection, r2_4_an_answer_cut_short_is_in_doubt) {
    FakeServer server([](int client) { FakeServer::say(client, "$10\r\nhalf"); });
    RedisConnection connection(server.address(), in(seconds{20}));
    EXPECT_EQ(fault_of(connection, seconds{20}), Fault::in_doubt);
    EXPECT_TRUE(connection.broken());
}

TEST(RedisConnection, an_answer_that_is_no_protocol_is_in_doubt) {
    FakeServer server([](int client) { FakeServer::say(client, "HTTP/1.1 400 Bad Request\r\n"); });
    RedisConnection connection(server.address(), in(seconds{20}));
    EXPECT_EQ(fault_of(connection, seconds{20}), Fault::in_doubt);
}

TEST(RedisConnection, a_server_below_7_0_is_rejected_when_it_greets) {
    FakeServer server([](int) {}, "*2\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n");
    try {
        const RedisConnection connection(server.address(), in(seconds{20}));
        ADD_FAILURE() << "accepted";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::rejected);
        EXPECT_NE(std::string(error.what()).find("6.2.14; 7.0 or later"), std::string::npos);
    }
}

TEST(RedisPatience, looking_stops_where_it_is_in_vain_and_begins_again) {
    RedisPatience patience(60);
    unsigned looked = 0;
    for (int trip = 0; trip < 5'000; ++trip) {
        if (patience.looks() > 0) {
            ++looked;
            patience.missed();
        }
    }
    EXPECT_GE(looked, 10U) << "now and then it tries";
    EXPECT_LE(looked, 20U);
    while (patience.looks() == 0) {
    }
    patience.found();
    for (int trip = 0; trip < 100; ++trip) {
        EXPECT_EQ(patience.looks(), 60U);
        patience.found();
    }
    EXPECT_EQ(RedisPatience(0).looks(), 0U);
}

TEST(RedisConnection, one_that_the_server_closed_meanwhile_is_not_used_again) {
    IDEM_TEST_NEEDS(RedisServer::missing_program());
    RedisServer server({.own = true});
    RedisConnection connection(parse_redis_address(server.address()), in(seconds{20}));
    EXPECT_TRUE(connection.usable());
    server.restart();
    EXPECT_FALSE(connection.usable());
}

TEST(RedisConnection, any_bytes_and_pipelines) {
    IDEM_TEST_NEEDS(RedisServer::missing());
    RedisConnection connection(parse_redis_address(shared_redis().address()), in(seconds{20}));
    const std::string bytes("\0\r\n$5\r\n\xff", 8);
    for (int i = 0; i < 5'000; ++i) {
        connection.append({"ECHO", bytes + std::to_string(i)});
    }
    EXPECT_FALSE(connection.usable()) << "answers are due";
    for (int i = 0; i < 5'000; ++i) {
        EXPECT_EQ(connection.read(in(seconds{20})).value().text(), bytes + std::to_string(i));
    }
    EXPECT_EQ(connection.pending(), 0U);
    EXPECT_TRUE(connection.usable());
    const std::string large(5'000'000, 'x');
    EXPECT_EQ(connection.command({"ECHO", large}, in(seconds{20})).value().text(), large);
    const auto nested =
        connection.command({"EVAL", "return {1, {'a'}, false}", "0"}, in(seconds{20}));
    EXPECT_EQ((*nested).size(), 3U);
    EXPECT_EQ((*nested)[0].integer(), 1);
    EXPECT_EQ((*nested)[1][0].text(), "a");
    EXPECT_TRUE((*nested)[2].is_nil());
    EXPECT_TRUE((*nested)[3].is_nil()) << "past the end";
}

TEST(RedisError, the_first_word_decides) {
    const std::vector<std::pair<std::string, Fault>> table{
        {"OOM command not allowed", Fault::unavailable},
        {"READONLY You can't write", Fault::unavailable},
        {"LOADING Redis is loading", Fault::unavailable},
        {"BUSY Redis is busy", Fault::unavailable},
        {"MASTERDOWN Link", Fault::unavailable},
        {"NOREPLICAS Not enough", Fault::unavailable},
        {"MISCONF Redis is configured", Fault::unavailable},
        {"MOVED 3999 127.0.0.1:6381", Fault::rejected},
        {"ASK 3999 127.0.0.1:6381", Fault::rejected},
        {"CROSSSLOT Keys in request", Fault::rejected},
        {"CLUSTERDOWN", Fault::rejected},
        {"TRYAGAIN", Fault::rejected},
        {"WRONGTYPE Operation", Fault::rejected},
        {"NOAUTH Authentication required.", Fault::rejected},
        {"WRONGPASS invalid", Fault::rejected},
        {"NOPERM this user", Fault::rejected},
        {"ERR OOM is only prose here", Fault::rejected},
        {"TOMORROW knows more", Fault::rejected},
        {"", Fault::rejected},
    };
    for (const auto& [text, fault] : table) {
        const auto error = redis_error("host:1", text);
        EXPECT_EQ(error.fault(), fault) << text;
        EXPECT_NE(std::string(error.what()).find("host:1"), std::string::npos);
    }
}

TEST(RedisScript, sha1_gives_the_published_vectors) {
    const auto digest = [](std::string_view text) {
        const auto digits = sha1(text);
        return std::string(digits.begin(), digits.end());
    };
    EXPECT_EQ(digest(""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    EXPECT_EQ(digest("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    EXPECT_EQ(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    EXPECT_EQ(digest(std::string(1'000'000, 'a')), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
}

TEST(RedisScript, the_server_keeps_each_under_the_name_computed_here) {
    IDEM_TEST_NEEDS(RedisServer::missing());
    RedisSession session(shared_redis().address());
    for (const auto* script : {&redis_claim_script,
                               &redis_replace_script,
                               &redis_replace_each_script,
                               &redis_renew_script}) {
        const auto digits = sha1(script->text());
        EXPECT_EQ(session.text({"SCRIPT", "LOAD", script->text()}),
                  std::string(digits.begin(), digits.end()));
    }
}

TEST(RedisScript, one_that_may_not_be_loaded_says_why) {
    IDEM_TEST_NEEDS(RedisServer::missing_program());
    RedisServer server({.own = true});
    RedisSession(server.address())
        .run({"ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all", "-script|load"});
    RedisConnection connection(parse_redis_address("unix:bob:pw@" + server.socket().string()),
                               in(seconds{20}));
    const auto one = redis_renew_script.run(connection, {"k", "a", "1"}, in(seconds{20}));
    EXPECT_EQ(one.value().code(), "NOPERM") << one.value().text();
    const auto many = redis_renew_script.run_all(
        connection,
        2,
        [](std::size_t) {
            return std::vector<std::string_view>{"k", "a", "1"};
        },
        in(seconds{20}));
    EXPECT_EQ(many[0].value().code(), "NOPERM");
    EXPECT_TRUE(connection.usable());
}

} // namespace
