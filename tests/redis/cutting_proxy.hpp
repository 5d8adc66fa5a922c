// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_REDIS_CUTTING_PROXY_HPP
#define IDEM_TESTS_REDIS_CUTTING_PROXY_HPP

// Stands between a store and its server, counts round trips, and loses answers where told to.

#include <idem/detail/stream_socket.hpp>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#include "support/temporary_directory.hpp"

namespace idem::testing_support {

/// Listens on a unix socket and passes everything on to another.
class CuttingProxy {
public:
    explicit CuttingProxy(std::string server)
        : server_(std::move(server))
        , listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path().data(), path().size());
        if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
            ::listen(listener_, 64) != 0) {
            throw std::system_error(errno, std::generic_category(), "listen " + path());
        }
        acceptor_ = std::jthread([this](const std::stop_token& stop) { accept(stop); });
    }
    CuttingProxy(const CuttingProxy&) = delete;
    CuttingProxy& operator=(const CuttingProxy&) = delete;
    ~CuttingProxy() {
        acceptor_ = {};
        connections_.clear();
        ::close(listener_);
    }

    [[nodiscard]] std::string address() const { return "unix:" + path(); }
    /// Requests that clients sent, each answered before the next: round trips.
    [[nodiscard]] unsigned trips() const noexcept { return trips_; }
    /// The next `count` requests reach the server and are carried out; their answers do not come
    /// back, the connection breaks instead.
    void lose_answers(unsigned count) noexcept { to_lose_ = count; }
    [[nodiscard]] unsigned to_lose() const noexcept { return to_lose_; }

private:
    [[nodiscard]] std::string path() const { return (directory_ / "proxy.sock").string(); }

    void accept(const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            pollfd entry{.fd = listener_, .events = POLLIN, .revents = 0};
            if (::poll(&entry, 1, 10) > 0) {
                const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
                connections_.emplace_back(
                    [this, client](const std::stop_token& ended) { serve(client, ended); });
            }
        }
    }
    void serve(int client, const std::stop_token& stop) {
        const int server = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, server_.data(), server_.size());
        bool open =
            ::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        bool asking = false;
        bool cut = false;
        while (open && !stop.stop_requested()) {
            pollfd entries[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
            ::poll(entries, 2, 10);
            if (entries[1].revents != 0) {
                open = pass(server, cut ? -1 : client) && !cut;
                asking = false;
            } else if (entries[0].revents != 0) {
                trips_ += asking ? 0 : 1;
                asking = true;
                for (auto left = to_lose_.load(); left > 0 && !cut;) {
                    cut = to_lose_.compare_exchange_weak(left, left - 1);
                }
                open = pass(client, server);
            }
        }
        ::close(server);
        ::close(client);
    }
    static bool pass(int from, int to) {
        char bytes[65'536];
        const ssize_t size = ::read(from, bytes, sizeof bytes);
        return size > 0 &&
               (to < 0 || ::send(to, bytes, static_cast<std::size_t>(size), MSG_NOSIGNAL) == size);
    }

    TemporaryDirectory directory_;
    std::string server_;
    int listener_;
    std::atomic<unsigned> trips_{0}, to_lose_{0};
    std::vector<std::jthread> connections_; // touched by the acceptor alone until it has ended
    std::jthread acceptor_;
};

} // namespace idem::testing_support

#endif // IDEM_TESTS_REDIS_CUTTING_PROXY_HPP
