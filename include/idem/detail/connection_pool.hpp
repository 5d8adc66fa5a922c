// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_CONNECTION_POOL_HPP
#define IDEM_DETAIL_CONNECTION_POOL_HPP

// A bounded pool of connections of any kind.

#include <idem/error.hpp>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unistd.h>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// `Factory` is called as `Connection make(deadline) const` and throws StoreError. A Connection is
/// movable and has `bool usable()`: whether it may serve once more, asked when it comes back and
/// again before it is lent anew. One that is not is closed, never reused.
/// The pool outlives its handles.
/// Concurrency: take() and the end of a handle from any number of threads.
template <class Factory>
class ConnectionPool {
public:
    using Clock = std::chrono::steady_clock;
    using Connection = std::invoke_result_t<const Factory&, Clock::time_point>;

    /// A borrowed connection; its end gives it back.
    class Handle {
    public:
        Handle(Handle&& other) noexcept
            : pool_(std::exchange(other.pool_, nullptr))
            , connection_(std::move(other.connection_)) {}
        Handle(const Handle&) = delete;
        Handle& operator=(Handle&&) = delete;
        Handle& operator=(const Handle&) = delete;
        ~Handle() {
            if (pool_ != nullptr) {
                pool_->give_back(std::move(*connection_));
            }
        }
        [[nodiscard]] Connection& operator*() noexcept { return *connection_; }
        [[nodiscard]] Connection* operator->() noexcept { return &*connection_; }

    private:
        friend ConnectionPool;
        Handle(ConnectionPool& pool, Connection&& connection)
            : pool_(&pool)
            , connection_(std::move(connection)) {}

        ConnectionPool* pool_;
        std::optional<Connection> connection_;
    };

    /// `option` names what sets the size, for messages: "PostgresOptions::connections".
    ConnectionPool(Factory factory, std::size_t size, milliseconds deadline, std::string option)
        : factory_(std::move(factory))
        , size_(size)
        , deadline_(deadline)
        , option_(std::move(option)) {
        if (size_ == 0) {
            throw std::invalid_argument("idem: " + option_ + " is 0; it must be at least 1");
        }
        idle_.reserve(size_); // so that giving back never allocates
    }
    ConnectionPool(const ConnectionPool&) = delete;
    ConnectionPool& operator=(const ConnectionPool&) = delete;

    /// The connection used last, or a new one; waits while all are lent.
    /// Throws: StoreError unavailable when none came back in time, what the factory throws,
    /// std::logic_error in a process forked from the one that made the pool.
    [[nodiscard]] Handle take() { return take(Clock::now() + deadline_); }
    /// For a call that has used up a part of its deadline already.
    [[nodiscard]] Handle take(Clock::time_point until) {
        if (::getpid() != process_) {
            throw std::logic_error("idem: this store was made before fork(); parent and child must "
                                   "not share its connections: make a store in each process");
        }
        std::unique_lock lock(mutex_);
        if (!returned_.wait_until(lock, until, [this] { return lent_ < size_; })) {
            throw StoreError(Fault::unavailable,
                             "idem: no connection came free within " +
                                 std::to_string(deadline_.count()) + " ms, all " +
                                 std::to_string(size_) + " of " + option_ +
                                 " are lent; raise it, or run fewer handlers at a time");
        }
        ++lent_;
        const Lent lent{this};
        while (!idle_.empty()) {
            Connection connection = std::move(idle_.back());
            idle_.pop_back();
            lock.unlock(); // closing one, or asking whether it lives, may call the system
            if (connection.usable()) {
                return lent.keep(std::move(connection));
            }
            { const Connection broken = std::move(connection); }
            lock.lock();
        }
        lock.unlock();
        return lent.keep(factory_(until));
    }

    [[nodiscard]] std::size_t lent() const {
        const std::lock_guard lock(mutex_);
        return lent_;
    }

private:
    /// Takes the place back where take() fails.
    struct Lent {
        ConnectionPool* pool;
        mutable bool kept = false;
        Handle keep(Connection&& connection) const {
            kept = true;
            return Handle(*pool, std::move(connection));
        }
        ~Lent() {
            if (!kept) {
                pool->free_place();
            }
        }
    };
    void free_place() noexcept {
        {
            const std::lock_guard lock(mutex_);
            --lent_;
        }
        returned_.notify_one();
    }
    void give_back(Connection&& returned) noexcept {
        std::optional<Connection> connection(std::move(returned));
        if (::getpid() != process_) {
            return; // a child of fork(): the mutex may be held for ever
        }
        if (connection->usable()) {
            const std::lock_guard lock(mutex_);
            idle_.push_back(std::move(*connection));
        }
        connection.reset(); // closed before its place is free: never more than size_ are open
        free_place();
    }

    Factory factory_;
    std::size_t size_;
    milliseconds deadline_;
    std::string option_;
    pid_t process_ = ::getpid();
    mutable std::mutex mutex_;
    std::condition_variable returned_;
    std::vector<Connection> idle_;
    std::size_t lent_ = 0;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_CONNECTION_POOL_HPP
