// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_CONNECT_HPP
#define IDEM_DETAIL_POSTGRES_CONNECT_HPP

// Opening a connection before a deadline, and saying why it could not be.

#include <idem/detail/postgres_errors.hpp>
#include <idem/detail/pq.hpp>

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0::detail {

struct PqOptionsEnd {
    void operator()(PQconninfoOption* options) const noexcept { PQconninfoFree(options); }
};

/// Makes the connections of a pool.
class PostgresConnector {
public:
    using Clock = PqConnection::Clock;

    /// `writable`: only a server that takes writes, so not a standby.
    explicit PostgresConnector(std::string conninfo, bool writable = true)
        : conninfo_(std::move(conninfo))
        , writable_(writable) {}

    /// Throws: StoreError, unavailable or rejected. A password is never in its text.
    /// The name of a host is looked up by the system's resolver, which knows no deadline of ours.
    PqConnection operator()(Clock::time_point until) const {
        if (!readable()) {
            throw StoreError(Fault::rejected, unreadable());
        }
        PGconn* const raw = start(until);
        PqConnection connection(raw, true);
        if (raw == nullptr) {
            throw StoreError(Fault::unavailable, "idem: out of memory");
        }
        PQsetErrorVerbosity(raw, PQERRORS_VERBOSE); // shows the SQLSTATE of a refusal
        PQsetNoticeProcessor(
            raw, [](void*, const char*) {}, nullptr);
        if (PQstatus(raw) == CONNECTION_BAD) {
            refuse(raw); // before anything was sent: an immediate failure, or wrong options
        }
        const bool in_time = poll_until_open(raw, until);
        if (PQstatus(raw) != CONNECTION_OK) {
            if (!in_time) {
                throw StoreError(Fault::unavailable,
                                 "idem: cannot connect to PostgreSQL (" + target() +
                                     "): no answer before the deadline");
            }
            refuse(raw);
        }
        PQsetErrorVerbosity(raw, PQERRORS_DEFAULT);
        return connection;
    }

    /// The same server even where it takes no writes.
    [[nodiscard]] PostgresConnector to_any_server() const {
        return PostgresConnector(conninfo_, false);
    }

    /// Host, port, database and user of the connection string: what a message may show.
    [[nodiscard]] std::string target() const {
        const std::unique_ptr<PQconninfoOption, PqOptionsEnd> options(
            PQconninfoParse(conninfo_.c_str(), nullptr));
        std::string text;
        for (const auto* option = options.get(); option != nullptr && option->keyword != nullptr;
             ++option) {
            const std::string_view name = option->keyword;
            const bool shown = name == "host" || name == "hostaddr" || name == "port" ||
                               name == "dbname" || name == "user" || name == "service";
            if (shown && option->val != nullptr) {
                text.append(text.empty() ? "" : " ").append(name).append("=").append(option->val);
            }
        }
        return text.empty() ? "the default server" : text;
    }

private:
    [[nodiscard]] PGconn* start(Clock::time_point until) const {
        // A vanished host is noticed by the kernel too, should nobody be polling. What the
        // connection string says comes later, and wins.
        const auto patience =
            std::to_string(std::chrono::ceil<milliseconds>(until - Clock::now()).count());
        const char* const names[] = {"fallback_application_name",
                                     "tcp_user_timeout",
                                     "target_session_attrs",
                                     "dbname",
                                     nullptr};
        const char* const values[] = {
            "idem", patience.c_str(), writable_ ? "read-write" : "any", conninfo_.c_str(), nullptr};
        return PQconnectStartParams(names, values, 1);
    }

    static bool poll_until_open(PGconn* connection, Clock::time_point until) {
        auto wants = PGRES_POLLING_WRITING; // as PQconnectPoll's manual asks for the first time
        while (wants == PGRES_POLLING_WRITING || wants == PGRES_POLLING_READING) {
            pollfd socket{.fd = PQsocket(connection),
                          .events =
                              static_cast<short>(wants == PGRES_POLLING_WRITING ? POLLOUT : POLLIN),
                          .revents = 0};
            const auto left = std::chrono::ceil<milliseconds>(until - Clock::now()).count();
            const int ready = left <= 0 ? 0 : ::poll(&socket, 1, static_cast<int>(left));
            if (ready == 0) {
                return false;
            }
            if (ready > 0) {
                wants = PQconnectPoll(connection);
            }
        }
        return true;
    }

    [[noreturn]] void refuse(PGconn* connection) const {
        const std::string said = PQerrorMessage(connection);
        const auto sqlstate = sqlstate_in(said);
        if (!sqlstate.empty()) {
            throw store_error(sqlstate, first_line(said), "cannot connect (" + target() + ")");
        }
        if (never_tried()) {
            throw StoreError(Fault::rejected,
                             "idem: libpq refuses an option of the connection string (" + target() +
                                 "): " + first_line(said));
        }
        throw StoreError(Fault::unavailable,
                         "idem: cannot connect to PostgreSQL (" + target() +
                             "): " + first_line(said));
    }
    [[nodiscard]] bool readable() const {
        return std::unique_ptr<PQconninfoOption, PqOptionsEnd>(
                   PQconninfoParse(conninfo_.c_str(), nullptr)) != nullptr;
    }
    /// Shows the string where it can hold no password.
    [[nodiscard]] std::string unreadable() const {
        const std::string text = "idem: the connection string of PostgresStore is neither a URI "
                                 "(postgresql://user@host/database) nor a list of keyword=value";
        const bool secret = conninfo_.find("pass") != std::string::npos ||
                            conninfo_.find("PASS") != std::string::npos ||
                            conninfo_.find('@') != std::string::npos;
        return secret ? text + " (not shown, as it may hold a password)"
                      : text + ": \"" + conninfo_ + "\"";
    }
    /// Whether libpq did not even try, because of the options it was given.
    [[nodiscard]] bool never_tried() const {
        const char* const names[] = {"dbname", "connect_timeout", nullptr};
        const char* const values[] = {conninfo_.c_str(), "2", nullptr};
        return PQpingParams(names, values, 1) == PQPING_NO_ATTEMPT;
    }
    /// libpq has no call for the SQLSTATE of a refused connection; PQERRORS_VERBOSE writes it as
    /// "SEVERITY:  SQLSTATE: message", the severity in the server's language. The last one counts:
    /// several hosts may have been tried.
    static std::string sqlstate_in(std::string_view text) {
        std::string found;
        for (auto at = text.find(":  "); at != std::string_view::npos;
             at = text.find(":  ", at + 1)) {
            const auto code = text.substr(at + 3, 5);
            bool plain = code.size() == 5 && text.substr(at + 8, 2) == ": ";
            for (const char c : code) {
                plain = plain && ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'));
            }
            if (plain) {
                found = code;
            }
        }
        return found;
    }
    static std::string first_line(const std::string& text) {
        return text.substr(0, text.find('\n'));
    }

    std::string conninfo_;
    bool writable_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_CONNECT_HPP
