// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_DELIVERY_KEEPER_HPP
#define IDEM_BROKER_DELIVERY_KEEPER_HPP

// Keeps the deliveries that are here from going to another consumer.

#include <idem/broker/source_powers.hpp>

namespace idem::inline v0::detail {

/// Extends at a third of the source's deadline. Where that cannot be renewed, it is the end.
template <class Source, class Task>
class DeliveryKeeper {
    using Time = typename Task::Time;

public:
    explicit DeliveryKeeper(Source& source) : source_(source), deadline_(source.deadline()) {}

    [[nodiscard]] bool renews() const noexcept { return deadline_.renewable; }
    /// When a delivery that is received now is extended first.
    [[nodiscard]] Time first(Time now) const noexcept { return now + third(); }
    /// Whether it can be held until it is due.
    [[nodiscard]] bool lasts(const Task& task) const noexcept {
        return renews() || task.due < end_of(task);
    }

    /// When the next is to be extended: then begin(), and keep() of each that is here.
    [[nodiscard]] Time next() const noexcept { return next_; }
    [[nodiscard]] bool is_time(Time now) const noexcept { return now >= next_; }
    void begin(Time now, bool also_early) noexcept {
        now_ = now;
        also_early_ = also_early;
        next_ = now + third(); // what is received from now on is not due before
    }
    /// False: it is not ours any more, or late.
    [[nodiscard]] bool keep(typename Task::Delivery& delivery, Task& task) {
        if (!renews()) {
            sooner(end_of(task));
            return now_ < end_of(task);
        }
        auto answer = Source::Extended::not_asked;
        if (also_early_ || task.extend_at <= now_ + third() / 4) { // a few together
            answer = source_.extend(delivery, deadline_.length);
            task.extend_at = answer == Source::Extended::yes ? now_ + third() : source_.until();
        }
        sooner(task.extend_at);
        return answer != Source::Extended::lost;
    }

private:
    [[nodiscard]] milliseconds third() const noexcept { return deadline_.length / 3; }
    [[nodiscard]] Time end_of(const Task& task) const noexcept {
        return task.received + deadline_.length;
    }
    void sooner(Time time) noexcept { next_ = time > now_ && time < next_ ? time : next_; }

    Source& source_;
    const DeliveryDeadline deadline_;
    Time now_{}, next_{};
    bool also_early_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_BROKER_DELIVERY_KEEPER_HPP
