// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_PQ_HPP
#define IDEM_DETAIL_PQ_HPP

// libpq: a connection whose every call has a deadline and travels as one pipeline leg.

#include <idem/detail/nonce.hpp>
#include <idem/detail/pq_leg.hpp>
#include <idem/detail/pq_statement.hpp>
#include <idem/error.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <poll.h>
#include <span>
#include <string>
#include <string_view>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// A connection of ours, or a borrowed one. One thread at a time.
class PqConnection {
public:
    using Clock = std::chrono::steady_clock;
    /// Prepared statements beyond this many are sent unnamed, so that a handler that makes up its
    /// SQL does not fill the server's memory.
    static constexpr std::size_t most_prepared = 256;

    PqConnection(PGconn* connection, bool owned) noexcept
        : connection_(connection)
        , owned_(owned) {}
    PqConnection(PqConnection&& other) noexcept
        : connection_(std::exchange(other.connection_, nullptr))
        , owned_(other.owned_)
        , broken_(other.broken_)
        , process_(other.process_)
        , prefix_(std::move(other.prefix_))
        , names_(other.names_)
        , prepared_(std::move(other.prepared_)) {}
    PqConnection(const PqConnection&) = delete;
    PqConnection& operator=(PqConnection&&) = delete;
    PqConnection& operator=(const PqConnection&) = delete;
    ~PqConnection() { close(); }

    [[nodiscard]] PGconn* native() const noexcept { return connection_; }
    [[nodiscard]] PGTransactionStatusType status() const noexcept {
        return PQtransactionStatus(connection_);
    }
    /// Not to be lent again.
    void set_broken() noexcept { broken_ = true; }
    void forget_prepared() noexcept { prepared_.clear(); }
    /// For a pool: outside a transaction, and not closed by the server while it lay idle.
    [[nodiscard]] bool usable() noexcept {
        if (broken_ || connection_ == nullptr || status() != PQTRANS_IDLE) {
            return false;
        }
        pollfd socket{.fd = PQsocket(connection_), .events = POLLIN, .revents = 0};
        return ::poll(&socket, 1, 0) == 0 || // silence is health; else a notice, or its end
               ((socket.revents & (POLLERR | POLLHUP)) == 0 && PQconsumeInput(connection_) == 1 &&
                PQstatus(connection_) == CONNECTION_OK);
    }

    /// Sends all statements, then waits for all answers: one round trip. `named`: prepare them.
    /// Throws nothing of the server's: see PqLeg.
    /// In a child of fork() nothing is sent: the session is the parent's.
    PqLeg run(std::span<const PqStatement> statements, bool named, Clock::time_point until) {
        PqLeg leg;
        if (broken_ || ::getpid() != process_) {
            lose(leg);
            return leg;
        }
        std::vector<Sent> sent;
        const bool was_blocking = PQisnonblocking(connection_) == 0;
        PQsetnonblocking(connection_, 1);
        if (PQenterPipelineMode(connection_) == 1 && send(statements, named, sent) &&
            PQpipelineSync(connection_) == 1) {
            sent.push_back({sync});
            receive(statements, sent, leg, until);
        } else {
            leg.link_lost = true;
        }
        if (!leg.link_lost && PQexitPipelineMode(connection_) == 1) {
            if (was_blocking) {
                PQsetnonblocking(connection_, 0);
            }
            return leg;
        }
        lose(leg);
        return leg;
    }

private:
    static constexpr std::size_t sync = static_cast<std::size_t>(-1);
    struct Sent {
        std::size_t statement;
        std::optional<PqSql> prepares{}; ///< where it is a Parse, and not an execution
    };

    bool send(std::span<const PqStatement> statements, bool named, std::vector<Sent>& sent) {
        std::vector<const char*> values;
        std::vector<int> lengths, formats;
        for (std::size_t at = 0; at < statements.size(); ++at) {
            const auto& [sql, parameters, binary_result] = statements[at];
            values.clear();
            lengths.clear();
            formats.clear();
            for (const auto& parameter : parameters) {
                values.push_back(parameter.value ? parameter.value->c_str() : nullptr);
                lengths.push_back(parameter.value ? static_cast<int>(parameter.value->size()) : 0);
                formats.push_back(parameter.binary ? 1 : 0);
            }
            const int count = static_cast<int>(parameters.size());
            const std::string* name = nullptr;
            if (named && sql.is_to_be_prepared() && !prepare(sql, at, name, sent)) {
                return false;
            }
            const int done = name != nullptr ? PQsendQueryPrepared(connection_,
                                                                   name->c_str(),
                                                                   count,
                                                                   values.data(),
                                                                   lengths.data(),
                                                                   formats.data(),
                                                                   binary_result ? 1 : 0)
                                             : PQsendQueryParams(connection_,
                                                                 sql.text().c_str(),
                                                                 count,
                                                                 nullptr,
                                                                 values.data(),
                                                                 lengths.data(),
                                                                 formats.data(),
                                                                 binary_result ? 1 : 0);
            if (done != 1) {
                return false;
            }
            sent.push_back({at});
        }
        return true;
    }
    /// Sends a Parse where there was none; null `name`: there are too many to prepare one more. The
    /// names are this connection's own, so that a pooler that hands us the session of another is
    /// noticed at the first statement.
    bool
    prepare(const PqSql& sql, std::size_t at, const std::string*& name, std::vector<Sent>& sent) {
        auto known = prepared_.find(sql);
        if (known == prepared_.end()) {
            if (prepared_.size() >= most_prepared) {
                return true;
            }
            if (prefix_.empty()) {
                prefix_ = "idem_" + hexadecimal(draw_nonce().substr(0, 8)) + "_";
            }
            known = prepared_.emplace(sql, prefix_ + std::to_string(++names_)).first;
            if (PQsendPrepare(connection_, known->second.c_str(), sql.text().c_str(), 0, nullptr) !=
                1) {
                return false;
            }
            sent.push_back({at, sql});
        }
        name = &known->second;
        return true;
    }

    void receive(std::span<const PqStatement> statements,
                 const std::vector<Sent>& sent,
                 PqLeg& leg,
                 Clock::time_point until) {
        leg.results.reserve(statements.size());
        for (const auto& due : sent) {
            PqResult last = next_result(leg, until);
            while (last && PQresultStatus(last.get()) != PGRES_PIPELINE_SYNC) {
                note(due, last, leg);
                last = leg.link_lost ? nullptr : next_result(leg, until);
                if (!last && due.statement == sync && !leg.link_lost) {
                    // Of statements without BEGIN the commit is part of the sync, and failed there.
                    last = next_result(leg, until);
                }
            }
            if (leg.link_lost || PQstatus(connection_) == CONNECTION_BAD) {
                leg.link_lost = true;
                return;
            }
        }
    }
    /// Keeps one result, or the first failure.
    void note(const Sent& due, PqResult& result, PqLeg& leg) {
        switch (PQresultStatus(result.get())) {
        case PGRES_COMMAND_OK:
        case PGRES_TUPLES_OK:
        case PGRES_EMPTY_QUERY:
            if (!due.prepares) {
                leg.results.push_back(std::move(result));
            }
            return;
        default:
            break;
        }
        if (due.prepares) {
            prepared_.erase(*due.prepares);
        }
        if (PQresultStatus(result.get()) == PGRES_PIPELINE_ABORTED) {
            return;
        }
        const auto severity = pq_field(result.get(), PG_DIAG_SEVERITY_NONLOCALIZED);
        if (severity != "ERROR") { // FATAL, PANIC: the server has gone; none: libpq speaks itself
            leg.link_lost = true;
        }
        if (leg.failed || severity.empty()) {
            return;
        }
        leg.failed = due.statement == sync ? std::max(leg.results.size(), std::size_t{1}) - 1
                                           : due.statement;
        leg.sqlstate = pq_field(result.get(), PG_DIAG_SQLSTATE);
        leg.message = pq_field(result.get(), PG_DIAG_MESSAGE_PRIMARY);
        if (const auto detail = pq_field(result.get(), PG_DIAG_MESSAGE_DETAIL); !detail.empty()) {
            leg.message.append(" (").append(detail).append(")");
        }
    }
    /// The next result, or null at the end of a statement's results.
    PqResult next_result(PqLeg& leg, Clock::time_point until) {
        while (PQisBusy(connection_) == 1) {
            const int unsent = PQflush(connection_);
            if (unsent < 0 || !wait(unsent == 1, until, leg)) {
                leg.link_lost = true;
                return nullptr;
            }
            if (PQconsumeInput(connection_) != 1) {
                leg.link_lost = true;
                break; // what the server said before it closed may have arrived
            }
        }
        return PqResult(PQgetResult(connection_));
    }
    bool wait(bool to_write, Clock::time_point until, PqLeg& leg) const {
        pollfd socket{.fd = PQsocket(connection_),
                      .events = static_cast<short>(to_write ? POLLIN | POLLOUT : POLLIN),
                      .revents = 0};
        while (true) {
            const auto left = std::chrono::ceil<milliseconds>(until - Clock::now()).count();
            const int ready = left <= 0 ? 0 : ::poll(&socket, 1, static_cast<int>(left));
            if (ready > 0) {
                return true;
            }
            if (ready == 0) {
                leg.timed_out = true;
                return false;
            }
            if (errno != EINTR) {
                return false;
            }
        }
    }
    /// After an error of transport nothing is known of what the server will still do.
    void lose(PqLeg& leg) {
        leg.link_lost = true;
        broken_ = true;
        if (leg.timed_out) {
            leg.sqlstate = "08006";
            leg.message = "no answer before the deadline";
        } else if (leg.sqlstate.empty()) {
            leg.sqlstate = "08006";
            leg.message =
                connection_ == nullptr ? "the connection is closed" : PQerrorMessage(connection_);
        }
        close();
    }
    /// A borrowed connection is its owner's to close.
    void close() noexcept {
        if (connection_ == nullptr || !owned_) {
            return;
        }
        if (::getpid() != process_) {
            ::close(PQsocket(connection_)); // else PQfinish would end the parent's session
        }
        PQfinish(std::exchange(connection_, nullptr));
    }

    PGconn* connection_;
    bool owned_, broken_ = false;
    pid_t process_ = ::getpid();
    /// Of the names of this connection alone. Where a pooler lends it another session, its first
    /// statement, BEGIN, is not there, before anything has happened; were the names shared, another
    /// connection might have prepared some of them there, and the COMMIT would be missed at last.
    std::string prefix_; ///< of this connection's prepared statements
    unsigned names_ = 0;
    std::unordered_map<PqSql, std::string, PqSql::Hash> prepared_; ///< with their names
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_PQ_HPP
