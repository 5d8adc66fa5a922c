// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_CHILD_PROCESS_HPP
#define IDEM_TESTS_SUPPORT_CHILD_PROCESS_HPP

// A program that a test starts, and that does not outlive it.

#include <arpa/inet.h>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <grp.h>
#include <map>
#include <netinet/in.h>
#include <optional>
#include <string>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

extern "C" char** environ;

namespace idem::testing_support {

struct User {
    uid_t uid;
    gid_t gid;
};

struct ChildOptions {
    std::map<std::string, std::string> environment{}; ///< beside, and before, the test's own
    std::filesystem::path output{};                   ///< of both streams; empty: the test's own
    std::filesystem::path directory{};                ///< to run in; empty: the test's own
    std::optional<User> user{};                       ///< to become, where the test is root
    int end_signal = SIGKILL; ///< what the destructor, and the death of the test, send
};

/// How a child ended: by exit(code), or by a signal.
struct Ended {
    int code = 0, signal = 0;
    [[nodiscard]] bool cleanly() const { return code == 0 && signal == 0; }
};

/// A running program. Ended by its pid, in the destructor, or by the kernel when the thread that
/// started it dies (so start it on a thread that lasts: that of the test).
class ChildProcess {
public:
    explicit ChildProcess(const std::vector<std::string>& argv, const ChildOptions& options = {})
        : end_signal_(options.end_signal) {
        // Everything that allocates happens before the fork: the test may have other threads.
        std::vector<std::string> variables;
        for (const auto& [name, value] : options.environment) {
            variables.push_back(name);
            variables.back().append("=").append(value);
        }
        for (char** inherited = environ; *inherited != nullptr; ++inherited) {
            const std::string entry = *inherited;
            if (!options.environment.contains(entry.substr(0, entry.find('=')))) {
                variables.push_back(entry);
            }
        }
        const auto arguments = pointers(argv), environment = pointers(variables);
        const pid_t parent = ::getpid();
        pid_ = ::fork();
        if (pid_ < 0) {
            throw std::system_error(errno, std::generic_category(), "fork");
        }
        if (pid_ == 0) {
            become(arguments, environment, options, parent);
        }
    }
    ChildProcess(ChildProcess&& other) noexcept
        : pid_(std::exchange(other.pid_, -1))
        , end_signal_(other.end_signal_)
        , ended_(other.ended_) {}
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(ChildProcess&&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;
    ~ChildProcess() {
        if (pid_ <= 0 || ended_) {
            return;
        }
        kill(SIGCONT);
        kill(end_signal_);
        try {
            if (wait(std::chrono::seconds(20))) {
                return;
            }
        } catch (const std::exception&) { // it is no child of ours any more
            return;
        }
        kill(SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }

    [[nodiscard]] pid_t pid() const noexcept { return pid_; }
    /// False where it has ended already.
    bool kill(int signal) const noexcept { // NOLINT(modernize-use-nodiscard)
        return !ended_ && ::kill(pid_, signal) == 0;
    }
    [[nodiscard]] bool running() { return !wait(std::chrono::milliseconds(0)); }

    /// How it ended; nothing where it still runs after `time`.
    std::optional<Ended> wait(std::chrono::milliseconds time) {
        const auto until = std::chrono::steady_clock::now() + time;
        while (!ended_) {
            int status = 0;
            const pid_t answer = ::waitpid(pid_, &status, WNOHANG);
            if (answer == pid_) {
                ended_ = WIFSIGNALED(status) ? Ended{0, WTERMSIG(status)}
                                             : Ended{WEXITSTATUS(status), 0};
            } else if (answer < 0 && errno != EINTR) {
                throw std::system_error(errno, std::generic_category(), "waitpid");
            } else if (std::chrono::steady_clock::now() >= until) {
                return std::nullopt;
            } else {
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
        }
        return ended_;
    }

private:
    static std::vector<char*> pointers(const std::vector<std::string>& texts) {
        std::vector<char*> result;
        result.reserve(texts.size() + 1);
        for (const auto& text : texts) {
            result.push_back(const_cast<char*>(text.c_str()));
        }
        result.push_back(nullptr);
        return result;
    }

    /// In the child: calls only what is safe after a fork. 127: it could not be started.
    [[noreturn]] static void become(const std::vector<char*>& arguments,
                                    const std::vector<char*>& environment,
                                    const ChildOptions& options,
                                    pid_t parent) {
        if (!options.output.empty()) {
            const int file = ::open(options.output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
            ::dup2(file, STDOUT_FILENO);
            ::dup2(file, STDERR_FILENO);
        }
        if (options.user && ::geteuid() == 0 &&
            (::setgroups(0, nullptr) != 0 || ::setgid(options.user->gid) != 0 ||
             ::setuid(options.user->uid) != 0)) {
            ::_exit(127);
        }
        // After setuid, which clears it; and the parent may have died before this line.
        ::prctl(PR_SET_PDEATHSIG, options.end_signal);
        if (::getppid() != parent ||
            (!options.directory.empty() && ::chdir(options.directory.c_str()) != 0)) {
            ::_exit(127);
        }
        sigset_t none;
        ::sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
        ::execvpe(arguments[0], arguments.data(), environment.data());
        ::_exit(127);
    }

    pid_t pid_ = -1;
    int end_signal_;
    std::optional<Ended> ended_;
};

/// Runs a program to its end. Throws where it takes longer than `time` or ends in failure.
inline void run_program(const std::vector<std::string>& argv,
                        const ChildOptions& options = {},
                        std::chrono::milliseconds time = std::chrono::seconds(60)) {
    ChildProcess child(argv, options);
    const auto ended = child.wait(time);
    if (!ended || !ended->cleanly()) {
        throw std::runtime_error(argv[0] + (ended ? " failed, see " : " did not end, see ") +
                                 options.output.string());
    }
}

/// A TCP port of the loopback interface that nobody listened on a moment ago.
inline std::uint16_t free_port() {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* plain = reinterpret_cast<sockaddr*>(&address);
    const bool found =
        socket >= 0 && ::bind(socket, plain, size) == 0 && ::getsockname(socket, plain, &size) == 0;
    const int error = errno;
    ::close(socket);
    if (!found) {
        throw std::system_error(error, std::generic_category(), "free_port");
    }
    return ntohs(address.sin_port);
}

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_CHILD_PROCESS_HPP
