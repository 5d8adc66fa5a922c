// SPDX-License-Identifier: MIT
#ifndef IDEM_HEARTBEAT_HPP
#define IDEM_HEARTBEAT_HPP

// Renews leases while handlers run: one thread per store (semantics.md 4.5).

#include <idem/dedup_store.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <time.h>

namespace idem::inline v0 {

/// Time since boot that goes on while the machine sleeps (CLOCK_BOOTTIME): an owner that was
/// suspended past its lease must see it.
struct BootClock {
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<BootClock>;
    static constexpr bool is_steady = true;
    static time_point now() noexcept {
        timespec time{};
        ::clock_gettime(CLOCK_BOOTTIME, &time);
        return time_point(std::chrono::seconds(time.tv_sec) +
                          std::chrono::nanoseconds(time.tv_nsec));
    }
};

namespace detail {

/// One lease under renewal. The ticket and `lost` outlive it.
struct Beating {
    void* store;
    const void* ticket;
    TicketState (*renew)(void* store, const void* ticket, milliseconds lease);
    std::chrono::nanoseconds (*lease_now)() noexcept; // the clock that the lease's owner reads
    milliseconds lease;
    milliseconds at_most; // max_handler_time: a hung handler must not hold a key for ever
    std::atomic<std::chrono::nanoseconds::rep>* renewed_at;
    void* lost;
    void (*request_stop)(void* lost);
    std::optional<BootClock::time_point> due{}; // none: not seen by the thread yet
    BootClock::time_point give_up{};
    Beating* next = nullptr;
    Beating* previous = nullptr;
};

/// The thread and the leases that it renews. Started by the first lease.
/// Most leases end long before they would be renewed, so that adding one must cost little: it asks
/// no clock and wakes nobody. The thread looks by itself, several times in the shortest lease, for
/// as long as any come.
class Pulse {
public:
    Pulse() = default;
    Pulse(const Pulse&) = delete;
    Pulse& operator=(const Pulse&) = delete;
    ~Pulse() = default;

    void add(Beating& beating) {
        const std::scoped_lock lock(mutex_);
        if (!thread_.joinable()) { // first, as it may throw
            thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
        }
        beating.next = first_;
        if (first_ != nullptr) {
            first_->previous = &beating;
        }
        first_ = &beating;
        added_ = true;
        const auto nap = beating.lease / 6 + milliseconds{1};
        if (nap < nap_) { // else the thread looks in time
            nap_ = nap;
            looked_ = BootClock::now();
            hurry_ = true;
            changed_.notify_all();
        }
    }
    /// Returns once the thread does not touch it any more.
    void remove(Beating& beating) noexcept {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return busy_ != &beating; });
        unlink(beating);
    }

private:
    void unlink(Beating& beating) noexcept {
        if (first_ != &beating && beating.previous == nullptr) {
            return; // given up earlier
        }
        (beating.previous != nullptr ? beating.previous->next : first_) = beating.next;
        if (beating.next != nullptr) {
            beating.next->previous = beating.previous;
        }
        beating.next = beating.previous = nullptr;
    }
    void run(const std::stop_token& stop) {
        std::unique_lock lock(mutex_);
        while (!stop.stop_requested()) {
            const auto now = BootClock::now();
            Beating* const soonest = look(now);
            if (soonest != nullptr && *soonest->due <= now) {
                beat(lock, *soonest);
                continue;
            }
            hurry_ = false;
            if (soonest == nullptr && !added_) { // none came since the last look
                nap_ = forever;
                changed_.wait(lock, stop, [this] { return hurry_; });
                continue;
            }
            added_ = false;
            const auto until =
                soonest != nullptr && *soonest->due < now + nap_ ? *soonest->due : now + nap_;
            changed_.wait_for(lock, stop, until - now, [this] { return hurry_; });
        }
    }
    /// The one whose turn comes next, if any.
    Beating* look(BootClock::time_point now) noexcept {
        Beating* soonest = nullptr;
        for (Beating* each = first_; each != nullptr; each = each->next) {
            if (!each->due) { // it came after the last look
                each->give_up = now + each->at_most;
                set_due(*each, looked_ + each->lease / 3);
            }
            soonest = soonest == nullptr || *each->due < *soonest->due ? each : soonest;
        }
        looked_ = now;
        return soonest;
    }
    static void set_due(Beating& one, BootClock::time_point time) noexcept {
        one.due = time < one.give_up ? time : one.give_up;
    }
    void beat(std::unique_lock<std::mutex>& lock, Beating& one) {
        busy_ = &one;
        lock.unlock();
        const bool keeps = renew(one);
        if (!keeps) {
            one.request_stop(one.lost); // outside the lock: runs the handler's own stop callbacks
        }
        lock.lock();
        if (!keeps) {
            unlink(one);
        }
        busy_ = nullptr;
        changed_.notify_all();
    }
    static bool renew(Beating& one) {
        const auto now = BootClock::now();
        if (now >= one.give_up) {
            return false;
        }
        const auto sent = one.lease_now();
        try {
            if (one.renew(one.store, one.ticket, one.lease) == TicketState::outdated) {
                one.renewed_at->store((sent - one.lease).count()); // nothing remains
                return false;
            }
        } catch (const std::exception&) { // not known: again soon, as long as the lease lasts
            set_due(one, now + one.lease / 10);
            const auto held_since = std::chrono::nanoseconds(one.renewed_at->load());
            return sent - held_since < one.lease;
        }
        one.renewed_at->store(sent.count());
        set_due(one, now + one.lease / 3);
        return true;
    }

    static constexpr milliseconds forever = milliseconds::max();

    std::mutex mutex_;
    std::condition_variable_any changed_;
    Beating* first_ = nullptr;
    Beating* busy_ = nullptr;
    bool hurry_ = false;             // the thread is to look now
    bool added_ = false;             // since it looked
    milliseconds nap_ = forever;     // how long it sleeps at most
    BootClock::time_point looked_{}; // when it did, or came to know that it must
    std::jthread thread_;            // last: joined before what it uses goes
};

} // namespace detail

/// A lease that is renewed as long as this lives. Neither copied nor moved.
class [[nodiscard]] Beat {
public:
    /// `make()` returns the detail::Beating, which is made in place.
    template <class Make>
    Beat(detail::Pulse& pulse, const Make& make) : pulse_(pulse)
                                                 , beating_(make()) {
        pulse_.add(beating_);
    }
    Beat(const Beat&) = delete;
    Beat& operator=(const Beat&) = delete;
    ~Beat() { pulse_.remove(beating_); }

private:
    detail::Pulse& pulse_;
    detail::Beating beating_;
};

/// A member of a RenewableStore: renews its tickets from one thread, started by the first keep().
/// The store's renew() must not wait for what handlers hold, a pool of connections for example.
template <class S>
class Heartbeat {
public:
    explicit Heartbeat(S& store) noexcept : store_(store) {}

    /// Renews within each third of `lease`, for `at_most` in all. When the ticket is outdated, the
    /// lease ran out unrenewed, or `at_most` is over, `lost.request_stop()` is called, once.
    /// `renewed_at` holds the send time of the last success, by `lease_now`. All references outlive
    /// the Beat.
    /// Cost: one round trip per third of the lease.
    template <class Ticket, class Lost>
    Beat keep(const Ticket& ticket,
              milliseconds lease,
              milliseconds at_most,
              Lost& lost,
              std::atomic<std::chrono::nanoseconds::rep>& renewed_at,
              std::chrono::nanoseconds (*lease_now)() noexcept) {
        constexpr milliseconds a_year = std::chrono::hours{24 * 365}; // so that a sum fits
        return Beat(pulse_, [&] {
            return detail::Beating{
                .store = &store_,
                .ticket = &ticket,
                .renew =
                    [](void* store, const void* held, milliseconds time) {
                        return static_cast<S*>(store)->renew(*static_cast<const Ticket*>(held),
                                                             time);
                    },
                .lease_now = lease_now,
                .lease = lease,
                .at_most = at_most < a_year ? at_most : a_year,
                .renewed_at = &renewed_at,
                .lost = &lost,
                .request_stop = [](void* one) { static_cast<Lost*>(one)->request_stop(); }};
        });
    }

private:
    S& store_;
    detail::Pulse pulse_;
};

/// | heartbeat()               | renews this store's tickets                                      |
template <class S>
concept BeatingStore = RenewableStore<S> && requires(S& store) {
    { store.heartbeat() } -> std::same_as<Heartbeat<S>&>;
};

} // namespace idem::inline v0

#endif // IDEM_HEARTBEAT_HPP
