// SPDX-License-Identifier: MIT
#ifndef IDEM_STORE_POSTGRES_HPP
#define IDEM_STORE_POSTGRES_HPP

// Records in a table of PostgreSQL, written in the handler's own transaction.

#include <idem/dedup_store.hpp>
#include <idem/detail/postgres_schema_check.hpp>
#include <idem/detail/postgres_transaction.hpp>
#include <idem/strategy/strategy.hpp>

#include <memory>
#include <string>
#include <utility>

namespace idem::inline v0 {

/// A table of records, and a pool of connections to it. For DedupTable: record and effect commit
/// together. It outlives its transactions.
///
/// The server's clock alone judges retention. The role needs SELECT, INSERT, UPDATE and DELETE on
/// the table, and USAGE on its sequence. Behind a pooler in transaction mode it works as it is: a
/// prepared statement that is not there makes it go on without.
///
/// Concurrency: every member may be called from any number of threads. In a child of fork() every
/// call throws std::logic_error: make a store there.
class PostgresStore {
public:
    using Transaction = PostgresTransaction;
    static constexpr Durability durability = Durability::machine;

    /// `conninfo`: a URI or keyword=value list as libpq reads it. Connects at first use and checks
    /// nothing; verify() does.
    /// Throws: std::invalid_argument for an option out of its range.
    explicit PostgresStore(std::string conninfo, PostgresOptions options = {})
        : core_(std::move(conninfo), std::move(options)) {}

    /// The statements that make the table, for those who apply them by their own tool.
    [[nodiscard]] static std::string schema_sql(const PostgresOptions& options = {}) {
        detail::require_postgres_table(options.table);
        return detail::with_table(detail::postgres_schema, options.table);
    }
    /// Makes the table where it is missing. Any number of instances may call it at once.
    void migrate() { detail::migrate(core_, schema_sql(core_.options())); }
    /// Throws: StoreError rejected, naming all that is wrong: schema, privileges, a standby,
    /// synchronous_commit = off, an unlogged table, a server too old.
    void verify() { detail::verify(core_); }

    /// Cost: none on the wire; a connection, where the pool has none idle.
    /// Throws: StoreError unavailable where no connection came free in time.
    [[nodiscard]] Transaction begin() {
        return Transaction(std::make_unique<detail::PostgresWork>(core_));
    }
    /// A savepoint in the transaction that `connection` has open, set by the first claim. commit()
    /// releases it, rollback() returns to it; COMMIT is the user's, and so is the connection after
    /// its link broke. Statements travel unprepared.
    /// Throws: std::logic_error where it has no open transaction.
    [[nodiscard]] Transaction join(pg_conn* connection) {
        return Transaction(std::make_unique<detail::PostgresWork>(core_, connection));
    }

    /// Best effort. Waits for an owner of the key a second at most. Cost: one trip.
    void record_failure(const ClaimRequest& request, std::string_view why) noexcept;

    /// Cost: one trip.
    [[nodiscard]] Claim<std::monostate> peek(const ClaimRequest& request);

private:
    detail::PostgresCore core_;
};

inline void PostgresStore::record_failure(const ClaimRequest& request,
                                          std::string_view why) noexcept {
    try {
        require_valid(request.key);
        const auto& sql = core_.sql();
        const auto patience = std::min(core_.options().deadline / 2, milliseconds{1'000});
        static_cast<void>(core_.run_alone(
            {{.sql = sql.begin},
             {.sql = sql.lock_timeout, .parameters = {detail::number_parameter(patience.count())}},
             {.sql = sql.wait_for_lock,
              .parameters = {detail::number_parameter(core_.lock_of(request.key))}},
             {.sql = sql.failure,
              .parameters = {detail::bytes_parameter(request.key.scope),
                             detail::bytes_parameter(request.key.id),
                             detail::fingerprint_parameter(request.fingerprint),
                             detail::algorithm_parameter(request.fingerprint),
                             detail::number_parameter(detail::retention_seconds(request.retention)),
                             detail::number_parameter(static_cast<int>(request.max_attempts)),
                             {.value = detail::plain_note(why)}}},
             {.sql = sql.commit}}));
    } catch (...) { // an attempt that could not be counted is not counted
    }
}

inline Claim<std::monostate> PostgresStore::peek(const ClaimRequest& request) {
    require_valid(request.key);
    const auto leg = core_.run_alone({{.sql = core_.sql().read,
                                       .parameters = {detail::bytes_array({request.key.scope}),
                                                      detail::bytes_array({request.key.id})},
                                       .binary_result = true}});
    if (!leg.ok()) {
        throw detail::store_error(leg.sqlstate, leg.message, "looking up a key");
    }
    if (PQntuples(leg.results[0].get()) == 0) {
        return Claimed<std::monostate>{};
    }
    return detail::judge(detail::PostgresRecord(detail::PqBinaryRow(leg.results[0].get(), 0)),
                         request);
}

static_assert(PeekingStore<PostgresStore>);
static_assert(JoinableStore<PostgresStore, pg_conn*>);
static_assert(BatchTransaction<PostgresTransaction>);

} // namespace idem::inline v0

#endif // IDEM_STORE_POSTGRES_HPP
