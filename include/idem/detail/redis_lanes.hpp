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
/// slower than a connection per thread.) As long as a lane comes back at once, one is enough, and
/// its batches are the larger; while it is away for longer, because the server is far or does not
/// answer, the next lane serves those who wait.
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
    /// For a lane to come back before another is taken: by who comes, and, as a timer that rings is
    /// dear, by who waits.
    static constexpr std::chrono::microseconds patience{400}, long_patience{10'000};

    void carry_out(RedisCall& call) {
        std::unique_lock lock(mutex_);
        if (auto* lane = is_served(nullptr) ? nullptr : take_free()) {
            lock.unlock();
            lead(*lane, call);
            return;
        }
        RedisBatch& batch = *filling_;
        batch.add(call);
        auto seen = batch.word();
        lock.unlock();
        for (bool late = false;;) {
            std::optional<Deadline> until; // late, and on its way: its lane's deadline ends it
            if (!late) {
                const auto soon = std::chrono::steady_clock::now() + long_patience;
                until = soon < call.deadline ? soon : call.deadline;
            }
            late = (!batch.wait(seen, until) && until == call.deadline) || late;
            seen = batch.word(); // before the look, so that what comes after it ends the wait
            if (call.over.load(std::memory_order_acquire) || take_part(batch, call, late)) {
                return;
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
        bool took_long = true;
        try {
            took_long = lane.connect(address_, call.deadline, looks_);
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
        if (took_long) {
            lane.since = std::chrono::steady_clock::now();
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
        if (filling_->empty() || is_served(&lane)) {
            return nullptr;
        }
        lane.since = std::chrono::steady_clock::now();
        return &take_queue(lane);
    }
    RedisBatch& take_queue(RedisLane& lane) noexcept {
        RedisBatch* batch = std::exchange(filling_, take_spare());
        batch->lane = &lane;
        return *batch;
    }
    /// Whether another lane than `mine` is to come back soon, and looks at the queue then.
    [[nodiscard]] bool is_served(const RedisLane* mine) const noexcept {
        for (const auto& lane : lanes_) {
            if (lane.busy && &lane != mine &&
                lane.since + patience > std::chrono::steady_clock::now()) {
                return true;
            }
        }
        return false;
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
            free->since = std::chrono::steady_clock::now();
        }
        return free;
    }
    /// Unlocks. Where somebody waits, and no other lane comes for them, one of them is woken to
    /// take this one.
    void release(RedisLane& lane, std::unique_lock<std::mutex>& lock) noexcept {
        lane.busy = false;
        RedisBatch* waiting = filling_->empty() || is_served(nullptr) ? nullptr : filling_;
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
