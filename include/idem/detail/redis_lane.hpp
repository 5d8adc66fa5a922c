// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_LANE_HPP
#define IDEM_DETAIL_REDIS_LANE_HPP

// A connection that carries the commands of several threads at once, and those that wait for it.

#include <idem/detail/redis_connection.hpp>
#include <idem/error.hpp>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <linux/futex.h>
#include <optional>
#include <string>
#include <string_view>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// What one thread sends, and what it came to: an answer of its own, or an error of its own. The
/// error is kept as what it is made of: an exception would be shared by threads.
struct RedisCall {
    RedisCall(const RedisPipeline& asked, Deadline until) : pipeline(asked), deadline(until) {
        replies.reserve(asked.commands());
    }
    void fail(Fault what, std::string why) {
        fault = what;
        problem = std::move(why);
    }

    const RedisPipeline& pipeline;
    Deadline deadline;
    std::vector<RedisReply> replies{};
    std::optional<Fault> fault{};
    std::string problem{};
    bool unsent = false; ///< the link broke before any of it was sent: another may carry it
    RedisCall* next = nullptr;
    std::atomic<bool> over{false}; ///< the rest is the thread's own again, and nobody touches it
};

class RedisLane;

/// Calls that travel together, or will. Their threads sleep on one word, so that one system call
/// wakes all of them. A batch is used again and again: it outlives every call.
/// Concurrency: the members by who has the batch: the lanes' mutex while it fills, then its lane;
/// the word by everybody.
class RedisBatch {
public:
    void add(RedisCall& call) noexcept {
        call.next = nullptr;
        *end_ = &call;
        end_ = &call.next;
    }
    void remove(const RedisCall& call) noexcept {
        for (RedisCall** at = &first_; *at != nullptr; at = &(*at)->next) {
            if (*at == &call) {
                *at = call.next;
                end_ = call.next == nullptr ? at : end_;
                return;
            }
        }
    }
    [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
    /// The only one there is, if it is.
    [[nodiscard]] RedisCall* sole() const noexcept {
        return first_ != nullptr && first_->next == nullptr ? first_ : nullptr;
    }
    [[nodiscard]] RedisCall* first() const noexcept { return first_; }
    /// Lets all its threads go on. `own`: the call of the thread that says so.
    void finish(const RedisCall& own) noexcept {
        bool anybody = false;
        for (RedisCall* call = std::exchange(first_, nullptr); call != nullptr;) {
            RedisCall* const next = call->next;
            anybody = anybody || call != &own;
            call->over.store(true, std::memory_order_release); // from here on it may be gone
            call = next;
        }
        end_ = &first_;
        if (anybody) {
            wake(INT_MAX);
        }
    }

    [[nodiscard]] std::uint32_t word() const noexcept {
        return word_.load(std::memory_order_acquire);
    }
    /// Until the word is another than `seen`; it may return for nothing. False: the time is over.
    bool wait(std::uint32_t seen, std::optional<Deadline> until) noexcept {
        timespec time{};
        if (until) { // steady_clock is CLOCK_MONOTONIC
            const auto since = until->time_since_epoch();
            const auto whole = std::chrono::floor<std::chrono::seconds>(since);
            time.tv_sec = whole.count();
            time.tv_nsec = static_cast<long>(std::chrono::nanoseconds(since - whole).count());
        }
        return futex(FUTEX_WAIT_BITSET, seen, until ? &time : nullptr) == 0 || errno != ETIMEDOUT;
    }
    /// Makes `count` of its threads look what there is to do.
    void wake(int count) noexcept {
        word_.fetch_add(1, std::memory_order_acq_rel);
        futex(FUTEX_WAKE, static_cast<std::uint32_t>(count), nullptr);
    }

    RedisLane* lane = nullptr; ///< once taken
    Deadline deadline{};       ///< once sent: the first of its calls'
    bool forsaken = false;     ///< sent, and one of its own threads is to read the answers

private:
    long futex(int what, std::uint32_t value, const timespec* time) noexcept {
        return ::syscall(SYS_futex,
                         &word_,
                         what | FUTEX_PRIVATE_FLAG,
                         value,
                         time,
                         nullptr,
                         FUTEX_BITSET_MATCH_ANY);
    }

    RedisCall* first_ = nullptr;
    RedisCall** end_ = &first_;
    std::atomic<std::uint32_t> word_{0};
};

/// One connection, and one batch on its way at a time.
/// Concurrency: by the thread that has it; `busy` and `since` by the lanes' mutex.
class RedisLane {
public:
    [[nodiscard]] bool is_connected() const noexcept { return connection_.has_value(); }
    /// Makes a connection where there is none that can be used. False: there was one. Throws: as
    /// RedisConnection().
    bool connect(const RedisAddress& address, Deadline deadline, unsigned looks) {
        // To ask costs a system call, and one that answered just now is there.
        if (connection_ && (since - answered_ < recently || connection_->usable())) {
            return false;
        }
        connection_.reset();
        connection_.emplace(address, deadline, looks);
        return true;
    }
    /// False: the connection was of no more use, and is closed.
    bool keep() noexcept {
        answered_ = std::chrono::steady_clock::now();
        if (connection_ && !connection_->whole()) {
            connection_.reset();
        }
        return connection_.has_value();
    }

    /// Requires: a connection. What goes wrong is said in the calls that it concerns.
    void send(RedisBatch& batch) noexcept {
        batch.deadline = Deadline::max();
        for (auto* call = batch.first(); call != nullptr; call = call->next) {
            if (call->deadline <= since) {
                call->fail(Fault::unavailable, too_late());
            } else {
                batch.deadline = call->deadline < batch.deadline ? call->deadline : batch.deadline;
            }
        }
        try {
            if (const auto* call = batch.sole(); call != nullptr && !call->fault) {
                connection_->send(call->pipeline, batch.deadline);
                return;
            }
            for (auto* call = batch.first(); call != nullptr; call = call->next) {
                if (!call->fault) {
                    connection_->append(call->pipeline);
                }
            }
            connection_->flush(batch.deadline);
        } catch (const std::exception& error) {
            fail_from(batch.first(), error, connection_->unsent());
        }
    }
    /// Requires: send() of the batch was the last that this lane was asked for.
    void receive(RedisBatch& batch) noexcept {
        for (auto* call = batch.first(); call != nullptr; call = call->next) {
            try {
                while (!call->fault && call->replies.size() < call->pipeline.commands()) {
                    call->replies.push_back(connection_->read(batch.deadline));
                }
            } catch (const std::exception& error) {
                fail_from(call, error, 0);
            }
        }
    }
    static const char* too_late() noexcept {
        return "idem: Redis: no connection came free within the deadline (RedisOptions::deadline)";
    }

    bool busy = false;
    Deadline since{}; ///< when its batch, or itself, was taken; written by who has it

private:
    /// The calls from `call` on have no answer, and will have none. `unsent`: bytes at their end.
    void fail_from(RedisCall* call, const std::exception& error, std::size_t unsent) noexcept {
        const auto* known = dynamic_cast<const StoreError*>(&error);
        std::size_t left = 0;
        for (const auto* each = call; each != nullptr; each = each->next) {
            left += each->fault ? 0 : each->pipeline.bytes().size();
        }
        for (; call != nullptr; call = call->next) {
            if (call->fault) {
                continue;
            }
            call->unsent = left <= unsent;
            call->fail(call->unsent ? Fault::unavailable : Fault::in_doubt, error.what());
            left -= call->pipeline.bytes().size();
        }
        if (known == nullptr) {
            connection_.reset(); // no memory: what came in is lost
        }
    }

    static constexpr milliseconds recently{1};

    std::optional<RedisConnection> connection_;
    Deadline answered_{};
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_LANE_HPP
