// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_REDIS_SERVER_HPP
#define IDEM_TESTS_SUPPORT_REDIS_SERVER_HPP

// A Redis server of the test's own: a private unix socket, gone when the test is.

#include <idem/detail/redis_connection.hpp>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "child_process.hpp"
#include "temporary_directory.hpp"

namespace idem::testing_support {

/// A plain connection, for what a test does beside the library.
class RedisSession {
public:
    explicit RedisSession(const std::string& address)
        : connection_(detail::parse_redis_address(address), soon()) {}

    /// Throws on an error reply.
    detail::RedisReply run(std::initializer_list<std::string_view> command) {
        auto reply = connection_.command(command, soon());
        if (reply.value().is_error()) {
            throw std::runtime_error(std::string(reply.value().text()));
        }
        return reply;
    }
    std::string text(std::initializer_list<std::string_view> command) {
        return std::string(run(command).value().text());
    }
    long long number(std::initializer_list<std::string_view> command) {
        return run(command).value().integer();
    }
    /// How often the server ran a command, all clients together.
    long long calls(const std::string& command) {
        const auto info = text({"INFO", "commandstats"});
        const auto at = info.find("cmdstat_" + command + ":calls=");
        return at == std::string::npos ? 0 : std::stoll(info.substr(info.find('=', at) + 1));
    }

private:
    static detail::Deadline soon() {
        return std::chrono::steady_clock::now() + std::chrono::seconds(30);
    }
    detail::RedisConnection connection_;
};

struct RedisServerOptions {
    bool own = false; ///< never the server of IDEM_TEST_REDIS_URL: the test stops or configures it
    bool tcp = false; ///< listen on a free port of the loopback interface too; implies own
    std::vector<std::string> arguments{}; ///< "--maxmemory", "10mb"; implies own
};

/// IDEM_TEST_REDIS_URL names a server to use instead, where a test needs none of its own.
class RedisServer {
public:
    using Options = RedisServerOptions;

    /// Why there can be no server here; empty where there can.
    static std::string missing() {
        return std::getenv("IDEM_TEST_REDIS_URL") != nullptr ? std::string() : missing_program();
    }
    /// The same for a server of the test's own.
    static std::string missing_program() {
        const char* path = std::getenv("PATH");
        std::string rest = path == nullptr ? "" : path;
        while (!rest.empty()) {
            const auto end = std::min(rest.find(':'), rest.size());
            if (std::filesystem::exists(std::filesystem::path(rest.substr(0, end)) /
                                        "redis-server")) {
                return {};
            }
            rest.erase(0, end + 1);
        }
        return "redis-server is not on PATH (on Debian: apt-get install redis-server)";
    }

    explicit RedisServer(Options options = {}) : options_(std::move(options)) {
        const char* url = std::getenv("IDEM_TEST_REDIS_URL");
        if (url != nullptr && !options_.own && !options_.tcp && options_.arguments.empty()) {
            external_ = url;
            return;
        }
        directory_.emplace();
        port_ = options_.tcp ? free_port() : std::uint16_t{0};
        start();
    }
    RedisServer(const RedisServer&) = delete;
    RedisServer& operator=(const RedisServer&) = delete;

    [[nodiscard]] std::string address() const {
        return external_.empty() ? "unix:" + socket().string() : external_;
    }
    /// Requires: Options::tcp.
    [[nodiscard]] std::string tcp_address() const {
        return "redis://127.0.0.1:" + std::to_string(port_);
    }
    [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
    [[nodiscard]] std::filesystem::path socket() const { return *directory_ / "redis.sock"; }
    [[nodiscard]] std::filesystem::path log() const { return *directory_ / "redis.log"; }

    /// Whether the test may stop it.
    [[nodiscard]] bool owned() const noexcept { return external_.empty(); }
    /// As a crash does: what its persistence had not written is lost.
    void kill() {
        server().kill(SIGCONT);
        server().kill(SIGKILL);
        if (!server().wait(std::chrono::seconds(30))) {
            throw std::runtime_error("redis-server does not die");
        }
        process_.reset();
    }
    /// Ready when it returns.
    void start() {
        std::vector<std::string> argv{"redis-server",
                                      "--port",
                                      std::to_string(port_),
                                      "--bind",
                                      "127.0.0.1",
                                      "--unixsocket",
                                      socket().string(),
                                      "--dir",
                                      directory_->path().string(),
                                      "--save",
                                      "",
                                      "--appendonly",
                                      "no"};
        argv.insert(argv.end(), options_.arguments.begin(), options_.arguments.end());
        std::filesystem::remove(socket());
        ChildOptions options;
        options.output = log();
        process_.emplace(argv, options);
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (!ready()) {
            if (std::chrono::steady_clock::now() > until || !process_->running()) {
                throw std::runtime_error("redis-server does not start, see " + log().string());
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }
    void restart() {
        kill();
        start();
    }
    /// It keeps its connections and answers nothing, as a machine that hangs.
    void pause() { server().kill(SIGSTOP); }
    void resume() { server().kill(SIGCONT); }

private:
    /// Whether it answers, an error included: one that asks for a password is ready.
    [[nodiscard]] bool ready() const {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
        detail::StreamSocket probe;
        if (!probe.connect_unix(socket().string(), deadline).empty() ||
            probe.send_some("PING\r\n") != 6 ||
            probe.wait(POLLIN, deadline) != detail::StreamSocket::Ready::yes) {
            return false;
        }
        char answer[64];
        const auto received = probe.receive_some(answer, sizeof answer);
        return received.bytes > 0 &&
               !std::string_view(answer, static_cast<std::size_t>(received.bytes))
                    .starts_with("-LOADING");
    }
    ChildProcess& server() {
        if (!process_) {
            throw std::logic_error("this Redis server is not the test's own, or is stopped");
        }
        return *process_;
    }

    Options options_;
    std::string external_;
    std::optional<TemporaryDirectory> directory_;
    std::uint16_t port_ = 0;
    std::optional<ChildProcess> process_; // after directory_: ended before its files go
};

/// One server for all tests of a program, started by the first that asks.
inline RedisServer& shared_redis() {
    static RedisServer server;
    return server;
}

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_REDIS_SERVER_HPP
