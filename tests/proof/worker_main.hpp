// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_WORKER_MAIN_HPP
#define IDEM_TESTS_PROOF_WORKER_MAIN_HPP

// What the worker programs of the proofs share: they run until SIGTERM, and print what fails.

#include <idem/observer.hpp>

#include <csignal>
#include <ctime>
#include <exception>
#include <iostream>
#include <stop_token>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace idem::proof {

/// SIGTERM as a stop token. To be made before any other thread, which inherit that it is blocked.
class StopSignal {
public:
    StopSignal() {
        sigemptyset(&signals_);
        sigaddset(&signals_, SIGTERM);
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

/// To the worker's log, which a failed proof shows.
class PrintFailures final : public Observer {
public:
    explicit PrintFailures(std::string who) : who_(std::move(who)) {}
    void on(const Event&) noexcept override {}
    void settled(const Settlement& settlement, Settled settled) noexcept override {
        if (settlement.action != Action::ack && settlement.detail != last_) {
            last_ = settlement.detail;
            std::cerr << who_ << ": " << settlement.reason << ' ' << settlement.detail
                      << (settled == Settled::yes ? "\n" : " (lost)\n");
        }
    }
    void source_failed(const StoreError& error) noexcept override {
        std::cerr << who_ << ": source: " << error.what() << '\n';
    }

private:
    std::string who_, last_;
};

/// main() of a worker. 1: it threw.
template <class Work>
int worker_main(int count, char** values, const Work& work) {
    try {
        const StopSignal stop;
        work(std::vector<std::string>(values + 1, values + count), stop.token());
        return 0;
    } catch (const std::exception& error) {
        std::cerr << ::getpid() << ": " << error.what() << '\n';
        return 1;
    }
}

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_WORKER_MAIN_HPP
