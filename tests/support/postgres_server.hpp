// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_POSTGRES_SERVER_HPP
#define IDEM_TESTS_SUPPORT_POSTGRES_SERVER_HPP

// A PostgreSQL server of the test's own: a private unix socket, gone when the test is.

#include <libpq-fe.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <pwd.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "child_process.hpp"
#include "temporary_directory.hpp"

namespace idem::testing_support {

/// A plain connection, for what a test does beside the library.
class PostgresSession {
public:
    explicit PostgresSession(const std::string& conninfo)
        : connection_(PQconnectdb(conninfo.c_str())) {
        if (PQstatus(connection_) != CONNECTION_OK) {
            const std::string why = PQerrorMessage(connection_);
            PQfinish(connection_);
            throw std::runtime_error(why);
        }
        PQsetNoticeProcessor(
            connection_, [](void*, const char*) {}, nullptr);
    }
    PostgresSession(const PostgresSession&) = delete;
    PostgresSession& operator=(const PostgresSession&) = delete;
    ~PostgresSession() { PQfinish(connection_); }

    [[nodiscard]] PGconn* native() const noexcept { return connection_; }
    /// The first column of the first row, "" where there is none. Throws on an error.
    std::string run(const std::string& sql) {
        const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQexec(connection_, sql.c_str()),
                                                                   &PQclear);
        const auto status = PQresultStatus(result.get());
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
            throw std::runtime_error(PQerrorMessage(connection_));
        }
        return PQntuples(result.get()) == 0 ? "" : PQgetvalue(result.get(), 0, 0);
    }
    long number(const std::string& sql) { return std::stol(run(sql)); }

private:
    PGconn* connection_;
};

struct PostgresServerOptions {
    bool tcp = false;                    ///< listen on a free port of the loopback interface too
    std::vector<std::string> settings{}; ///< "name=value"
};

/// IDEM_TEST_POSTGRES_URL names a server to use instead; its role must be allowed to create
/// databases, and restart() and stop() throw. Root becomes the user postgres (or nobody), as initdb
/// refuses root. fsync is off: a killed process loses nothing by it.
class PostgresServer {
public:
    using Options = PostgresServerOptions;

    /// Why there can be no server here; empty where there can.
    static std::string missing() {
        if (std::getenv("IDEM_TEST_POSTGRES_URL") != nullptr || !programs().empty()) {
            return {};
        }
        return "PostgreSQL is not installed (no /usr/lib/postgresql/*/bin/initdb, none on PATH; on "
               "Debian: apt-get install postgresql) and IDEM_TEST_POSTGRES_URL is not set";
    }

    explicit PostgresServer(Options options = {}) : options_(std::move(options)) {
        if (const char* url = std::getenv("IDEM_TEST_POSTGRES_URL"); url != nullptr) {
            external_ = url;
            return;
        }
        directory_.emplace();
        port_ = options_.tcp ? free_port() : std::uint16_t{5432};
        const auto home = *directory_ / "home";
        std::filesystem::create_directory(home);
        if (::geteuid() == 0) {
            user_ = other_user();
            if (::chown(home.c_str(), user_->uid, user_->gid) != 0) {
                throw std::system_error(errno, std::generic_category(), "chown " + home.string());
            }
        }
        run_program({programs() / "initdb",
                     "--pgdata=" + (home / "data").string(),
                     "--username=postgres",
                     "--auth=trust",
                     "--no-sync",
                     "--no-locale",
                     "--encoding=UTF8"},
                    child("initdb.log"));
        start();
    }
    PostgresServer(const PostgresServer&) = delete;
    PostgresServer& operator=(const PostgresServer&) = delete;

    /// A connection string for a database of it.
    [[nodiscard]] std::string conninfo(const std::string& database = "postgres") const {
        if (!external_.empty()) {
            return with_database(external_, database);
        }
        return "host=" + socket_directory() + " port=" + std::to_string(port_) +
               " user=postgres dbname=" + database;
    }
    /// The same by TCP. Requires: Options::tcp.
    [[nodiscard]] std::string tcp_conninfo(const std::string& database = "postgres") const {
        return "host=127.0.0.1 port=" + std::to_string(port_) + " user=postgres dbname=" + database;
    }
    [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
    /// Of the unix socket. Requires: owned().
    [[nodiscard]] std::string socket() const {
        return socket_directory() + "/.s.PGSQL." + std::to_string(port_);
    }

    /// A fresh, empty database; returns its connection string.
    std::string create_database() {
        const std::string name =
            "idem_" + std::to_string(::getpid()) + "_" + std::to_string(++databases_);
        PostgresSession session(conninfo());
        session.run("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)");
        session.run("CREATE DATABASE " + name);
        return conninfo(name);
    }

    /// Whether the test may stop it.
    [[nodiscard]] bool owned() const noexcept { return external_.empty(); }
    /// Clients are cut off, what was committed stays: an immediate shutdown, as after a crash.
    void stop() {
        server().kill(SIGQUIT);
        if (!server().wait(std::chrono::seconds(30))) {
            throw std::runtime_error("postgres does not stop, see " + log().string());
        }
        process_.reset();
    }
    /// Ready when it returns.
    void start() {
        std::vector<std::string> argv{programs() / "postgres", "-D", (home() / "data").string()};
        std::vector<std::string> settings{"unix_socket_directories=" + socket_directory(),
                                          "listen_addresses=" +
                                              std::string(options_.tcp ? "127.0.0.1" : ""),
                                          "port=" + std::to_string(port_),
                                          "fsync=off",
                                          "shared_buffers=16MB",
                                          "max_connections=100",
                                          "max_prepared_transactions=4"};
        settings.insert(settings.end(), options_.settings.begin(), options_.settings.end());
        for (const auto& setting : settings) {
            argv.emplace_back("-c");
            argv.push_back(setting);
        }
        auto options = child("postgres.log");
        options.end_signal = SIGQUIT;
        process_.emplace(argv, options);
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (PQping(conninfo().c_str()) != PQPING_OK) {
            if (std::chrono::steady_clock::now() > until || !process_->running()) {
                throw std::runtime_error("postgres does not start, see " + log().string());
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    }
    void restart() {
        stop();
        start();
    }
    [[nodiscard]] std::filesystem::path log() const { return home() / "postgres.log"; }

    /// `conninfo` with another database in it.
    static std::string with_database(const std::string& conninfo, const std::string& database) {
        char* error = nullptr;
        PQconninfoOption* const parsed = PQconninfoParse(conninfo.c_str(), &error);
        if (parsed == nullptr) {
            throw std::runtime_error(error == nullptr ? "out of memory" : error);
        }
        std::string result;
        for (auto* option = parsed; option->keyword != nullptr; ++option) {
            if (option->val != nullptr && std::string(option->keyword) != "dbname") {
                result += std::string(option->keyword) + "='";
                for (const char* at = option->val; *at != '\0'; ++at) {
                    result += *at == '\'' || *at == '\\' ? "\\" : "";
                    result += *at;
                }
                result += "' ";
            }
        }
        PQconninfoFree(parsed);
        return result + "dbname='" + database + "'";
    }

    /// Whom a server runs as where the test is root.
    static User other_user() {
        for (const char* name : {"postgres", "nobody"}) {
            if (const passwd* entry = ::getpwnam(name); entry != nullptr) {
                return {entry->pw_uid, entry->pw_gid};
            }
        }
        throw std::runtime_error(
            "initdb refuses root, and there is neither a user postgres nor nobody");
    }

private:
    /// The newest server's programs, or those on PATH; empty where there are none.
    static std::filesystem::path programs() {
        namespace fs = std::filesystem;
        int newest = 0;
        fs::path found;
        std::error_code ignored;
        for (const auto& entry : fs::directory_iterator("/usr/lib/postgresql", ignored)) {
            const int version = std::atoi(entry.path().filename().c_str());
            if (version > newest && fs::exists(entry.path() / "bin/initdb")) {
                newest = version;
                found = entry.path() / "bin";
            }
        }
        const char* path = std::getenv("PATH");
        std::string rest = path == nullptr ? "" : path;
        while (found.empty() && !rest.empty()) {
            const auto end = std::min(rest.find(':'), rest.size());
            if (const fs::path folder = rest.substr(0, end); fs::exists(folder / "initdb")) {
                found = folder;
            }
            rest.erase(0, end + 1);
        }
        return found;
    }
    [[nodiscard]] std::filesystem::path home() const { return *directory_ / "home"; }
    [[nodiscard]] std::string socket_directory() const { return home().string(); }
    [[nodiscard]] ChildOptions child(const std::string& log) const {
        ChildOptions options;
        options.output = home() / log;
        options.directory = home();
        options.user = user_;
        return options;
    }
    ChildProcess& server() {
        if (!process_) {
            throw std::logic_error("this PostgreSQL server is not the test's own, or is stopped");
        }
        return *process_;
    }

    Options options_;
    std::string external_;
    std::optional<TemporaryDirectory> directory_;
    std::optional<User> user_;
    std::uint16_t port_ = 0;
    unsigned databases_ = 0;
    std::optional<ChildProcess> process_; // after directory_: ended before its files go
};

/// One server for all tests of a program, started by the first that asks.
inline PostgresServer& shared_postgres() {
    static PostgresServer server;
    return server;
}

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_POSTGRES_SERVER_HPP
