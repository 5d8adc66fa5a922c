// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_FREEZE_HPP
#define IDEM_TESTS_PROOF_FREEZE_HPP

// A worker that stops itself, as by SIGSTOP, at a place that a signal names. To be included before
// the library's other headers: its failpoints are places.

#ifdef IDEM_DETAIL_FAILPOINT_HPP
#error "the library's failpoints are no places any more: freeze.hpp is to be included before it"
#endif
#include <idem/detail/failpoint.hpp>

#include <atomic>
#include <csignal>
#include <string_view>
#include <unistd.h>

#undef IDEM_FAILPOINT
#define IDEM_FAILPOINT(name) ::idem::proof::Freeze::reached(name)

namespace idem::proof {

class Freeze {
public:
    static constexpr int in_handler = SIGUSR1;    ///< outputs are in the open transaction
    static constexpr int before_commit = SIGUSR2; ///< the offsets are, too

    static void listen() {
        for (const int signal : {in_handler, before_commit}) {
            struct sigaction action {};
            action.sa_handler = [](int number) { wanted_.store(number); };
            ::sigaction(signal, &action, nullptr);
        }
    }
    static void reached(std::string_view place) noexcept {
        if (const int wanted = wanted_.load(std::memory_order_relaxed); wanted != 0) {
            const bool here = wanted == in_handler ? place == "handler: sent"
                                                   : place == "kafka transaction: before commit";
            if (here && wanted_.exchange(0) != 0) {
                ::kill(::getpid(), SIGSTOP);
            }
        }
    }

private:
    static inline std::atomic<int> wanted_{0};
};

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_FREEZE_HPP
