// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_KILLED_WORKER_HPP
#define EXAMPLES_KILLED_WORKER_HPP

// A worker that is killed with SIGKILL whenever a further part of the work is done, and started
// again until all of it is.

#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../tests/support/child_process.hpp"
#include "demo.hpp"

/// The worker is this very program, with `words`. `done()` counts what took effect, where it is to
/// be seen: in the database, at the broker. Returns the number of kills.
template <class Done>
int work_and_kill(const std::string& name,
                  std::vector<std::string> words,
                  long all,
                  int kills,
                  const Done& done) {
    words.insert(words.begin(), "/proc/self/exe");
    Progress progress(name);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(10);
    for (int killed = 0;; ++killed) {
        idem::testing_support::ChildProcess worker(words);
        const long until = killed < kills ? all * (killed + 1) / (kills + 1) : all;
        for (long now = done(); now < until; now = done()) {
            if (!worker.running() || std::chrono::steady_clock::now() > deadline) {
                throw std::runtime_error("the worker does not go on");
            }
            progress.show(now, all, killed);
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        if (killed == kills) {
            worker.kill(SIGTERM); // the loop settles what is at work, and ends
            if (!worker.wait(std::chrono::minutes(1))) {
                throw std::runtime_error("the worker does not stop");
            }
            progress.over();
            return kills;
        }
        worker.kill(SIGKILL);
        worker.wait(std::chrono::minutes(1));
    }
}

/// main() of such a program: without words it calls show(), as a worker work(words).
template <class Work, class Show>
int example_main(
    int count, char** arguments, const char* about, const Work& work, const Show& show) {
    const std::vector<std::string> words(arguments + 1, arguments + count);
    try {
        if (words.empty()) {
            return show();
        }
        if (words[0] == "worker") {
            return work({words.begin() + 1, words.end()});
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", arguments[0], error.what());
        return 1;
    }
    std::printf("usage: %s\n\n%s\n", arguments[0], about);
    return words[0] == "--help" ? 0 : 2;
}

#endif // EXAMPLES_KILLED_WORKER_HPP
