// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_CONSUMER_LOOP_HPP
#define IDEM_BROKER_CONSUMER_LOOP_HPP

// What idem::run does, turn by turn.

#include <idem/broker/custody.hpp>
#include <idem/broker/source_powers.hpp>
#include <idem/detail/delivery_task.hpp>
#include <idem/detail/handler_threads.hpp>
#include <idem/detail/pace.hpp>
#include <idem/detail/store_gate.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

template <class Handler, class Delivery>
concept RunsBatches = requires(const Handler& handler,
                               std::span<const Delivery> deliveries,
                               std::stop_token stop) {
    { handler.batch(deliveries, stop)[0].settlement() } -> std::same_as<Settlement>;
};

/// One thread calls it: that of run(). Handlers run on others; all that they share with it is in
/// HandlerThreads and in a job's atomics.
template <class S, class Handler, class Options, class Clock = LoopClock>
class ConsumerLoop {
    using Delivery = typename S::Delivery;
    using Time = typename Clock::time_point;
    using Task = DeliveryTask<Delivery, Time>;
    using Job = HandlerJob<Task>;
    static constexpr bool in_order = LanedSource<S>, batches = RunsBatches<Handler, Delivery>;

public:
    ConsumerLoop(S& source, const Handler& handler, std::stop_token stop, const Options& options)
        : options_(options)
        , stop_(stop)
        , custody_(source, options.observer, options.hold)
        , threads_(handler, options.concurrency, std::move(stop)) {}

    void run() {
        const std::stop_callback wake(stop_, [this] { threads_.wake(); });
        while (!stopping_ || !jobs_.empty() || !custody_.all_settled()) {
            progress_ = false;
            now_ = Clock::now();
            collect();
            notice_stop();
            progress_ = custody_.settle(grace_over_) || progress_;
            custody_.extend(jobs_, now_);
            receive();
            start();
            if (progress_) {
                quiet_ = shortest;
            } else {
                wait();
            }
        }
        if (custody_.source().failure()) {
            std::rethrow_exception(custody_.source().failure());
        }
    }

private:
    // ---- what handlers came to ------------------------------------------------------------------
    void collect() {
        threads_.mark();
        for (std::size_t i = 0; i < jobs_.size();) {
            if (collect(*jobs_[i])) {
                jobs_[i] = std::move(jobs_.back());
                jobs_.pop_back();
            } else {
                ++i;
            }
        }
        pace_.turn(now_, options_.poll);
    }
    /// True: the job is over.
    bool collect(Job& job) {
        const bool ended = job.ended.load();
        const std::size_t finished = job.finished.load();
        std::vector<bool> shelved;
        if (ended) { // first what did not start, for a retry goes in front of it
            for (std::size_t at = job.tasks.size(); at-- > finished;) {
                custody_.shelve(job.take(at));
            }
            shelved = shelve_behind_retries(job, finished);
        }
        for (; job.collected < finished; ++job.collected) {
            if (!shelved.empty() && shelved[job.collected]) {
                continue;
            }
            const auto action = job.tasks[job.collected].settlement.action;
            if (in_order && !ended && action != Action::ack) {
                break; // the thread is about to end the job
            }
            dispose(job.take(job.collected));
            pace_.finished();
            progress_ = true;
        }
        if (ended) {
            for (std::size_t i = 0; i < (job.is_batch() ? job.tasks.size() : 1); ++i) {
                custody_.shelf().finish(job.tasks[i].lane);
            }
            store_.ended(&job);
            progress_ = true;
        }
        return ended;
    }
    /// The retries that stand behind another of their lane wait behind it, as if they had not
    /// started. Which they are; empty: none.
    std::vector<bool> shelve_behind_retries(Job& job, std::size_t finished) {
        std::vector<bool> behind;
        if (in_order && job.is_batch()) {
            behind = job.behind_retries(finished);
        }
        for (std::size_t at = behind.size(); at-- > job.collected;) {
            if (behind[at]) {
                note_store(job.tasks[at].settlement); // its thread shut the others on it
                custody_.shelve(job.take(at));
            }
        }
        return behind;
    }
    void dispose(Task&& task) {
        note_store(task.settlement);
        if (task.lost) {
            custody_.source().tell(task.settlement, Settled::lost);
            if (task.settlement.action != Action::stop) { // a human must act all the same
                return;
            }
        }
        switch (task.settlement.action) {
        case Action::ack:
            custody_.decide(std::move(task));
            return;
        case Action::dead_letter:
            custody_.bury(std::move(task));
            return;
        case Action::retry:
            custody_.retry(std::move(task), now_);
            return;
        case Action::stop:
            break;
        }
        custody_.source().fail(task.error
                                   ? task.error
                                   : std::make_exception_ptr(StoreError(
                                         Fault::rejected, "idem: " + task.settlement.detail)));
    }
    void note_store(const Settlement& settlement) {
        using Change = typename StoreGate<Clock>::Change;
        const auto change = store_.note(settlement, now_);
        if (change == Change::closed) {
            threads_.shut();
            threads_.reclaim();
        } else if (change == Change::opened && !stopping_) {
            threads_.open();
        }
    }
    void notice_stop() {
        if (!stopping_ && (stop_.stop_requested() || custody_.source().failure())) {
            stopping_ = true;
            grace_until_ = now_ + options_.grace;
            threads_.shut();
            threads_.reclaim();
            custody_.leave_all();
        }
        if (stopping_ && !grace_over_ && now_ >= grace_until_) {
            grace_over_ = true;
            for (auto& job : jobs_) {
                for (auto& stop : job->stops) {
                    stop.request_stop();
                }
            }
        }
    }

    // ---- what comes, and starts -----------------------------------------------------------------
    [[nodiscard]] bool store_is_up() const noexcept {
        return store_.is_open() && !threads_.is_shut();
    }
    [[nodiscard]] std::size_t room() const {
        const auto& shelf = custody_.shelf();
        if (stopping_ || shelf.waiting() >= pace_.most_ahead) {
            return 0;
        }
        if (!store_is_up()) { // one to try it with, where there is none
            const bool none = jobs_.empty() && !shelf.can_start();
            return none && store_.may_probe(now_) ? 1 : 0;
        }
        std::size_t here = shelf.unheld();
        for (const auto& job : jobs_) {
            here += job->tasks.size() - job->collected;
        }
        const std::size_t limit = options_.concurrency * options_.batch + pace_.ahead();
        return here < limit ? limit - here : 0;
    }
    void receive() {
        const std::size_t most = room();
        auto time = milliseconds{0};
        if (most > 0 && jobs_.empty() && custody_.all_settled() && !custody_.shelf().can_start()) {
            auto until = custody_.shelf().next_due(now_ + options_.poll); // nothing else to do
            until = custody_.extends_at() < until ? custody_.extends_at() : until;
            time = until > now_ ? std::chrono::ceil<milliseconds>(until - now_) : time;
        }
        const bool waits = time > milliseconds{0} && custody_.source().can_be_asked();
        auto received = custody_.source().receive(time, most);
        if (!received.empty()) { // else how often it is reached would depend on the clock
            IDEM_FAILPOINT("run: received");
        }
        if (waits) {
            now_ = Clock::now();
        }
        progress_ = progress_ || waits || !received.empty();
        for (auto& delivery : received) {
            custody_.take_in(std::move(delivery), now_);
        }
    }
    void start() {
        if (stopping_ || custody_.source().failure()) { // nothing overtakes what it failed at
            return;
        }
        custody_.wake(now_);
        while (custody_.shelf().can_start() && jobs_.size() < 2 * options_.concurrency) {
            if (store_is_up()) {
                submit(false);
            } else if (store_.may_probe(now_)) {
                submit(true);
            } else {
                return;
            }
        }
    }
    void submit(bool probing) {
        auto& shelf = custody_.shelf();
        bool as_batch = false;
        if constexpr (batches) {
            as_batch = options_.batch > 1 && !probing;
        }
        // Chains grow with what waits, so that quick handlers are not handed their work one by one.
        const std::size_t chain = probing ? 1 : shelf.waiting() / (4 * options_.concurrency) + 1;
        auto tasks = as_batch ? shelf.take_batch(options_.batch) : shelf.take_chain(chain);
        jobs_.push_back(std::make_unique<Job>(std::move(tasks), as_batch));
        if (probing) {
            store_.probing(jobs_.back().get(), now_);
            threads_.open();
        }
        threads_.submit(*jobs_.back());
        progress_ = true;
    }
    void wait() {
        quiet_ = quiet_ < options_.poll ? quiet_ : options_.poll;
        auto until = custody_.shelf().next_due(now_ + quiet_);
        auto sooner = [&](Time time) { until = time > now_ && time < until ? time : until; };
        sooner(custody_.extends_at());
        sooner(store_.until());
        sooner(custody_.source().until());
        if (stopping_) {
            sooner(grace_until_);
        }
        // Quick handlers finish a chain meanwhile; each of the slow ones is settled at once.
        threads_.template wait<Clock>(until, quiet_ > shortest);
        quiet_ *= 2;
    }

    const Options options_;
    const std::stop_token stop_;
    Custody<S, Clock, Task, in_order> custody_;
    std::vector<std::unique_ptr<Job>> jobs_; // with the threads
    StoreGate<Clock> store_;
    Pace<Clock> pace_;
    Time now_{}, grace_until_{};
    static constexpr milliseconds shortest{1};
    milliseconds quiet_ = shortest; // since when nothing happened, about
    bool stopping_ = false, grace_over_ = false, progress_ = false;
    HandlerThreads<Handler, Job, in_order, batches> threads_; // last: joined before the jobs go
};

} // namespace idem::inline v0::detail

#endif // IDEM_BROKER_CONSUMER_LOOP_HPP
