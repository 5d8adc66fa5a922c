// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_LEASE_HPP
#define IDEM_STRATEGY_LEASE_HPP

// What a handler under a lease is given, and what decides after a takeover.

#include <idem/detail/siphash.hpp>
#include <idem/heartbeat.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0 {

namespace detail {

/// The clock by which an owner counts its lease: the store's own where it names one, so that
/// virtual time reaches both.
template <class S>
std::chrono::nanoseconds lease_now() noexcept {
    if constexpr (requires { typename S::Clock; }) {
        return std::chrono::duration_cast<std::chrono::nanoseconds>(
            S::Clock::now().time_since_epoch());
    } else {
        return BootClock::now().time_since_epoch();
    }
}

/// The stop of one call under a lease. Made once somebody asks for its token: most handlers do not.
/// Concurrency: any number of threads.
class LeaseStop {
public:
    /// `outer`: another reason to stop.
    explicit LeaseStop(std::stop_token outer) noexcept : outer_(std::move(outer)) {}
    LeaseStop(const LeaseStop&) = delete;
    LeaseStop& operator=(const LeaseStop&) = delete;

    [[nodiscard]] std::stop_token token() {
        const std::scoped_lock lock(mutex_);
        if (!source_.stop_possible()) {
            source_ = std::stop_source();
            forward_.emplace(outer_, Forward{source_});
            if (requested_) {
                source_.request_stop();
            }
        }
        return source_.get_token();
    }
    void request_stop() noexcept {
        std::stop_source source(std::nostopstate);
        {
            const std::scoped_lock lock(mutex_);
            requested_ = true;
            source = source_;
        }
        source.request_stop(); // outside the lock: runs the handler's own callbacks
    }

private:
    struct Forward {
        std::stop_source source;
        void operator()() noexcept { source.request_stop(); }
    };

    std::stop_token outer_;
    std::mutex mutex_;
    std::stop_source source_{std::nostopstate};
    bool requested_ = false;
    std::optional<std::stop_callback<Forward>> forward_;
};

inline void absorb_part(std::string& all, std::string_view part) {
    for (unsigned shift = 0; shift < 64; shift += 8) {
        all += static_cast<char>((std::uint64_t{part.size()} >> shift) & 0xff);
    }
    all += part;
}

} // namespace detail

/// The context of a handler under a lease. Valid during the call.
class Lease {
public:
    using Clock = std::chrono::nanoseconds (*)() noexcept;

    Lease(Key key,
          std::uint64_t fence,
          unsigned attempt,
          milliseconds length,
          Clock now,
          const std::atomic<std::chrono::nanoseconds::rep>& renewed_at,
          detail::LeaseStop& stop) noexcept
        : key_(key)
        , fence_(fence)
        , attempt_(attempt)
        , length_(length)
        , now_(now)
        , renewed_at_(renewed_at)
        , stop_(stop) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    /// Grows with every claim of the key. For writes of your own: refuse what is below the highest
    /// fence seen, `… AND fence <= $n`.
    [[nodiscard]] std::uint64_t fence() const noexcept { return fence_; }
    /// Counts from 1.
    [[nodiscard]] unsigned attempt() const noexcept { return attempt_; }
    /// Asked to stop when the lease or the delivery is lost, max_handler_time is over, or the
    /// process stops.
    /// Throws: std::bad_alloc.
    [[nodiscard]] std::stop_token stop_token() const { return stop_.token(); }
    /// How long nobody else can own the key, counted from before the last successful claim or
    /// renewal was sent, less a margin for the drift of two clocks. Negative: over.
    [[nodiscard]] milliseconds remaining() const noexcept {
        const auto since = now_() - std::chrono::nanoseconds(renewed_at_.load());
        const auto margin = length_ / 10 < milliseconds{500} ? length_ / 10 : milliseconds{500};
        return std::chrono::duration_cast<milliseconds>(length_ - margin - since);
    }
    /// To be called before an effect that must not overlap another owner's.
    /// Throws: StoreError lease_lost where the lease is over.
    void ensure_held() const {
        if (remaining() <= milliseconds{0}) {
            throw StoreError(Fault::lease_lost, "idem: the lease is over, do not go on");
        }
    }
    /// A key for a downstream API that honours idempotency keys: 32 hexadecimal digits that depend
    /// on scope, id and step alone, the same on every attempt.
    [[nodiscard]] std::string derived_key(std::string_view step) const {
        std::string all;
        detail::absorb_part(all, key_.scope);
        detail::absorb_part(all, key_.id);
        detail::absorb_part(all, step);
        const auto digest = detail::siphash128(all, 0x6964656d'20646572, 0x69766564'206b6579);
        std::string text;
        for (const std::uint64_t half : {digest.high, digest.low}) {
            for (int shift = 60; shift >= 0; shift -= 4) {
                text += "0123456789abcdef"[(half >> shift) & 0xf];
            }
        }
        return text;
    }

private:
    Key key_;
    std::uint64_t fence_;
    unsigned attempt_;
    milliseconds length_;
    Clock now_;
    const std::atomic<std::chrono::nanoseconds::rep>& renewed_at_;
    detail::LeaseStop& stop_;
};

/// What to do with a key whose earlier owner ran out of its lease, or whose handler threw anything
/// but NotDone, RetryLater or Unprocessable: its effect may have happened (semantics.md 4.2).
enum class Takeover {
    rerun, ///< run the handler again: at least once
    park,  ///< dead-letter it, reason::parked, for a human
    ask,   ///< ask the Verifier
};
enum class Effect { done, not_done, unknown };

/// Finds out whether an effect happened, at the payment provider for example.
/// Concurrency: called on the thread of the call.
class Verifier {
public:
    /// Of `done`, `result` is to hold the Codec's bytes. A throw means unknown.
    virtual Effect verify(Key key, std::string& result) = 0;

protected:
    ~Verifier() = default;
};

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_LEASE_HPP
