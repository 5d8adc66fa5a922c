// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_CORE_HPP
#define IDEM_DETAIL_POSTGRES_CORE_HPP

// What a store and its transactions share: options, statements, pool.

#include <idem/detail/connection_pool.hpp>
#include <idem/detail/postgres_connect.hpp>
#include <idem/detail/postgres_errors.hpp>
#include <idem/detail/postgres_fence_statements.hpp>
#include <idem/detail/postgres_record.hpp>
#include <idem/detail/postgres_statements.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// Of the transactions that the store begins for handlers. Above read_committed the server refuses
/// what would not fit, with 40001, and DedupTable runs the handler again (DedupTable::reruns).
enum class PostgresIsolation { read_committed, repeatable_read, serializable };

struct PostgresOptions {
    /// name or schema.name; with a schema no handler's search_path can hide it. All programs over
    /// one table must write it alike: it is part of the lock that stands for a key.
    std::string table = "idem_record";
    std::size_t connections = 8;  ///< one for each handler in flight
    milliseconds deadline{5'000}; ///< of each call, of connecting, of waiting for the pool
    bool prepared = true;         ///< false behind a transaction pooler without prepared statements
    milliseconds max_handler_time{
        300'000}; ///< of a statement of the handler, and of idling between two
    PostgresIsolation isolation = PostgresIsolation::read_committed;
};

namespace detail {

class PostgresCore {
public:
    using Clock = PqConnection::Clock;
    using Pool = ConnectionPool<PostgresConnector>;

    PostgresCore(std::string conninfo, PostgresOptions options)
        : options_(checked(std::move(options)))
        , sql_(options_.table)
        , fence_sql_(options_.table)
        , connect_(std::move(conninfo))
        , pool_(connect_, options_.connections, options_.deadline, "PostgresOptions::connections")
        , renewals_(connect_, 1, options_.deadline, "the one connection for renewals")
        , prepared_(options_.prepared) {}
    PostgresCore(const PostgresCore&) = delete;
    PostgresCore& operator=(const PostgresCore&) = delete;

    [[nodiscard]] const PostgresOptions& options() const noexcept { return options_; }
    [[nodiscard]] const PostgresStatements& sql() const noexcept { return sql_; }
    [[nodiscard]] const PostgresFenceStatements& fence_sql() const noexcept { return fence_sql_; }
    /// What begins a handler's transaction.
    [[nodiscard]] const PqSql& begin() const noexcept {
        switch (options_.isolation) {
        case PostgresIsolation::repeatable_read:
            return sql_.begin_repeatable_read;
        case PostgresIsolation::serializable:
            return sql_.begin_serializable;
        case PostgresIsolation::read_committed:
            break;
        }
        return sql_.begin;
    }
    [[nodiscard]] const PostgresConnector& connector() const noexcept { return connect_; }
    [[nodiscard]] Pool& pool() noexcept { return pool_; }
    /// A connection that no handler holds, so that leases are renewed while all others are lent.
    [[nodiscard]] Pool& renewals() noexcept { return renewals_; }
    [[nodiscard]] Clock::time_point deadline() const { return Clock::now() + options_.deadline; }
    [[nodiscard]] std::int64_t lock_of(const Key& key) const {
        return advisory_lock_of(options_.table, key);
    }
    /// Of a fence row: of other bytes than any key's.
    [[nodiscard]] std::int64_t fence_lock_of(std::string_view scope,
                                             std::string_view partition) const {
        return advisory_lock_of(options_.table + "_offset", {scope, partition});
    }

    [[nodiscard]] bool prepared() const noexcept { return prepared_; }
    /// From here on nothing is prepared: a pooler changes the sessions under us.
    void stop_preparing() noexcept { prepared_ = false; }

    /// Runs what is complete in itself on a connection of its own, one trip. A failed leg changed
    /// nothing. Single statements want READ COMMITTED, as they must see what is committed: where
    /// the role's default is stricter, the first to fail by it makes all later ones say so.
    PqLeg run_alone(const std::vector<PqStatement>& statements) {
        return run_alone(statements, pool_, options_.deadline);
    }
    PqLeg run_alone(const std::vector<PqStatement>& statements, Pool& pool, milliseconds patience) {
        auto connection = pool.take();
        auto leg = run_on(*connection, statements, patience);
        for (int again = 0; again < 3 && leg.failed && !leg.link_lost; ++again) {
            if (connection->status() != PQTRANS_IDLE) {
                static_cast<void>(connection->run(
                    std::vector<PqStatement>{{.sql = sql_.rollback}}, false, deadline()));
            }
            const bool strict = leg.sqlstate == "40001" && statements.size() == 1;
            if (!strict && !is_unprepared(leg.sqlstate)) {
                break;
            }
            strict ? says_isolation_ = true : prepared_ = false;
            leg = run_on(*connection, statements, patience);
        }
        return leg;
    }

    /// Runs one statement under `lock`, which it waits for as long as `patience`: 55P03 where it was
    /// not had. One trip.
    PqLeg run_under_lock(std::int64_t lock, PqStatement statement, milliseconds patience) {
        return run_alone(
            {{.sql = sql_.begin},
             {.sql = sql_.lock_timeout, .parameters = {number_parameter(patience.count())}},
             {.sql = sql_.wait_for_lock, .parameters = {number_parameter(lock)}},
             std::move(statement),
             {.sql = sql_.commit}});
    }
    PqLeg run_under_lock(const Key& key, PqStatement statement, milliseconds patience) {
        return run_under_lock(lock_of(key), std::move(statement), patience);
    }
    static constexpr std::size_t change_under_lock = 3; ///< among the results of run_under_lock()
    /// For what is not worth waiting for a handler's end.
    [[nodiscard]] milliseconds short_patience() const {
        return std::min(options_.deadline / 2, milliseconds{1'000});
    }

    enum class Committed { yes, no, unknown };
    /// Whether the transaction that claimed `key` under `nonce` committed, after the link broke
    /// while it did. Absence proves nothing while the old session may still be at it, so the key's
    /// lock is had first (semantics.md 2.1).
    /// Cost: one trip, and a connection perhaps.
    Committed did_commit(const Key& key, const std::string& nonce) noexcept {
        try {
            auto leg = run_under_lock(key,
                                      {.sql = sql_.did_commit,
                                       .parameters = {bytes_parameter(key.scope),
                                                      bytes_parameter(key.id),
                                                      bytes_parameter(nonce)},
                                       .binary_result = true},
                                      options_.deadline / 4 * 3);
            if (leg.ok()) {
                return PqBinaryRow(leg.results[change_under_lock].get(), 0).number(0) == 1
                           ? Committed::yes
                           : Committed::no;
            }
        } catch (...) { // what cannot be asked is not known
        }
        return Committed::unknown;
    }

    /// The same of the transaction that moved a fence row to `offset`.
    Committed did_advance(std::string_view scope,
                          std::string_view partition,
                          std::int64_t offset,
                          const std::string& nonce) noexcept {
        try {
            auto leg = run_under_lock(fence_lock_of(scope, partition),
                                      {.sql = fence_sql_.did_commit,
                                       .parameters = {bytes_parameter(scope),
                                                      bytes_parameter(partition),
                                                      bytes_parameter(nonce),
                                                      number_parameter(offset)},
                                       .binary_result = true},
                                      options_.deadline / 4 * 3);
            if (leg.ok()) {
                const auto* rows = leg.results[change_under_lock].get();
                if (PQntuples(rows) == 0) {
                    return Committed::no;
                }
                const PqBinaryRow row(rows, 0);
                return row.is_null(0) ? Committed::unknown
                       : row.flag(0)  ? Committed::yes
                                      : Committed::no;
            }
        } catch (...) { // what cannot be asked is not known
        }
        return Committed::unknown;
    }

    /// Keys claimed in transactions that users have open, and not yet completed: the lock is
    /// re-entrant, so it does not tell a nested claim.
    class Joined {
    public:
        [[nodiscard]] bool holds(const PGconn* connection, std::int64_t lock) const {
            const std::lock_guard guard(mutex_);
            for (const auto& [holder, held] : held_) {
                if (holder == connection && held == lock) {
                    return true;
                }
            }
            return false;
        }
        void add(const PGconn* connection, std::int64_t lock) {
            const std::lock_guard guard(mutex_);
            held_.emplace_back(connection, lock);
        }
        void remove(const PGconn* connection, std::int64_t lock) noexcept {
            const std::lock_guard guard(mutex_);
            for (auto& entry : held_) {
                if (entry == std::pair(connection, lock)) {
                    std::swap(entry, held_.back());
                    held_.pop_back();
                    return;
                }
            }
        }

    private:
        mutable std::mutex mutex_;
        std::vector<std::pair<const PGconn*, std::int64_t>> held_;
    };
    [[nodiscard]] Joined& joined() noexcept { return joined_; }

private:
    PqLeg run_on(PqConnection& connection,
                 const std::vector<PqStatement>& statements,
                 milliseconds patience) const {
        const auto until = Clock::now() + patience;
        if (statements.size() > 1 || !says_isolation_) {
            return connection.run(statements, prepared_, until);
        }
        const std::vector<PqStatement> said{
            {.sql = sql_.begin}, statements.front(), {.sql = sql_.commit}};
        auto leg = connection.run(said, prepared_, until);
        if (leg.ok()) {
            leg.results.erase(leg.results.begin());
        }
        return leg;
    }
    static PostgresOptions checked(PostgresOptions&& options) {
        require_postgres_table(options.table);
        if (options.deadline <= milliseconds{0} || options.max_handler_time <= milliseconds{0}) {
            throw std::invalid_argument("idem: PostgresOptions::deadline and max_handler_time must "
                                        "be greater than 0");
        }
        return std::move(options);
    }

    PostgresOptions options_;
    PostgresStatements sql_;
    PostgresFenceStatements fence_sql_;
    PostgresConnector connect_;
    Pool pool_, renewals_;
    std::atomic<bool> prepared_;
    std::atomic<bool> says_isolation_{false};
    Joined joined_;
};

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_DETAIL_POSTGRES_CORE_HPP
