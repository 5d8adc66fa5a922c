// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_RABBITMQ_SERVER_HPP
#define IDEM_TESTS_SUPPORT_RABBITMQ_SERVER_HPP

// A RabbitMQ server of the test's own: free ports of the loopback interface, gone when the test is.

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "child_process.hpp"
#include "rabbitmq_session.hpp"
#include "temporary_directory.hpp"

namespace idem::testing_support {

struct RabbitServerOptions {
    bool own =
        false; ///< never the server of IDEM_TEST_RABBITMQ_URL: the test stops or configures it
    std::vector<std::string> configuration{}; ///< lines of rabbitmq.conf; implies own
    /// After which the broker closes the channel of an unacked delivery; it looks each second. 0:
    /// the server's default, which is looked at each minute. Implies own.
    std::chrono::milliseconds consumer_timeout{0};
};

/// IDEM_TEST_RABBITMQ_URL names a server to use instead, where a test needs none of its own.
class RabbitServer {
public:
    using Options = RabbitServerOptions;

    /// Why there can be no server here; empty where there can.
    static std::string missing() {
        return std::getenv("IDEM_TEST_RABBITMQ_URL") != nullptr ? std::string() : missing_program();
    }
    /// The same for a server of the test's own.
    static std::string missing_program() {
        for (const std::string& program : {script("rabbitmq-server"), epmd()}) {
            if (!std::filesystem::exists(program)) {
                return program + " is not there (on Debian: apt-get install rabbitmq-server)";
            }
        }
        return {};
    }

    explicit RabbitServer(Options options = {}) : options_(std::move(options)) {
        const char* url = std::getenv("IDEM_TEST_RABBITMQ_URL");
        if (url != nullptr && !options_.own && options_.configuration.empty() &&
            options_.consumer_timeout.count() == 0) {
            external_ = url;
            return;
        }
        directory_.emplace();
        port_ = free_port();
        distribution_port_ = free_port();
        epmd_port_ = free_port();
        write_configuration();
        start_epmd();
        start();
    }
    RabbitServer(const RabbitServer&) = delete;
    RabbitServer& operator=(const RabbitServer&) = delete;

    [[nodiscard]] std::string address() const {
        return external_.empty() ? address_at(port_) : external_;
    }
    /// As address(), where something that listens there passes the bytes on.
    [[nodiscard]] static std::string address_at(std::uint16_t port) {
        return "amqp://guest:guest@127.0.0.1:" + std::to_string(port) + "/%2f";
    }
    [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
    [[nodiscard]] std::filesystem::path log() const { return *directory_ / "output"; }
    /// Whether the test may stop it.
    [[nodiscard]] bool owned() const noexcept { return external_.empty(); }

    /// As a crash does: transient messages are lost, persistent ones that were confirmed are not.
    /// But a quorum queue that was declared less than a second before is dead after the restart:
    /// its name was not written down yet.
    void kill() {
        server().kill(SIGCONT);
        server().kill(SIGKILL);
        if (!server().wait(std::chrono::seconds(30))) {
            throw std::runtime_error("rabbitmq-server does not die");
        }
        process_.reset();
    }
    /// Ready when it returns: it accepts a connection, and opens its virtual host.
    void start() {
        ChildOptions options;
        options.environment = environment();
        options.output = log();
        // The script replaces itself by the server only if the server may read its input, which
        // -noinput then takes from it: the child is the server itself, not a shell that waits.
        process_.emplace(std::vector<std::string>{script("rabbitmq-server"), "-noinput"}, options);
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(120);
        while (!RabbitSession::answers(address())) {
            if (std::chrono::steady_clock::now() > until || !process_->running()) {
                throw std::runtime_error("rabbitmq-server does not start, see " + log().string());
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    }
    void restart() {
        kill();
        start();
    }
    /// It keeps its connections and answers nothing, as a machine that hangs.
    void pause() { server().kill(SIGSTOP); }
    void resume() { server().kill(SIGCONT); }

    /// rabbitmqctl, which takes some seconds; for what no client can ask of a broker.
    void control(const std::vector<std::string>& arguments) {
        std::vector<std::string> argv{script("rabbitmqctl"), "--node", node()};
        argv.insert(argv.end(), arguments.begin(), arguments.end());
        ChildOptions options;
        options.environment = environment();
        options.output = *directory_ / "control";
        run_program(argv, options, std::chrono::seconds(120));
    }

private:
    static std::string script(const std::string& name) {
        const char* root = std::getenv("IDEM_RABBITMQ"); // a directory with sbin/
        return (root != nullptr ? std::string(root) + "/sbin/" : "/usr/lib/rabbitmq/bin/") + name;
    }
    static std::string epmd() {
        const char* path = std::getenv("PATH");
        std::string rest = path == nullptr ? "" : path;
        while (!rest.empty()) {
            const auto end = std::min(rest.find(':'), rest.size());
            auto program = std::filesystem::path(rest.substr(0, end)) / "epmd";
            if (std::filesystem::exists(program)) {
                return program.string();
            }
            rest.erase(0, end + 1);
        }
        return "/usr/bin/epmd";
    }
    [[nodiscard]] std::string node() const { return "idem" + std::to_string(port_) + "@localhost"; }
    void write_configuration() {
        std::ofstream(*directory_ / "enabled_plugins") << "[].\n";
        std::ofstream file(*directory_ / "rabbitmq.conf");
        file << "listeners.tcp.local = 127.0.0.1:" << port_ << '\n'
             << "log.console = true\nlog.console.level = warning\nlog.file = false\n";
        if (options_.consumer_timeout.count() > 0) {
            file << "consumer_timeout = " << options_.consumer_timeout.count() << '\n';
        }
        for (const auto& line : options_.configuration) {
            file << line << '\n';
        }
    }
    [[nodiscard]] std::map<std::string, std::string> environment() const {
        const auto path = [this](const char* name) { return (*directory_ / name).string(); };
        const std::string tick =
            options_.consumer_timeout.count() > 0 ? " -rabbit channel_tick_interval 1000" : "";
        return {{"HOME", directory_->path().string()}, // with its cookie
                {"RABBITMQ_NODENAME", node()},
                {"RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1"},
                {"RABBITMQ_NODE_PORT", std::to_string(port_)},
                {"RABBITMQ_DIST_PORT", std::to_string(distribution_port_)},
                {"ERL_EPMD_PORT", std::to_string(epmd_port_)},
                {"ERL_EPMD_ADDRESS", "127.0.0.1"},
                {"ERL_AFLAGS", "-start_epmd false"}, // it is ours, or it would outlive the test
                {"RABBITMQ_MNESIA_BASE", path("mnesia")},
                {"RABBITMQ_LOG_BASE", path("log")},
                {"RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")},
                {"RABBITMQ_CONFIG_FILE", path("rabbitmq")},
                {"RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced")},
                {"RABBITMQ_PID_FILE", path("pid")},
                {"RABBITMQ_CONF_ENV_FILE", "/dev/null"},
                {"RABBITMQ_ALLOW_INPUT", "1"},
                {"LANG", "C.UTF-8"},
                {"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                 "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}" + tick}};
    }
    /// Erlang's own directory of nodes, which the server would otherwise leave behind.
    void start_epmd() {
        ChildOptions options;
        options.output = *directory_ / "epmd";
        epmd_.emplace(
            std::vector<std::string>{
                epmd(), "-port", std::to_string(epmd_port_), "-address", "127.0.0.1"},
            options);
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (!listens(epmd_port_) || !epmd_->running()) {
            if (std::chrono::steady_clock::now() > until || !epmd_->running()) {
                throw std::runtime_error("epmd does not start, see " + options.output.string());
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }
    static bool listens(std::uint16_t port) {
        const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        const bool found =
            ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
        ::close(socket);
        return found;
    }
    ChildProcess& server() {
        if (!process_) {
            throw std::logic_error("this RabbitMQ server is not the test's own, or is stopped");
        }
        return *process_;
    }

    Options options_;
    std::string external_;
    std::optional<TemporaryDirectory> directory_;
    std::uint16_t port_ = 0, distribution_port_ = 0, epmd_port_ = 0;
    std::optional<ChildProcess> epmd_, process_; // after directory_: ended before its files go
};

/// One server for all tests of a program, started by the first that asks.
inline RabbitServer& shared_rabbit() {
    static RabbitServer server;
    return server;
}

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_RABBITMQ_SERVER_HPP
