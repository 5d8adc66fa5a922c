// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_LANES_HPP
#define IDEM_DETAIL_REDIS_LANES_HPP

// A few connections that all threads share: commands of many callers travel together.

#include <idem/detail/redis_lane.hpp>

#include <chrono>
#include <cstddef>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// A caller that finds a lane free takes it and sends at once. One that finds none joins the queue;
/// whoever has a lane takes the whole queue as its next batch, sends it *before* it wakes those of
/// the last one, and goes on so for a few batches before one of the next batch's own threads takes
/// the lane over. (One leader that stops and waits, and a wake-up per caller, were measured to be
/// slower than a connection per thread.) The lanes beyond the first serve a few callers side by
/// side; many share one, in larger batches, and use another where that one does not come back.
/// Connects to nothing before the first call.
/// Concurrency: any number of threads; a child of a fork is refused.
class RedisLanes {
public:
    /// `looks`: how often to look for an answer before sleeping. Requires: count > 0.
    RedisLanes(RedisAddress address, std::size_t count, unsigned looks)
        : address_(std::move(address))
        , where_(address_.where())
        , looks_(looks)
        , lanes_(count)
        , batches_(2 * count + 1) { // a lane has one on its way and one before; one fills
        for (auto& batch : batches_) {
            spare_.push_back(&batch);
        }
        filling_ = take_spare();
    }
    RedisLanes(const RedisLanes&) = delete;
    RedisLanes& operator=(const RedisLanes&) = delete;

    /// All replies, in order.
    /// Cost: one round trip.
    /// Throws: StoreError unavailable where nothing was sent, in_doubt where no answer came;
    /// std::logic_error in a child of a fork.
    std::vector<RedisReply> exchange(const RedisPipeline& pipeline, Deadline deadline) {
        if (::getpid() != process_) {
            throw std::logic_error("idem: this store was made before fork(); parent and child must "
                                   "not share its connections: make a store in each process");
        }
        for (milliseconds pause{1};; pause *= 2) {
            RedisCall call(pipeline, deadline);
            carry_out(call);
            if (!call.fault) {
                return std::move(call.replies);
            }
            if (!call.unsent || std::chrono::steady_clock::now() + pause >= deadline) {
                throw StoreError(*call.fault, call.problem);
            }
            std::this_thread::sleep_for(pause); // the link broke under others
        }
    }
    [[nodiscard]] const std::string& where() const noexcept { return where_; }

private:
    static constexpr unsigned batches_of_a_turn = 8;
    static constexpr std::size_t few = 3;
    /// A lane answers far sooner; then another is tried.
    static constexpr milliseconds patience{10};

    void carry_out(RedisCall& call) {
        std::unique_lock lock(mutex_);
        if (auto* lane = calls_beside(nullptr) < few ? take_free() : nullptr) {
            lock.unlock();
            lead(*lane, call);
            return;
        }
        RedisBatch& batch = *filling_;
        batch.add(call);
        auto seen = batch.word();
        lock.unlock();
        const auto soon = std::chrono::steady_clock::now() + patience;
        std::optional<Deadline> until = soon < call.deadline ? soon : call.deadline;
        for (;;) {
            const bool in_time = batch.wait(seen, until);
            const bool late = !in_time && until == call.deadline;
            seen = batch.word(); // before the look, so that what comes after it ends the wait
            if (call.over.load(std::memory_order_acquire) || take_part(batch, call, late)) {
                return;
            }
            if (late) {
                until.reset(); // it is on its way: its lane's deadline is what ends it
            } else if (!in_time) {
                until = call.deadline;
            }
        }
    }
    /// What a thread does that was woken before its call was over. True: it is over now.
    bool take_part(RedisBatch& batch, RedisCall& call, bool late) {
        std::unique_lock lock(mutex_);
        if (call.over.load(std::memory_order_acquire)) {
            return true; // the batch may be another's by now
        }
        if (batch.forsaken) {
            batch.forsaken = false;
            lock.unlock();
            serve(*batch.lane, batch, call);
            return true;
        }
        if (&batch != filling_) {
            return false;
        }
        RedisLane* lane = take_free();
        if (lane == nullptr && !late) {
            return false;
        }
        batch.remove(call);
        if (late) {
            call.fail(Fault::unavailable, RedisLane::too_late());
            if (lane != nullptr) {
                release(*lane, lock);
            }
        } else {
            lock.unlock();
            lead(*lane, call);
        }
        return true;
    }

    /// Sends the call, and whatever waits with it, on a lane that is the caller's.
    void lead(RedisLane& lane, RedisCall& call) {
        try {
            lane.connect(address_, call.deadline, looks_);
        } catch (const StoreError& error) {
            call.fail(error.fault(), error.what());
        } catch (const std::exception& error) {
            call.fail(Fault::unavailable, error.what());
        }
        std::unique_lock lock(mutex_);
        if (call.fault) {
            release(lane, lock);
            return;
        }
        RedisBatch& batch = take_queue(lane);
        batch.add(call);
        lock.unlock();
        lane.send(batch);
        serve(lane, batch, call);
    }
    /// Reads the answers of a batch that was sent, and keeps the lane busy for a while.
    void serve(RedisLane& lane, RedisBatch& first, const RedisCall& own) noexcept {
        RedisBatch* batch = &first;
        for (unsigned served = 1;; ++served) {
            lane.receive(*batch);
            const bool good = lane.keep();
            RedisBatch* next = good ? take_queue_of(lane) : nullptr;
            if (next != nullptr) {
                lane.send(*next);
            }
            batch->finish(own);
            std::unique_lock lock(mutex_);
            spare_.push_back(batch);
            if (next == nullptr) {
                release(lane, lock);
                return;
            }
            if (served == batches_of_a_turn) {
                next->forsaken = true;
                lock.unlock();
                next->wake(1);
                return;
            }
            batch = next;
        }
    }

    RedisBatch* take_spare() noexcept {
        auto* batch = spare_.back();
        spare_.pop_back();
        return batch;
    }
    /// Nothing where nobody waits, or another lane is to have them.
    RedisBatch* take_queue_of(RedisLane& lane) noexcept {
        const std::scoped_lock lock(mutex_);
        return filling_->size() > 0 && calls_beside(&lane) < few ? &take_queue(lane) : nullptr;
    }
    RedisBatch& take_queue(RedisLane& lane) noexcept {
        RedisBatch* batch = std::exchange(filling_, take_spare());
        batch->lane = &lane;
        lane.calls = batch->size();
        lane.since = std::chrono::steady_clock::now();
        return *batch;
    }
    /// In the queue and on other lanes that may come back soon; 0 where no other is busy, so that this one has to serve them.
    [[nodiscard]] std::size_t calls_beside(const RedisLane* mine) const noexcept {
        std::size_t calls = 0;
        for (const auto& lane : lanes_) {
            if (lane.busy && &lane != mine &&
                lane.since + patience > std::chrono::steady_clock::now()) {
                calls += lane.calls;
            }
        }
        return calls == 0 ? 0 : calls + filling_->size();
    }
    /// One that is connected, if there is one.
    RedisLane* take_free() noexcept {
        RedisLane* free = nullptr;
        for (auto& lane : lanes_) {
            if (!lane.busy && (free == nullptr || (!free->is_connected() && lane.is_connected()))) {
                free = &lane;
            }
        }
        if (free != nullptr) {
            free->busy = true;
            free->calls = 1;
            free->since = std::chrono::steady_clock::now();
        }
        return free;
    }
    /// Unlocks. Where somebody waits and no lane is left, one of them is woken to take this one.
    void release(RedisLane& lane, std::unique_lock<std::mutex>& lock) noexcept {
        lane.busy = false;
        RedisBatch* waiting =
            filling_->size() > 0 && calls_beside(nullptr) == 0 ? filling_ : nullptr;
        lock.unlock();
        if (waiting != nullptr) {
            waiting->wake(1);
        }
    }

    RedisAddress address_;
    std::string where_;
    unsigned looks_;
    pid_t process_ = ::getpid();
    std::mutex mutex_;
    std::vector<RedisLane> lanes_;
    std::vector<RedisBatch> batches_;
    std::vector<RedisBatch*> spare_;
    RedisBatch* filling_ = nullptr;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_LANES_HPP
