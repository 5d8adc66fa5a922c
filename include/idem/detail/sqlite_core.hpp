// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_CORE_HPP
#define IDEM_DETAIL_SQLITE_CORE_HPP

// What the transactions of one store share: whose turn it is to write, idle connections, the table.

#include <idem/detail/sqlite_fault.hpp>
#include <idem/detail/sqlite_fences.hpp>
#include <idem/detail/sqlite_records.hpp>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace idem::inline v0 {

struct SqliteOptions {
    std::string table = "idem_record";
    /// How long begin(), and each step of a lease, waits for the database's only write lock.
    milliseconds busy{5'000};
    /// SQL that every connection the store opens runs first, after the store's own, such as
    /// "PRAGMA foreign_keys = ON".
    std::string on_open{};
};

namespace detail {

/// Concurrency: every member may be called from any number of threads.
class SqliteCore {
public:
    using Deadline = SqliteSession::Deadline;
    using Session = std::unique_ptr<SqliteSession>;

    /// The right to write, one per store: threads of one process wait here, in memory, and only one
    /// of them competes with other processes for the lock of the file.
    class Turn {
    public:
        explicit Turn(SqliteCore& core) noexcept : core_(&core) {}
        Turn(Turn&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
        Turn& operator=(Turn&& other) noexcept {
            std::swap(core_, other.core_);
            return *this;
        }
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;
        ~Turn() {
            if (core_ != nullptr && ::getpid() == core_->process_) {
                core_->end_turn();
            }
        }

    private:
        SqliteCore* core_;
    };

    SqliteCore(std::string path, SqliteOptions options, Timestamp (*clock)())
        : path_(std::move(path))
        , options_(std::move(options))
        , clock_(clock)
        , records_(options_.table)
        , fences_(options_.table) {
        require_sqlite_table(options_.table);
        if (path_.empty() || path_ == ":memory:") {
            throw std::invalid_argument("idem: SqliteStore needs the path of a file: every "
                                        "connection to \"" +
                                        path_ + "\" would have a database of its own");
        }
    }
    SqliteCore(const SqliteCore&) = delete;
    SqliteCore& operator=(const SqliteCore&) = delete;
    ~SqliteCore() = default;

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] const SqliteOptions& options() const noexcept { return options_; }
    [[nodiscard]] const SqliteRecords& records() const noexcept { return records_; }
    [[nodiscard]] const SqliteFences& fences() const noexcept { return fences_; }
    [[nodiscard]] Timestamp now() const { return clock_(); }
    [[nodiscard]] Deadline deadline() const {
        return std::chrono::steady_clock::now() + options_.busy;
    }
    [[nodiscard]] bool forked() const noexcept { return ::getpid() != process_; }
    /// Throws: std::logic_error.
    void require_same_process() const {
        if (forked()) {
            throw std::logic_error(
                "idem: this SqliteStore was made before a fork: SQLite forbids to "
                "carry a connection into a child; make a store in the child");
        }
    }

    /// Throws: StoreError unavailable; std::logic_error where this thread has the turn.
    [[nodiscard]] Turn take_turn(Deadline deadline) {
        std::unique_lock lock(mutex_);
        if (writing_ && writer_ == std::this_thread::get_id()) {
            throw std::logic_error("idem: begin() while this thread has a transaction of the same "
                                   "SqliteStore open: it would wait for itself");
        }
        if (!turn_free_.wait_until(lock, deadline, [this] { return !writing_; })) {
            throw StoreError(Fault::unavailable,
                             "idem: SQLite database " + path_ +
                                 " is busy: transactions of this "
                                 "process held its only write lock for longer than "
                                 "SqliteOptions::busy, " +
                                 std::to_string(options_.busy.count()) +
                                 " ms: retry, keep transactions short, or raise it");
        }
        writing_ = true;
        writer_ = std::this_thread::get_id();
        return Turn(*this);
    }

    /// A key that the transaction which has the turn claimed: it has it until the turn ends.
    void note_claim(const Key& key) {
        const std::scoped_lock lock(mutex_);
        claimed_.emplace_back(key.scope, key.id);
    }
    /// Whether an open transaction of this store has the key.
    [[nodiscard]] bool is_claimed(const Key& key) {
        const std::scoped_lock lock(mutex_);
        for (const auto& [scope, id] : claimed_) {
            if (id == key.id && scope == key.scope) {
                return true;
            }
        }
        return false;
    }

    /// An idle connection, or a new one. Throws: SqliteError.
    [[nodiscard]] Session take(Deadline deadline) {
        Session session;
        {
            const std::scoped_lock lock(mutex_);
            if (!idle_.empty()) {
                session = std::move(idle_.back());
                idle_.pop_back();
            }
        }
        if (session == nullptr) {
            return open(SQLITE_OPEN_READWRITE, deadline);
        }
        session->wait_until(deadline);
        return session;
    }
    void give_back(Session session) noexcept {
        const std::scoped_lock lock(mutex_);
        if (idle_.size() < most_idle) {
            idle_.push_back(std::move(session)); // within the capacity reserved
        }
    }
    /// A new connection, as the options say. Throws: SqliteError.
    [[nodiscard]] Session open(int flags, Deadline deadline) const {
        auto session = std::make_unique<SqliteSession>(path_, flags);
        session->wait_until(deadline);
        for (const std::string* sql : {&synchronous_, &options_.on_open}) {
            const int code =
                sqlite3_exec(session->native(), sql->c_str(), nullptr, nullptr, nullptr);
            if (code != SQLITE_OK) {
                throw session->error(code);
            }
        }
        return session;
    }

    /// Runs `work`; what SQLite refuses in it is the store's failure.
    template <class Work>
    decltype(auto) as_store(const Work& work) const {
        try {
            return work();
        } catch (const SqliteError& error) {
            throw sqlite_store_error(path_, error);
        }
    }

private:
    static constexpr std::size_t most_idle = 4;

    void end_turn() noexcept {
        {
            const std::scoped_lock lock(mutex_);
            writing_ = false;
            claimed_.clear();
        }
        turn_free_.notify_one();
    }
    static std::vector<Session> reserved() {
        std::vector<Session> sessions;
        sessions.reserve(most_idle);
        return sessions;
    }

    std::string path_;
    SqliteOptions options_;
    Timestamp (*clock_)();
    SqliteRecords records_;
    SqliteFences fences_;
    std::string synchronous_ = "PRAGMA synchronous = FULL"; // a commit is on the disk
    pid_t process_ = ::getpid();
    std::mutex mutex_{};
    std::condition_variable turn_free_{};
    bool writing_ = false;
    std::thread::id writer_{};
    std::vector<std::pair<std::string, std::string>> claimed_{}; // by who writes
    std::vector<Session> idle_ = reserved();
};

/// Throws: StoreError rejected.
inline void require_sqlite_written(const SqliteCore& core, bool written) {
    if (!written) {
        throw StoreError(Fault::rejected,
                         "idem: SQLite database " + core.path() +
                             ": the record was not written: look for triggers on the table of "
                             "records, and for handlers that write to it");
    }
}

} // namespace detail
} // namespace idem::inline v0

#endif // IDEM_DETAIL_SQLITE_CORE_HPP
