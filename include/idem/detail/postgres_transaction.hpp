// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_TRANSACTION_HPP
#define IDEM_DETAIL_POSTGRES_TRANSACTION_HPP

// What a handler is given: the open transaction.

#include <idem/detail/postgres_work.hpp>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0 {

/// The rows that a statement answered. Views into them are good while they live.
class PostgresRows {
public:
    explicit PostgresRows(detail::PqResult result) : result_(std::move(result)) {}

    [[nodiscard]] std::size_t size() const noexcept {
        return static_cast<std::size_t>(PQntuples(result_.get()));
    }
    /// How many rows an INSERT, UPDATE, DELETE or MERGE changed, or a SELECT answered.
    [[nodiscard]] std::uint64_t affected() const noexcept {
        return detail::rows_changed(result_.get());
    }
    /// As the server writes it; a bytea as PQunescapeBytea reads it. Nothing for NULL.
    /// Throws: std::out_of_range.
    [[nodiscard]] std::optional<std::string_view> text(std::size_t row, std::size_t column) const& {
        if (row >= size() || column >= static_cast<std::size_t>(PQnfields(result_.get()))) {
            throw std::out_of_range("idem: PostgresRows has no row " + std::to_string(row) +
                                    ", column " + std::to_string(column));
        }
        const int r = static_cast<int>(row), c = static_cast<int>(column);
        if (PQgetisnull(result_.get(), r, c) == 1) {
            return std::nullopt;
        }
        return std::string_view(PQgetvalue(result_.get(), r, c),
                                static_cast<std::size_t>(PQgetlength(result_.get(), r, c)));
    }
    /// Of rows that are about to go: `auto name = tx.execute(...).text(0, 0)` owns its text.
    [[nodiscard]] std::optional<std::string> text(std::size_t row, std::size_t column) && {
        const auto view = std::as_const(*this).text(row, column);
        return view ? std::optional<std::string>(*view) : std::nullopt;
    }

private:
    detail::PqResult result_;
};

/// An open transaction that holds a claim and the handler's writes: both commit, or neither.
/// Ours is READ COMMITTED, on a connection of the store's pool; one that a user has open is joined
/// by a savepoint. A store call that fails throws StoreError, a statement of the handler's
/// PostgresError.
/// Concurrency: one thread at a time.
/// Cost: of one message 2 trips and those of the handler, one for each execute(): [BEGIN, record]
/// and [result, COMMIT]. A void result writes no second version of the record. A duplicate costs 2:
/// [BEGIN, record] and [ROLLBACK, read].
class PostgresTransaction {
public:
    /// The handler's own statement. Its parameters $1 … are text, numbers, bool, bytes (a span of
    /// std::byte) or std::optional of these; their types are the server's to infer.
    /// Throws: PostgresError; std::logic_error for one that begins, ends or splits the transaction,
    /// or a COPY; std::invalid_argument for text with a NUL. Nothing is sent then.
    /// Cost: one trip, however many statements were posted before it.
    template <class... Values>
    PostgresRows execute(std::string_view sql, const Values&... values) {
        const bool session = detail::require_handler_sql(sql);
        return PostgresRows(work_->execute(statement(sql, values...), session));
    }
    /// Sent with the next execute() or the commit; its error comes out of that.
    /// Throws: as execute(), but PostgresError.
    /// Cost: no trip of its own.
    template <class... Values>
    void post(std::string_view sql, const Values&... values) {
        const bool session = detail::require_handler_sql(sql);
        work_->post(statement(sql, values...), session);
    }
    /// The connection, for what libpq can do beside. The handler must leave it in the same open
    /// transaction, idle; a transaction that it ended all the same is found before the commit, and
    /// its message counts as failed. Serialization failures on it are not seen: no rerun.
    /// Cost: one trip now, to mark the record as open; a trip after the transaction, to reset the
    /// session.
    [[nodiscard]] pg_conn* native() { return work_->native(); }

    Claim<std::monostate> claim(const ClaimRequest& request) { return work_->claim(request); }
    /// Takes all locks without waiting, and reads; writes nothing. Cost: one trip.
    std::vector<Claim<std::monostate>> claim(std::span<const ClaimRequest> requests) {
        return work_->claim(requests);
    }
    /// Moves the fence row of a partition to this offset (FencedTransaction).
    /// Throws: StoreError; std::invalid_argument past the limits. Cost: one trip.
    Claim<std::monostate> advance(std::string_view scope, const Position& position) {
        return work_->advance(scope, position);
    }
    /// Travels with the commit.
    void complete(const ClaimRequest& request, std::string_view result) {
        work_->complete(request, result);
    }
    void complete(std::span<const ClaimRequest> requests, std::span<const std::string> results) {
        if (requests.size() != results.size()) {
            throw std::invalid_argument("idem: complete() of " + std::to_string(requests.size()) +
                                        " keys with " + std::to_string(results.size()) +
                                        " results");
        }
        for (std::size_t at = 0; at < requests.size(); ++at) {
            work_->complete(requests[at], results[at]);
        }
    }
    /// Travels with the next statement.
    void savepoint() { work_->savepoint(); }
    void back_to_savepoint() { work_->back_to_savepoint(); }

    /// Throws: StoreError, in doubt only after reading back; PostgresError and std::logic_error for
    /// the handler's own failure.
    /// Cost: one trip; a connection and a trip more where the link broke.
    void commit() { work_->commit(); }
    void rollback() noexcept {
        if (work_) {
            work_->rollback();
        }
    }
    /// Serialization failure, deadlock, link lost before the commit: nothing happened, run it
    /// again.
    [[nodiscard]] bool conflicted() const noexcept { return work_ && work_->conflicted(); }

private:
    friend class PostgresStore;
    explicit PostgresTransaction(std::unique_ptr<detail::PostgresWork> work)
        : work_(std::move(work)) {}

    template <class... Values>
    static detail::PqStatement statement(std::string_view sql, const Values&... values) {
        return {.sql = detail::PqSql(std::string(sql)),
                .parameters = {detail::parameter_of(values)...}};
    }

    std::unique_ptr<detail::PostgresWork> work_;
};

} // namespace idem::inline v0

#endif // IDEM_DETAIL_POSTGRES_TRANSACTION_HPP
