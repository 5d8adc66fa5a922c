// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_STREAM_SOCKET_HPP
#define IDEM_DETAIL_STREAM_SOCKET_HPP

// A TCP or unix socket on which no call outlives its deadline.

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

namespace idem::inline v0::detail {

using Deadline = std::chrono::steady_clock::time_point;

/// Owns a descriptor, closed in children that exec. Never raises SIGPIPE.
/// Concurrency: one thread at a time.
class StreamSocket {
public:
    StreamSocket() = default;
    StreamSocket(const StreamSocket&) = delete;
    StreamSocket& operator=(const StreamSocket&) = delete;
    StreamSocket(StreamSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    StreamSocket& operator=(StreamSocket&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~StreamSocket() { close(); }

    void close() noexcept {
        if (fd_ >= 0) {
            ::close(std::exchange(fd_, -1));
        }
    }
    [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }

    /// The problem, empty where there is none. Every address of the name is tried. Looking up a
    /// name goes by the resolver's own time limit; a numeric address needs no look-up.
    [[nodiscard]] std::string
    connect_tcp(const std::string& host, unsigned port, Deadline deadline) {
        addrinfo hints{};
        hints.ai_socktype = SOCK_STREAM;
        addrinfo* found = nullptr;
        if (const int code =
                ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
            code != 0) {
            return ::gai_strerror(code);
        }
        std::string problem = "no address";
        for (const addrinfo* one = found; one != nullptr && !problem.empty(); one = one->ai_next) {
            problem = connect(one->ai_family, one->ai_addr, one->ai_addrlen, deadline);
        }
        ::freeaddrinfo(found);
        if (problem.empty()) {
            const int on = 1;
            ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            ::setsockopt(fd_, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        }
        return problem;
    }
    [[nodiscard]] std::string connect_unix(const std::string& path, Deadline deadline) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) {
            return "the path is longer than " + std::to_string(sizeof address.sun_path - 1) +
                   " bytes";
        }
        std::memcpy(address.sun_path, path.data(), path.size());
        return connect(
            AF_UNIX, reinterpret_cast<const sockaddr*>(&address), sizeof address, deadline);
    }

    enum class Ready { yes, timed_out, failed };
    [[nodiscard]] Ready wait(short events, Deadline deadline) const noexcept {
        for (;;) {
            const auto left = std::chrono::ceil<std::chrono::milliseconds>(
                deadline - std::chrono::steady_clock::now());
            pollfd entry{.fd = fd_, .events = events, .revents = 0};
            const int ready =
                ::poll(&entry, 1, left.count() > 0 ? static_cast<int>(left.count()) : 0);
            if (ready > 0) {
                return Ready::yes;
            }
            if (ready == 0) {
                return Ready::timed_out;
            }
            if (errno != EINTR) {
                return Ready::failed;
            }
        }
    }

    /// Bytes sent, 0 where it would block, −1 on an error (errno).
    [[nodiscard]] ssize_t send_some(std::string_view bytes) const noexcept {
        const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        return sent < 0 && would_block() ? 0 : sent;
    }
    struct Received {
        ssize_t bytes = 0; ///< −1 on an error (errno)
        bool ended = false;
    };
    [[nodiscard]] Received receive_some(char* into, std::size_t size) const noexcept {
        const ssize_t bytes = ::recv(fd_, into, size, MSG_DONTWAIT);
        if (bytes < 0 && would_block()) {
            return {};
        }
        return {.bytes = bytes, .ended = bytes == 0};
    }
    /// As receive_some(), but waits until something comes, a twentieth of a second at most: one
    /// system call where wait() and receive_some() are two.
    [[nodiscard]] Received receive_soon(char* into, std::size_t size) const noexcept {
        const ssize_t bytes = ::recv(fd_, into, size, 0);
        if (bytes < 0 && would_block()) {
            return {};
        }
        return {.bytes = bytes, .ended = bytes == 0};
    }
    static constexpr std::chrono::milliseconds soon{50};
    /// Whether nothing came in since the last answer: neither an end of file nor stray bytes.
    [[nodiscard]] bool is_quiet() const noexcept {
        char byte = 0;
        return fd_ >= 0 && ::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && would_block();
    }

private:
    static bool would_block() noexcept {
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    }
    std::string connect(int family, const sockaddr* address, socklen_t size, Deadline deadline) {
        close();
        fd_ = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd_ < 0) {
            return std::strerror(errno);
        }
        int error = ::connect(fd_, address, size) == 0 ? 0 : errno;
        while (error == EAGAIN && std::chrono::steady_clock::now() < deadline) {
            ::poll(nullptr, 0, 1); // a unix socket whose queue of connections is full
            error = ::connect(fd_, address, size) == 0 ? 0 : errno;
        }
        if (error == EINPROGRESS || error == EINTR) {
            const auto ready = wait(POLLOUT, deadline);
            socklen_t length = sizeof error;
            ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length);
            if (error == 0 && ready != Ready::yes) {
                error = ETIMEDOUT;
            }
        }
        if (error == 0) { // every other call says for itself whether it waits
            const timeval time{.tv_sec = 0, .tv_usec = std::chrono::microseconds(soon).count()};
            ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
            ::fcntl(fd_, F_SETFL, ::fcntl(fd_, F_GETFL) & ~O_NONBLOCK);
            return {};
        }
        close();
        return std::strerror(error);
    }

    int fd_ = -1;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_STREAM_SOCKET_HPP
