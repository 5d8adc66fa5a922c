// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_MEMBER_HPP
#define IDEM_TESTS_PROOF_MEMBER_HPP

// A worker process of a proof: killed, started again, stopped in mid-work.

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/child_process.hpp"

namespace idem::proof {

/// Concurrency: one thread, which outlives it.
class Member {
public:
    /// The program and its arguments, of the incarnation of that name.
    using Command = std::function<std::vector<std::string>(const std::string& incarnation)>;

    Member(std::string name, Command command, const std::filesystem::path& directory)
        : name_(std::move(name))
        , command_(std::move(command))
        , log_(directory / (name_ + ".log")) {}

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    /// name.number
    [[nodiscard]] std::string incarnation() const {
        return name_ + '.' + std::to_string(incarnations_);
    }
    [[nodiscard]] bool is_there() const noexcept { return process_.has_value(); }
    [[nodiscard]] pid_t pid() const { return process_->pid(); }

    void start() {
        ++incarnations_;
        testing_support::ChildOptions options;
        options.output = log_;
        process_.emplace(command_(incarnation()), options);
    }
    /// Gone when it returns.
    void kill() {
        process_->kill(SIGKILL);
        static_cast<void>(process_->wait(std::chrono::seconds(60)));
        process_.reset();
    }
    void signal(int number) { process_->kill(number); }
    /// Whether the kernel has it stopped.
    [[nodiscard]] bool is_stopped() const {
        std::ifstream file("/proc/" + std::to_string(pid()) + "/stat");
        const std::string stat{std::istreambuf_iterator<char>(file), {}};
        const auto end = stat.rfind(')'); // of the program's name
        return end != std::string::npos && stat.compare(end, 3, ") T") == 0;
    }
    /// Asks it to end, perhaps before it has begun, and waits. Throws where it does not, or fails.
    void end() {
        signal(SIGTERM);
        const auto ended = process_->wait(std::chrono::seconds(120));
        if (!ended || (!ended->cleanly() && ended->signal != SIGTERM)) {
            throw std::runtime_error(incarnation() +
                                     (ended ? " ended in failure: " : " does not end: ") + said());
        }
        process_.reset();
    }
    /// Throws where it ended by itself.
    void require_running() {
        if (process_ && !process_->running()) {
            throw std::runtime_error(incarnation() + " has ended by itself: " + said());
        }
    }
    /// The last that all of its incarnations printed.
    [[nodiscard]] std::string said() const {
        constexpr std::size_t most = 4'000;
        std::ifstream file(log_);
        const std::string all{std::istreambuf_iterator<char>(file), {}};
        return all.size() < most ? all : all.substr(all.size() - most);
    }

private:
    std::string name_;
    Command command_;
    std::filesystem::path log_;
    std::optional<testing_support::ChildProcess> process_;
    unsigned incarnations_ = 0;
};

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_MEMBER_HPP
