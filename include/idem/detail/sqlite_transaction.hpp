// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_TRANSACTION_HPP
#define IDEM_DETAIL_SQLITE_TRANSACTION_HPP

// idem::SqliteTransaction, which <idem/store/sqlite.hpp> offers.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/sqlite_control.hpp>
#include <idem/detail/sqlite_core.hpp>
#include <idem/detail/sqlite_doubt.hpp>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0 {

/// The transaction that holds a claim and the handler's own writes: either one that the store began
/// with BEGIN IMMEDIATE, or a savepoint in one that the user has open (see SqliteStore::join).
/// It lives no longer than its store.
/// Concurrency: one thread at a time.
class SqliteTransaction {
public:
    explicit SqliteTransaction(detail::SqliteOpened opened) noexcept : opened_(std::move(opened)) {}
    SqliteTransaction(SqliteTransaction&&) noexcept = default;
    SqliteTransaction& operator=(SqliteTransaction&& other) noexcept {
        if (this != &other) {
            rollback();
            opened_ = std::move(other.opened_);
            claims_ = std::move(other.claims_);
            fences_ = std::move(other.fences_);
            state_ = other.state_;
        }
        return *this;
    }
    SqliteTransaction(const SqliteTransaction&) = delete;
    SqliteTransaction& operator=(const SqliteTransaction&) = delete;
    ~SqliteTransaction() { rollback(); }

    /// Runs one statement of the handler, with `values` for its parameters, and returns its rows. A
    /// statement that fails changes nothing, and the transaction goes on, unless SQLite says
    /// otherwise (ON CONFLICT ROLLBACK, a full disk): then everything is rolled back, and neither
    /// another statement nor commit() will succeed.
    /// Throws: SqliteError; std::logic_error for what would end the transaction (COMMIT, ROLLBACK,
    /// BEGIN), before it runs; std::invalid_argument for more than one statement or another number
    /// of values than parameters.
    /// Cost: no trip, SQLite is in this process. Statements are compiled once per connection.
    template <SqliteValue... Values>
    SqliteRows execute(std::string_view sql, const Values&... values) {
        require_intact();
        const auto kind = detail::sqlite_kind(sql);
        if (kind == detail::SqliteKind::control) {
            throw std::logic_error(
                "idem: the handler must not begin or end the transaction that it "
                "was given: \"" +
                std::string(sql) + "\"; throw to roll it back");
        }
        state_.changed_session =
            state_.changed_session || kind == detail::SqliteKind::changes_session;
        try {
            return detail::SqliteCall(session(), sql, values...).rows();
        } catch (const SqliteError& error) {
            note(error);
            throw;
        }
    }

    /// The raw connection, for what execute() does not offer. A COMMIT through it becomes a
    /// ROLLBACK where the store began the transaction, and commit() then throws; in a joined one it
    /// is noticed too late to prevent. The connection is closed after such a transaction: no state
    /// of it leaks.
    [[nodiscard]] sqlite3* native() {
        require_open();
        state_.changed_session = true;
        return session().native();
    }

    /// May I process this key? Reads; the write lock that begin() took is the claim.
    /// Throws: StoreError; std::invalid_argument for a key past the limits; std::logic_error for a
    /// key that this transaction has claimed already.
    Claim<std::monostate> claim(const ClaimRequest& request);
    /// The same for each, in order.
    std::vector<Claim<std::monostate>> claim(std::span<const ClaimRequest> requests);
    /// Writes the record of a key that this transaction claimed.
    /// Throws: StoreError; SqliteError where the handler broke the transaction; std::logic_error.
    void complete(const ClaimRequest& request, std::string_view result);
    void complete(std::span<const ClaimRequest> requests, std::span<const std::string> results);

    /// Moves the fence row of a partition to this offset (FencedTransaction).
    /// Throws: StoreError; std::invalid_argument past the limits.
    Claim<std::monostate> advance(std::string_view scope, const Position& position);

    /// Before each message of a batch. Throws: SqliteError where a handler broke the transaction.
    void savepoint();
    /// Undoes what was written since. Throws: as savepoint().
    void back_to_savepoint();

    /// Record and writes become durable and visible together, or it throws and nothing of them
    /// stays. A joined transaction is released into the user's: its COMMIT decides. Throws:
    /// StoreError, `in_doubt` only where a read under the write lock could not tell; any other
    /// exception is the handler's own: a deferred constraint, a transaction that it broke.
    void commit();
    /// Nothing of it happened; gives the connection back.
    void rollback() noexcept;
    /// Whether the surroundings failed and not the handler: run it all again. True too where one
    /// handler of a batch broke the transaction for the others.
    [[nodiscard]] bool conflicted() const noexcept {
        return state_.conflicted ||
               (state_.batch && opened_.session != nullptr && !joined() && !session().intact());
    }

private:
    struct State {
        bool conflicted = false;
        bool changed_session = false; // the connection is not for others any more
        bool batch = false;           // savepoint() was called
        bool in_message = false;      // and its savepoint stands
        bool locked = false;          // a joined one has the write lock
    };

    [[nodiscard]] bool joined() const noexcept { return !opened_.savepoint.empty(); }
    [[nodiscard]] detail::SqliteSession& session() const noexcept { return *opened_.session; }
    [[nodiscard]] const detail::SqliteCore& core() const noexcept { return *opened_.core; }
    void require_open() const;
    void require_intact();
    void lock_joined();
    void note(const SqliteError& error) noexcept;
    template <class Work>
    decltype(auto) as_store(const Work& work);
    detail::SqliteClaim& claim_of(const Key& key);
    void release_joined();
    void settle_failed_commit(const SqliteError& error, bool still_open);
    void finish() noexcept;

    detail::SqliteOpened opened_;
    std::vector<detail::SqliteClaim> claims_{};
    std::vector<detail::SqliteAdvanced> fences_{};
    State state_{};
};

} // namespace idem::inline v0

#include <idem/detail/sqlite_transaction_members.hpp>

#endif // IDEM_DETAIL_SQLITE_TRANSACTION_HPP
