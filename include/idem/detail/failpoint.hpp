// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_FAILPOINT_HPP
#define IDEM_DETAIL_FAILPOINT_HPP

// Numbered places where the crash tests kill the process. Nothing at all unless IDEM_FAILPOINTS is
// defined, and that is for tests only.

#ifndef IDEM_FAILPOINTS

#define IDEM_FAILPOINT(name) static_cast<void>(0)

#else

#include <atomic>
#include <cstdlib>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#define IDEM_FAILPOINT(name) ::idem::detail::reach_failpoint(name)

namespace idem::inline v0::detail {

/// Counts the failpoints that this process reaches. IDEM_FAILPOINT=n kills it with SIGKILL at the
/// n-th (from 1); IDEM_FAILPOINT_LOG=path appends each name, a line each, so that a run without a
/// kill tells how many there are.
inline void reach_failpoint(const char* name) noexcept {
    static std::atomic<long> reached{0};
    static const long kill_at = [] {
        const char* text = std::getenv("IDEM_FAILPOINT");
        return text == nullptr ? 0L : std::atol(text);
    }();
    static const int log = [] {
        const char* path = std::getenv("IDEM_FAILPOINT_LOG");
        return path == nullptr ? -1 : ::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }();
    const long number = ++reached;
    if (log >= 0) {
        char line[96];
        std::size_t size = 0;
        for (; name[size] != '\0' && size < sizeof line - 1; ++size) {
            line[size] = name[size];
        }
        line[size++] = '\n';
        static_cast<void>(!::write(log, line, size));
    }
    if (number == kill_at) {
        ::kill(::getpid(), SIGKILL);
    }
}

} // namespace idem::inline v0::detail

#endif // IDEM_FAILPOINTS
#endif // IDEM_DETAIL_FAILPOINT_HPP
