// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_PGBOUNCER_HPP
#define IDEM_TESTS_SUPPORT_PGBOUNCER_HPP

// A PgBouncer of the test's own, in transaction mode, before a PostgreSQL server of the test's own.

#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <unistd.h>

#include "child_process.hpp"
#include "postgres_server.hpp"
#include "temporary_directory.hpp"

namespace idem::testing_support {

struct PgBouncerOptions {
    unsigned pool_size = 20; ///< server connections of a database
    unsigned kept_open = 4;  ///< of these, opened ahead
    bool round_robin = true; ///< each transaction on another server connection than the last
};

/// Passes all databases of `server` on. It knows nothing of prepared statements, as before 1.21.
/// PgBouncer refuses root, which becomes the user that the server runs as.
class PgBouncer {
public:
    /// Why there can be none here; empty where there can.
    static std::string missing() {
        if (auto server = PostgresServer::missing(); !server.empty()) {
            return server;
        }
        if (program().empty()) {
            return "PgBouncer is not installed (no /usr/sbin/pgbouncer or /usr/bin/pgbouncer; on "
                   "Debian: apt-get install pgbouncer)";
        }
        return {};
    }

    /// Requires: server.owned().
    explicit PgBouncer(const PostgresServer& server, const PgBouncerOptions& options = {}) {
        if (!server.owned()) {
            throw std::logic_error("PgBouncer stands before a server of the test's own only");
        }
        const auto home = directory_ / "home";
        std::filesystem::create_directory(home);
        ChildOptions child{.output = log(), .directory = home};
        if (::geteuid() == 0) {
            child.user = PostgresServer::other_user();
            if (::chown(home.c_str(), child.user->uid, child.user->gid) != 0) {
                throw std::system_error(errno, std::generic_category(), "chown " + home.string());
            }
        }
        const auto settings = directory_ / "pgbouncer.ini";
        write_settings(settings, server, options, child);
        process_.emplace(std::vector<std::string>{program(), settings.string()}, child);
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (PQping(conninfo("postgres").c_str()) != PQPING_OK) {
            if (std::chrono::steady_clock::now() > until || !process_->running()) {
                throw std::runtime_error("pgbouncer does not start, see " + log().string());
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    }
    PgBouncer(const PgBouncer&) = delete;
    PgBouncer& operator=(const PgBouncer&) = delete;

    /// A connection string for a database of the server.
    [[nodiscard]] std::string conninfo(const std::string& database) const {
        return "host=" + home().string() + " port=6432 user=postgres dbname=" + database;
    }
    [[nodiscard]] std::filesystem::path log() const { return home() / "pgbouncer.log"; }

private:
    static std::string program() {
        for (const char* path : {"/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"}) {
            if (std::filesystem::exists(path)) {
                return path;
            }
        }
        return {};
    }
    [[nodiscard]] std::filesystem::path home() const { return directory_ / "home"; }

    void write_settings(const std::filesystem::path& file,
                        const PostgresServer& server,
                        const PgBouncerOptions& options,
                        const ChildOptions& child) const {
        const std::filesystem::path socket = server.socket();
        std::ofstream out(file);
        out << "[databases]\n"
            << "* = host=" << socket.parent_path().string() << " port=" << server.port()
            << " user=postgres\n"
            << "[pgbouncer]\n"
            << "pool_mode = transaction\n"
            << "auth_type = any\n"
            << "listen_port = 6432\n"
            << "unix_socket_dir = " << home().string() << "\n"
            << "max_client_conn = 500\n"
            << "default_pool_size = " << options.pool_size << "\n"
            << "min_pool_size = " << options.kept_open << "\n"
            << "server_round_robin = " << (options.round_robin ? 1 : 0) << "\n"
            << "server_login_retry = 0.1\n"; // of a server that restarts
        if (prepares(child)) {
            out << "max_prepared_statements = 0\n";
        }
    }
    /// Whether this one, 1.21 or later, can follow prepared statements.
    [[nodiscard]] bool prepares(ChildOptions child) const {
        child.output = home() / "version";
        run_program({program(), "--version"}, child);
        std::ifstream in(child.output);
        std::string name, version;
        in >> name >> version;
        const auto dot = version.find('.');
        const int major = std::stoi(version);
        return major > 1 || (dot != std::string::npos && std::stoi(version.substr(dot + 1)) >= 21);
    }

    TemporaryDirectory directory_;
    std::optional<ChildProcess> process_; // after directory_: ended before its files go
};

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_PGBOUNCER_HPP
