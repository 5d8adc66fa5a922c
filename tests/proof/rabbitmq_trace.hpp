// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_RABBITMQ_TRACE_HPP
#define IDEM_TESTS_PROOF_RABBITMQ_TRACE_HPP

// What became of a worker's deliveries, in a file that outlives its kill. Told for those who read a
// proof's output: what is proved is counted on the servers.

#include <algorithm>
#include <cstddef>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <string>
#include <unistd.h>
#include <utility>

#include "proof/worker_main.hpp"

namespace idem::proof {

/// A byte each, so that nothing is half written.
namespace trace {
inline constexpr char replayed = 'r', acked = 'a', retried = 't', dead = 'd', lost = 'l',
                      in_doubt = '?', source_failed = 'f';
} // namespace trace

class Trace final : public Observer {
public:
    Trace(const std::string& path, std::string who)
        : file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644))
        , failures_(std::move(who)) {}
    Trace(const Trace&) = delete;
    Trace& operator=(const Trace&) = delete;
    ~Trace() { ::close(file_); }

    void on(const Event& event) noexcept override {
        if (event.status == Status::replayed) {
            write(trace::replayed);
        }
    }
    void settled(const Settlement& settlement, Settled settled) noexcept override {
        failures_.settled(settlement, settled);
        write(settled == Settled::lost                   ? trace::lost
              : settled == Settled::in_doubt             ? trace::in_doubt
              : settlement.action == Action::ack         ? trace::acked
              : settlement.action == Action::dead_letter ? trace::dead
                                                         : trace::retried);
    }
    void source_failed(const StoreError& error) noexcept override {
        failures_.source_failed(error);
        write(trace::source_failed);
    }

private:
    void write(char what) const noexcept { static_cast<void>(!::write(file_, &what, 1)); }

    int file_;
    PrintFailures failures_;
};

/// How often it happened.
inline std::size_t traced(const std::string& path, char what) {
    std::ifstream file(path);
    const std::string all{std::istreambuf_iterator<char>(file), {}};
    return static_cast<std::size_t>(std::count(all.begin(), all.end(), what));
}

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_RABBITMQ_TRACE_HPP
