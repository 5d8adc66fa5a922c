// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_HANDLER_THREADS_HPP
#define IDEM_DETAIL_HANDLER_THREADS_HPP

// The threads that run handlers for the consumer loop, and where the loop waits for them.

#include <idem/detail/delivery_task.hpp>
#include <idem/detail/failpoint.hpp>
#include <idem/outcome.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

namespace idem::inline v0::detail {

/// The clock of the loop. A test's own moves by itself where this one waits.
struct LoopClock {
    using time_point = std::chrono::steady_clock::time_point;
    static time_point now() noexcept { return std::chrono::steady_clock::now(); }
    /// Until `done()` or `until`.
    template <class Done>
    static void wait(std::condition_variable& changed,
                     std::unique_lock<std::mutex>& lock,
                     time_point until,
                     const Done& done) {
        changed.wait_until(lock, until, done);
    }
};

/// Handles one task, whatever happens.
template <class Handler, class Job>
void handle_one(const Handler& handler, Job& job, std::size_t at) noexcept {
    auto& task = job.tasks[at];
    try {
        const auto outcome =
            handler.handle(std::as_const(task.delivery), job.stop_of(at).get_token());
        task.settlement = outcome.settlement();
        if constexpr (requires {
                          { outcome.error() } -> std::same_as<std::exception_ptr>;
                      }) {
            task.error = outcome.error();
        }
    } catch (...) { // a handler class of the user's own
        task.error = std::current_exception();
        task.settlement = settlement_of(task.error);
    }
}

/// Hands the job's deliveries over as one batch.
template <class Handler, class Job>
void handle_batch(const Handler& handler, Job& job) noexcept {
    using Delivery = typename std::remove_reference_t<decltype(job.batch)>::value_type;
    std::size_t answered = 0;
    std::exception_ptr error;
    try {
        const auto outcomes =
            handler.batch(std::span<const Delivery>(job.batch), job.stop_of(0).get_token());
        for (; answered < job.tasks.size() && answered < outcomes.size(); ++answered) {
            auto& task = job.tasks[answered];
            task.settlement = outcomes[answered].settlement();
            if constexpr (requires {
                              { outcomes[0].error() } -> std::same_as<std::exception_ptr>;
                          }) {
                task.error = outcomes[answered].error();
            }
        }
    } catch (...) { // the store's failure is that of all
        error = std::current_exception();
    }
    for (; answered < job.tasks.size(); ++answered) {
        job.tasks[answered].error = error;
        job.tasks[answered].settlement = settlement_of(error);
    }
}

/// A fixed number of threads. No handler starts once the stop token was requested, shut() was
/// called, or the store was unavailable to one; open() lets them start again, but for the first.
/// Concurrency: one loop thread calls it; wake() may be called by any.
template <class Handler, class Job, bool in_order, bool batches>
class HandlerThreads {
public:
    HandlerThreads(const Handler& handler, std::size_t count, std::stop_token stop)
        : handler_(handler)
        , stop_(std::move(stop)) {
        try {
            threads_.reserve(count);
            for (std::size_t i = 0; i < count; ++i) {
                threads_.emplace_back([this] { work(); });
            }
        } catch (...) {
            quit();
            throw;
        }
    }
    HandlerThreads(const HandlerThreads&) = delete;
    HandlerThreads& operator=(const HandlerThreads&) = delete;
    ~HandlerThreads() { quit(); } // then the threads join: they are the last member

    void submit(Job& job) {
        {
            const std::scoped_lock lock(mutex_);
            queue_.push_back(&job);
        }
        work_.notify_one();
    }
    /// Takes back what no thread has begun: each such job is ended, with nothing finished.
    void reclaim() {
        std::deque<Job*> unbegun;
        {
            const std::scoped_lock lock(mutex_);
            unbegun.swap(queue_);
        }
        for (Job* job : unbegun) {
            job->ended.store(true);
        }
    }
    void shut() noexcept { shut_.store(true); }
    void open() noexcept { shut_.store(false); }
    [[nodiscard]] bool is_shut() const noexcept { return shut_.load(); }

    /// From here on wait() counts what happens as new. To be called before looking at the jobs.
    void mark() noexcept {
        marked_ = events_.load();
        marked_steps_ = steps_.load();
    }
    /// Until something happened since mark(), or `until`; with `each_step`, also until one task of
    /// a chain is finished.
    template <class Clock>
    void wait(typename Clock::time_point until, bool each_step) {
        std::unique_lock lock(mutex_);
        waits_for_.store(each_step ? WaitsFor::steps : WaitsFor::events);
        Clock::wait(changed_, lock, until, [this, each_step] {
            return events_.load() != marked_ || (each_step && steps_.load() != marked_steps_);
        });
        waits_for_.store(WaitsFor::nothing);
    }
    void wake() {
        events_.fetch_add(1); // wait() looks at it after setting waits_for_: no wake-up is lost
        if (waits_for_.load() != WaitsFor::nothing) {
            notify();
        }
    }

private:
    enum class WaitsFor { nothing, events, steps };

    void notify() {
        { const std::scoped_lock lock(mutex_); }
        changed_.notify_one();
    }
    void quit() {
        {
            const std::scoped_lock lock(mutex_);
            quit_ = true;
        }
        work_.notify_all();
    }
    [[nodiscard]] bool may_start() const noexcept {
        return !shut_.load() && !stop_.stop_requested();
    }
    void work() {
        std::unique_lock lock(mutex_);
        for (;;) {
            work_.wait(lock, [this] { return quit_ || !queue_.empty(); });
            if (quit_) {
                return;
            }
            Job& job = *queue_.front();
            queue_.pop_front();
            lock.unlock();
            if constexpr (batches) {
                if (job.is_batch()) {
                    run_batch(job);
                } else {
                    run_chain(job);
                }
            } else {
                run_chain(job);
            }
            job.ended.store(true); // from here on the loop may destroy it
            wake();
            lock.lock();
        }
    }
    /// One after the other; in a lane, up to the first that is not done.
    void run_chain(Job& job) {
        for (std::size_t at = 0; at < job.tasks.size() && may_start(); ++at) {
            if (job.stop_of(at).stop_requested()) { // lost while it waited
                job.tasks[at].settlement = {Action::retry, milliseconds{0}, {}, "lost"};
            } else {
                handle_one(handler_, job, at);
                IDEM_FAILPOINT("run: handled");
            }
            const auto action = job.tasks[at].settlement.action;
            close_where_down(job.tasks[at].settlement);
            job.finished.store(at + 1);
            if (in_order && action != Action::ack) {
                return; // the next of this lane must not overtake it, nor a dead letter's writing
            }
            steps_.fetch_add(1);
            if (waits_for_.load() == WaitsFor::steps) {
                notify();
            }
        }
    }
    void run_batch(Job& job) {
        if (!may_start()) {
            return;
        }
        handle_batch(handler_, job);
        IDEM_FAILPOINT("run: handled");
        for (const auto& task : job.tasks) {
            close_where_down(task.settlement);
        }
        job.finished.store(job.tasks.size());
    }
    /// At once, and not only when the loop sees it: no further handler starts on a store that is
    /// down.
    void close_where_down(const Settlement& settlement) noexcept {
        if (settlement.reason == reason::store_unavailable || settlement.action == Action::stop) {
            shut_.store(true);
        }
    }

    const Handler& handler_;
    std::stop_token stop_;
    std::mutex mutex_;
    std::condition_variable work_, changed_;
    std::deque<Job*> queue_;
    bool quit_ = false;
    std::atomic<bool> shut_{false};
    std::atomic<WaitsFor> waits_for_{WaitsFor::nothing};
    std::atomic<std::uint64_t> events_{0}, steps_{0};
    std::uint64_t marked_ = 0, marked_steps_ = 0;
    std::vector<std::jthread> threads_; // last
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_HANDLER_THREADS_HPP
