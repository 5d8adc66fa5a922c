// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_LINK_PROXY_HPP
#define IDEM_TESTS_SUPPORT_LINK_PROXY_HPP

// Stands between a store and its server: counts round trips and bytes, and breaks the link where
// told to.

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "temporary_directory.hpp"

namespace idem::testing_support {

/// Passes one unix socket on to another, of any protocol in which a client asks and is answered. A
/// request is what a client sends before it is answered.
/// Concurrency: at(), lose_answers() and arm() while no client waits for an answer.
class LinkProxy {
public:
    enum class Next {
        lose_answer,  ///< the server carries the request out, the client sees the link break
        lose_request, ///< the server never sees it
    };
    enum class Towards { server, client };

    explicit LinkProxy(std::string server)
        : server_(std::move(server))
        , listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const auto address = address_of(socket());
        if (::bind(listener_, plain(address), sizeof address) != 0 ||
            ::listen(listener_, 64) != 0) {
            throw std::system_error(errno, std::generic_category(), "listen " + socket());
        }
        acceptor_ = std::jthread([this](const std::stop_token& stop) { accept(stop); });
    }
    LinkProxy(const LinkProxy&) = delete;
    LinkProxy& operator=(const LinkProxy&) = delete;
    ~LinkProxy() {
        acceptor_ = {};
        connections_.clear();
        ::close(listener_);
    }

    /// The socket's path.
    [[nodiscard]] std::string socket() const { return (directory_ / ".s.PGSQL.5432").string(); }
    /// Of a connection string of PostgreSQL.
    [[nodiscard]] std::string host() const { return directory_.path().string(); }

    /// Requests that clients sent, each answered before the next.
    [[nodiscard]] unsigned trips() const noexcept { return trips_; }
    /// That passed in one direction, of all connections.
    [[nodiscard]] std::size_t bytes(Towards end) const noexcept { return passed_[index(end)]; }

    /// Of the next `count` requests that hold `text`; a statement sent by its name holds none.
    void at(std::string text, Next next, unsigned count = 1) {
        text_ = std::move(text); // read once count_ is seen
        next_ = next;
        count_ = count;
    }
    /// Of the next `count` requests, whichever they are.
    void lose_answers(unsigned count) { at({}, Next::lose_answer, count); }
    /// Cuts the link, once, when `bytes` more have passed in one direction: these arrive, nothing
    /// behind them does, and the server's side is closed without a farewell. 0: where the next byte
    /// would pass.
    void arm(Towards end, std::size_t bytes) {
        budget_ = bytes;
        armed_ = static_cast<int>(index(end));
    }
    /// Whether all that was to break has broken.
    [[nodiscard]] bool done() const noexcept { return count_ == 0 && armed_ == unarmed; }

private:
    static constexpr int unarmed = -1;
    static constexpr std::size_t index(Towards end) { return end == Towards::server ? 0 : 1; }
    static sockaddr_un address_of(const std::string& path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.data(), path.size());
        return address;
    }
    static const sockaddr* plain(const sockaddr_un& address) {
        return reinterpret_cast<const sockaddr*>(&address);
    }
    static bool readable(int socket) {
        pollfd entry{.fd = socket, .events = POLLIN, .revents = 0};
        return ::poll(&entry, 1, 10) > 0;
    }

    void accept(const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            if (readable(listener_)) {
                const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
                connections_.emplace_back(
                    [this, client](const std::stop_token& ended) { serve(client, ended); });
            }
        }
    }
    void serve(int client, const std::stop_token& stop) {
        const int server = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const auto address = address_of(server_);
        bool open = ::connect(server, plain(address), sizeof address) == 0, asking = false;
        std::string bytes;
        while (open && !stop.stop_requested()) {
            pollfd entries[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
            ::poll(entries, 2, 10);
            if (entries[1].revents != 0) {
                open = read(server, bytes) && pass(client, bytes, Towards::client);
                asking = false;
            } else if (entries[0].revents != 0) {
                open = read(client, bytes);
                trips_ += asking || !open || is_farewell(bytes) ? 0 : 1;
                asking = true;
                if (open && is_due(bytes)) {
                    if (next_ == Next::lose_answer) {
                        write(server, bytes.data(), bytes.size());
                        ::shutdown(client, SHUT_RDWR);
                        await_end(server, stop);
                    }
                    open = false;
                } else {
                    open = open && pass(server, bytes, Towards::server);
                }
            }
        }
        ::close(server);
        ::close(client);
    }
    /// PostgreSQL's Terminate, which nothing answers. No request of Redis begins so.
    static bool is_farewell(const std::string& bytes) { return bytes[0] == 'X'; }
    /// Counts one of count_ down.
    bool is_due(const std::string& bytes) {
        auto left = count_.load();
        while (left > 0 && bytes.find(text_) != std::string::npos) {
            if (count_.compare_exchange_weak(left, left - 1)) {
                return true;
            }
        }
        return false;
    }
    /// Until the server has carried out what it was sent: it then reads the end of the link, and
    /// closes.
    static void await_end(int server, const std::stop_token& stop) {
        ::shutdown(server, SHUT_WR);
        std::string ignored;
        while (!stop.stop_requested() && (!readable(server) || read(server, ignored))) {
        }
    }
    /// False: the link breaks here.
    bool pass(int to, const std::string& bytes, Towards end) {
        auto size = bytes.size();
        bool cut = false;
        if (armed_ == static_cast<int>(index(end))) {
            cut = budget_ <= size;
            size = cut ? budget_.load() : size;
            budget_ -= size;
            armed_ = cut ? unarmed : armed_.load();
        }
        passed_[index(end)] += size;
        return write(to, bytes.data(), size) && !cut;
    }
    static bool read(int from, std::string& bytes) {
        bytes.resize(65'536);
        const ssize_t size = ::read(from, bytes.data(), bytes.size());
        bytes.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
        return size > 0;
    }
    static bool write(int to, const char* bytes, std::size_t size) {
        return ::send(to, bytes, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
    }

    TemporaryDirectory directory_;
    std::string server_;
    int listener_;
    std::string text_;
    std::atomic<Next> next_{Next::lose_answer};
    std::atomic<unsigned> count_{0}, trips_{0};
    std::atomic<int> armed_{unarmed};
    std::atomic<std::size_t> budget_{0};
    std::array<std::atomic<std::size_t>, 2> passed_{};
    std::vector<std::jthread> connections_; // touched by the acceptor alone until it has ended
    std::jthread acceptor_;
};

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_LINK_PROXY_HPP
