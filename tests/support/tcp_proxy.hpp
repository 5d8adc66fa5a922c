// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_TCP_PROXY_HPP
#define IDEM_TESTS_SUPPORT_TCP_PROXY_HPP

// Stands between a client and a server on a TCP port, and cuts or stalls the link where told to.

#include <arpa/inet.h>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

namespace idem::testing_support {

/// Passes connections of a free port of the loopback interface on to another, of any protocol.
/// Concurrency: all calls but the constructor from any thread.
class TcpProxy {
public:
    explicit TcpProxy(std::uint16_t server)
        : server_(server)
        , listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        auto address = loopback(0);
        socklen_t size = sizeof address;
        auto* plain = reinterpret_cast<sockaddr*>(&address);
        if (::bind(listener_, plain, size) != 0 || ::listen(listener_, 64) != 0 ||
            ::getsockname(listener_, plain, &size) != 0) {
            throw std::system_error(errno, std::generic_category(), "TcpProxy");
        }
        port_ = ntohs(address.sin_port);
        acceptor_ = std::jthread([this](const std::stop_token& stop) { accept(stop); });
    }
    TcpProxy(const TcpProxy&) = delete;
    TcpProxy& operator=(const TcpProxy&) = delete;
    ~TcpProxy() {
        acceptor_ = {};
        connections_.clear();
        ::close(listener_);
    }

    [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
    /// Connections so far.
    [[nodiscard]] unsigned connections() const noexcept { return accepted_; }
    /// Bytes that passed to the server, of all connections.
    [[nodiscard]] std::size_t sent() const noexcept { return sent_; }

    /// All connections that are open end, without a farewell, as by a reset.
    void cut() noexcept { ++cuts_; }
    /// Once `bytes` more passed to the server (these arrive), all connections are cut, once.
    void cut_after(std::size_t bytes) noexcept {
        budget_ = bytes;
        armed_ = true;
    }
    /// From now on what the server says does not arrive; resume() lets it.
    void silence_server() noexcept { silent_ = true; }
    void resume() noexcept { silent_ = false; }

private:
    static sockaddr_in loopback(std::uint16_t port) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return address;
    }
    void accept(const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            pollfd entry{.fd = listener_, .events = POLLIN, .revents = 0};
            if (::poll(&entry, 1, 5) > 0) {
                const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
                ++accepted_;
                connections_.emplace_back(
                    [this, client](const std::stop_token& ended) { serve(client, ended); });
            }
        }
    }
    void serve(int client, const std::stop_token& stop) {
        const unsigned cuts = cuts_;
        const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const auto address = loopback(server_);
        bool open =
            ::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        const int on = 1;
        ::setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        ::setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        std::string bytes;
        while (open && !stop.stop_requested() && cuts_ == cuts) {
            const short wanted = silent_ ? short{0} : short{POLLIN};
            pollfd entries[] = {{client, POLLIN, 0}, {server, wanted, 0}};
            ::poll(entries, 2, 5);
            if ((entries[1].revents & POLLIN) != 0) {
                open = read(server, bytes) && write(client, bytes);
            }
            if (open && (entries[0].revents & POLLIN) != 0) {
                open = read(client, bytes) && pass(server, bytes);
            }
            open = open && (entries[0].revents & (POLLERR | POLLNVAL)) == 0;
        }
        const linger reset{.l_onoff = 1, .l_linger = 0};
        ::setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        ::close(server);
        ::close(client);
    }
    /// False: the link breaks here.
    bool pass(int server, std::string& bytes) {
        if (armed_) {
            if (budget_ < bytes.size()) {
                bytes.resize(budget_);
                armed_ = false;
                write(server, bytes);
                sent_ += bytes.size();
                cut();
                return false;
            }
            budget_ -= bytes.size();
        }
        sent_ += bytes.size();
        return write(server, bytes);
    }
    static bool read(int from, std::string& bytes) {
        bytes.resize(65'536);
        const ssize_t size = ::read(from, bytes.data(), bytes.size());
        bytes.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
        return size > 0;
    }
    static bool write(int to, const std::string& bytes) {
        std::size_t at = 0;
        while (at < bytes.size()) {
            const ssize_t size = ::send(to, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
            if (size <= 0) {
                return false;
            }
            at += static_cast<std::size_t>(size);
        }
        return true;
    }

    const std::uint16_t server_;
    int listener_;
    std::uint16_t port_ = 0;
    std::atomic<unsigned> cuts_{0}, accepted_{0};
    std::atomic<std::size_t> sent_{0}, budget_{0};
    std::atomic<bool> armed_{false}, silent_{false};
    std::vector<std::jthread> connections_; // touched by the acceptor alone until it has ended
    std::jthread acceptor_;
};

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_TCP_PROXY_HPP
