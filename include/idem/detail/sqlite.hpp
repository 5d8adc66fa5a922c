// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_HPP
#define IDEM_DETAIL_SQLITE_HPP

// The one owner of sqlite3.h: a connection with its statement cache, its patience, and its watch
// over the transaction.

#include <sqlite3.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <unistd.h>
#include <unordered_map>

namespace idem::inline v0 {

/// A statement that SQLite refused. Out of a handler it is the handler's own failure.
class SqliteError : public std::runtime_error {
public:
    SqliteError(int code, const std::string& message, int system_error = 0)
        : std::runtime_error(message)
        , code_(code)
        , system_error_(system_error) {}
    /// The extended result code, such as SQLITE_CONSTRAINT_UNIQUE.
    [[nodiscard]] int code() const noexcept { return code_; }
    /// errno of a failed file operation, else 0.
    [[nodiscard]] int system_error() const noexcept { return system_error_; }

private:
    int code_;
    int system_error_;
};

namespace detail {

constexpr int primary_code(int code) noexcept {
    return code & 0xff;
}

/// The statements that the library runs for each message.
enum class SqliteOwn : std::size_t {
    begin,
    commit,
    read,
    complete,
    charge,
    lock,
    fence_read,
    fence_advance,
    lease_last_fence,
    lease_keep_fence,
    lease_take,
    lease_complete,
    lease_renew,
    lease_give_back,
    count ///< of them
};

/// One of them: a session compiles it once and finds it by its place, without a look at its text.
/// All statements of one place have one text per session.
struct SqliteStatement {
    SqliteOwn place;
    std::string sql;
};

/// A connection, its own or a borrowed one. Concurrency: one thread at a time.
class SqliteSession {
public:
    using Deadline = std::chrono::steady_clock::time_point;

    /// Opens `path`, a file name or an URI. Throws: SqliteError.
    SqliteSession(const std::string& path, int flags) : owned_(true) {
        const int code = sqlite3_open_v2(path.c_str(),
                                         &native_,
                                         flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI |
                                             SQLITE_OPEN_PRIVATECACHE,
                                         nullptr);
        if (code != SQLITE_OK) {
            auto refused =
                native_ == nullptr ? SqliteError(code, sqlite3_errstr(code)) : error(code);
            sqlite3_close_v2(native_);
            throw refused;
        }
        sqlite3_extended_result_codes(native_, 1);
        sqlite3_busy_handler(native_, &SqliteSession::wait, this);
        sqlite3_commit_hook(native_, &SqliteSession::on_commit, this);
        sqlite3_rollback_hook(native_, &SqliteSession::on_rollback, this);
    }
    explicit SqliteSession(sqlite3* borrowed) noexcept : native_(borrowed) {}
    SqliteSession(const SqliteSession&) = delete;
    SqliteSession& operator=(const SqliteSession&) = delete;
    /// After a fork the child touches nothing: to close would drop the parent's log
    /// (https://www.sqlite.org/howtocorrupt.html, 2.6).
    ~SqliteSession() {
        if (forked()) {
            return;
        }
        forget_statements();
        for (auto* statement : own_) {
            sqlite3_finalize(statement);
        }
        if (owned_) {
            sqlite3_close_v2(native_);
        }
    }

    [[nodiscard]] sqlite3* native() const noexcept { return native_; }
    [[nodiscard]] bool forked() const noexcept { return ::getpid() != opener_; }
    /// How long locks of other processes are waited for. Of an owned connection.
    void wait_until(Deadline deadline) noexcept { deadline_ = deadline; }

    /// What `code`, just answered, means. Read before any other call.
    [[nodiscard]] SqliteError error(int code) const {
        const int extended = sqlite3_extended_errcode(native_);
        const bool same = primary_code(extended) == primary_code(code);
        return {same ? extended : code,
                same ? sqlite3_errmsg(native_) : sqlite3_errstr(code),
                sqlite3_system_errno(native_)};
    }

    /// A statement of this connection's cache; the caller resets it.
    /// Throws: SqliteError; std::invalid_argument for anything but one statement.
    sqlite3_stmt* prepare(std::string_view sql) {
        if (const auto known = statements_.find(sql); known != statements_.end()) {
            return known->second;
        }
        if (statements_.size() >= most_statements) {
            forget_statements();
        }
        const char* tail = nullptr;
        sqlite3_stmt* statement = compile(sql, tail);
        const auto rest = static_cast<std::size_t>(sql.data() + sql.size() - tail);
        sqlite3_stmt* second = nullptr;
        try {
            const char* end = nullptr;
            second = rest == 0 ? nullptr : compile({tail, rest}, end);
        } catch (const SqliteError&) { // not even a statement
            second = statement;
        }
        if (statement == nullptr || second != nullptr) {
            if (second != statement) {
                sqlite3_finalize(second);
            }
            sqlite3_finalize(statement);
            throw std::invalid_argument("idem: execute takes exactly one SQL statement");
        }
        return statements_.emplace(std::string(sql), statement).first->second;
    }

    /// The same without a look at the text.
    sqlite3_stmt* prepare(const SqliteStatement& statement) {
        auto& compiled = own_[static_cast<std::size_t>(statement.place)];
        if (compiled == nullptr) {
            const char* tail = nullptr;
            compiled = compile(statement.sql, tail);
        }
        return compiled;
    }

    /// Runs a statement without rows. Throws: SqliteError.
    void run(std::string_view sql) {
        if (const int code = attempt(prepare(sql)); code != SQLITE_OK) {
            throw error(code);
        }
    }

    /// From here until commit() or rollback() nothing commits on this connection.
    void begin_immediate() {
        static const SqliteStatement begin{SqliteOwn::begin, "BEGIN IMMEDIATE"};
        if (const int code = attempt(prepare(begin)); code != SQLITE_OK) {
            throw error(code);
        }
        lost_ = false;
        guarded_ = true;
    }
    /// SQLITE_OK, or why not: then in_transaction() says whether it is still open.
    int commit() {
        static const SqliteStatement commit{SqliteOwn::commit, "COMMIT"};
        guarded_ = false;
        return attempt(prepare(commit));
    }
    /// Of an owned connection.
    void rollback() noexcept {
        guarded_ = false;
        if (in_transaction()) {
            sqlite3_exec(native_, "ROLLBACK", nullptr, nullptr, nullptr);
        }
    }
    [[nodiscard]] bool in_transaction() const noexcept {
        return sqlite3_get_autocommit(native_) == 0;
    }
    /// Whether the transaction is the one that began: it is open, and the hooks of an owned
    /// connection have seen neither a COMMIT, which they turn into a ROLLBACK, nor a ROLLBACK.
    [[nodiscard]] bool intact() const noexcept { return in_transaction() && !lost_; }
    /// The same once others had the raw connection: they may have replaced the hooks.
    [[nodiscard]] bool intact_after_others() noexcept {
        return intact() &&
               (!owned_ ||
                (sqlite3_commit_hook(native_, &SqliteSession::on_commit, this) == this &&
                 sqlite3_rollback_hook(native_, &SqliteSession::on_rollback, this) == this));
    }

private:
    struct TextHash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const noexcept {
            return std::hash<std::string_view>{}(text);
        }
    };
    static constexpr std::size_t most_statements = 64;

    sqlite3_stmt* compile(std::string_view sql, const char*& tail) {
        sqlite3_stmt* statement = nullptr;
        const int code = sqlite3_prepare_v3(native_,
                                            sql.data(),
                                            static_cast<int>(sql.size()),
                                            SQLITE_PREPARE_PERSISTENT,
                                            &statement,
                                            &tail);
        if (code != SQLITE_OK) {
            throw error(code);
        }
        return statement;
    }
    static int attempt(sqlite3_stmt* statement) {
        const int code = sqlite3_step(statement);
        if (code == SQLITE_DONE || code == SQLITE_ROW) {
            sqlite3_reset(statement);
            return SQLITE_OK;
        }
        return sqlite3_reset(statement); // again the code of the step, and its message stays
    }
    void forget_statements() noexcept {
        for (const auto& entry : statements_) {
            sqlite3_finalize(entry.second);
        }
        statements_.clear();
    }
    /// A pause that doubles up to 5 ms, different for each of those that wait.
    static int wait(void* self, int tries) {
        auto& session = *static_cast<SqliteSession*>(self);
        const auto left = session.deadline_ - std::chrono::steady_clock::now();
        if (left <= left.zero()) {
            return 0;
        }
        session.random_ = session.random_ * 6'364'136'223'846'793'005U + 1'442'695'040'888'963'407U;
        const std::int64_t most = std::int64_t{100} << (tries < 5 ? tries : 5);
        const std::chrono::microseconds pause{
            most / 2 + static_cast<std::int64_t>(session.random_ >> 33U) % most};
        std::this_thread::sleep_for(pause < left ? std::chrono::nanoseconds(pause)
                                                 : std::chrono::nanoseconds(left));
        return 1;
    }
    /// Not zero turns the COMMIT into a ROLLBACK: also that of a single statement, which somebody
    /// runs after the transaction has gone.
    static int on_commit(void* self) {
        auto& session = *static_cast<SqliteSession*>(self);
        session.lost_ = session.lost_ || session.guarded_;
        return session.guarded_ ? 1 : 0;
    }
    static void on_rollback(void* self) {
        auto& session = *static_cast<SqliteSession*>(self);
        session.lost_ = session.lost_ || session.guarded_;
    }

    sqlite3* native_ = nullptr;
    bool owned_ = false;
    bool guarded_ = false; // a transaction of the library is open
    bool lost_ = false;    // and somebody else ended it
    pid_t opener_ = ::getpid();
    Deadline deadline_{};
    std::uint64_t random_ =
        reinterpret_cast<std::uintptr_t>(this) ^ (static_cast<std::uint64_t>(::getpid()) << 32U);
    std::unordered_map<std::string, sqlite3_stmt*, TextHash, std::equal_to<>> statements_{};
    std::array<sqlite3_stmt*, static_cast<std::size_t>(SqliteOwn::count)> own_{}; // by SqliteOwn
};

} // namespace detail
} // namespace idem::inline v0

#endif // IDEM_DETAIL_SQLITE_HPP
