// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_STOP_SIGNAL_HPP
#define EXAMPLES_STOP_SIGNAL_HPP

// SIGTERM and SIGINT as a stop token.

#include <csignal>
#include <ctime>
#include <stop_token>
#include <thread>

/// To be made before any other thread, which inherit that the signals are blocked.
class StopSignal {
public:
    StopSignal() {
        sigemptyset(&signals_);
        sigaddset(&signals_, SIGTERM);
        sigaddset(&signals_, SIGINT);
        pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
        waiter_ = std::jthread([this](const std::stop_token& over) {
            const timespec pause{.tv_sec = 0, .tv_nsec = 50'000'000};
            while (!over.stop_requested() && sigtimedwait(&signals_, nullptr, &pause) < 0) {
            }
            stop_.request_stop();
        });
    }
    [[nodiscard]] std::stop_token token() const { return stop_.get_token(); }

private:
    sigset_t signals_{};
    std::stop_source stop_;
    std::jthread waiter_;
};

#endif // EXAMPLES_STOP_SIGNAL_HPP
