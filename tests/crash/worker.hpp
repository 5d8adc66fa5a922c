// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_CRASH_WORKER_HPP
#define IDEM_TESTS_CRASH_WORKER_HPP

// What the workers of the crash tests share: the message, how its handler fares, and a source that
// gives the next only when the last is settled, so that each run reaches the same steps.

#ifndef IDEM_FAILPOINTS
#error "a worker without failpoints cannot be killed at them"
#endif

#include <idem/broker/source.hpp>
#include <idem/detail/failpoint.hpp>
#include <idem/idem.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "crash/checker.hpp"
#include "crash/journal.hpp"

namespace idem::crash_test {

struct Charge {
    std::string id;
    long cents = 0;
    std::string manner{}; ///< of its handler: flaky, poison
};

template <class Delivery>
Charge charge_of(const Delivery& delivery) {
    const std::string payload(delivery.payload());
    const auto cents = cents_of(payload);
    if (!cents) {
        throw std::runtime_error("no number of cents: " + payload);
    }
    const auto space = payload.find(' ');
    return {std::string(delivery.identity().id.view()),
            *cents,
            space == std::string::npos ? "" : payload.substr(space + 1)};
}

/// The start of every handler: counted in a file, so that a kill does not undo it.
class HandlerStarts {
public:
    explicit HandlerStarts(std::string path) : path_(std::move(path)) {}

    void begin(const Charge& charge) const {
        append_line(path_, charge.id);
        if (charge.manner == "poison") {
            ::kill(::getpid(), SIGKILL);
        }
        const auto starts = lines_of(path_);
        if (charge.manner == "flaky" && std::count(starts.begin(), starts.end(), charge.id) == 1) {
            throw std::runtime_error("the first call fails");
        }
        IDEM_FAILPOINT("handler: started");
    }

private:
    std::string path_;
};

/// At most `abreast` deliveries at a time, none before all of the last are settled. Requests the
/// stop when the source is drained.
template <class S>
class Lockstep {
public:
    using Delivery = typename S::Delivery;

    Lockstep(S& source, std::size_t abreast) : source_(source), abreast_(abreast) {}

    [[nodiscard]] std::stop_token stop_token() const { return stop_.get_token(); }

    std::vector<Delivery> receive(milliseconds time, std::size_t at_most) {
        std::vector<Delivery> received;
        if (out_ > 0) {
            std::this_thread::sleep_for(time);
            return received;
        }
        if (at_most > 0) {
            received = source_.receive(time, std::min(at_most, abreast_));
            out_ = received.size();
            if (out_ == 0 && source_.drained()) {
                stop_.request_stop();
            }
        }
        return received;
    }
    std::vector<Delivery> receive(milliseconds time) { return receive(time, abreast_); }
    Settled settle(Delivery& delivery, const Settlement& settlement) {
        const auto settled = source_.settle(delivery, settlement);
        --out_;
        return settled;
    }
    bool extend(Delivery& delivery, milliseconds time) { return source_.extend(delivery, time); }
    [[nodiscard]] DeliveryDeadline deadline() const {
        if constexpr (DeadlinedSource<S>) {
            return source_.deadline();
        } else {
            return {};
        }
    }

private:
    S& source_;
    std::size_t abreast_, out_ = 0;
    std::stop_source stop_{};
};

/// Until the source is drained.
template <class S, class Bill>
void drain(S& source, const Bill& bill, std::size_t abreast) {
    Lockstep<S> lockstep(source, abreast);
    run(lockstep,
        decoding([](const auto& delivery) { return charge_of(delivery); }, bill),
        lockstep.stop_token(),
        {.batch = abreast, .poll = milliseconds{10}});
}

/// main() of a worker. 1: it threw.
template <class Work>
int guarded(int count, char** values, const Work& work) {
    try {
        work(std::vector<std::string>(values + 1, values + count));
        return 0;
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}

} // namespace idem::crash_test

#endif // IDEM_TESTS_CRASH_WORKER_HPP
