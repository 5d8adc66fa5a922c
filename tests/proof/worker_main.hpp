// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_WORKER_MAIN_HPP
#define IDEM_TESTS_PROOF_WORKER_MAIN_HPP

// What the worker programs of the proofs share: they run until SIGTERM, and print what fails.

#include <idem/observer.hpp>

#include <exception>
#include <iostream>
#include <string>
#include <unistd.h>
#include <vector>

#include "../../examples/stop_signal.hpp"

namespace idem::proof {

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
