// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_POSTGRES_LINK_PROXY_HPP
#define IDEM_TESTS_POSTGRES_LINK_PROXY_HPP

// Stands between a store and its server: counts round trips, and breaks the link where told to.

#include <atomic>
#include <cerrno>
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

#include "support/temporary_directory.hpp"

namespace idem::testing_support {

/// Passes a unix socket of PostgreSQL on. A request is what a client sends before it is answered.
class LinkProxy {
public:
    enum class Next {
        pass,
        lose_answer,  ///< the server carries the request out, the client sees the link break
        lose_request, ///< the server never sees it
    };

    explicit LinkProxy(std::string server)
        : server_(std::move(server))
        , listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const auto address = address_of((directory_ / ".s.PGSQL.5432").string());
        if (::bind(listener_, plain(address), sizeof address) != 0 ||
            ::listen(listener_, 64) != 0) {
            throw std::system_error(errno, std::generic_category(), "listen");
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

    [[nodiscard]] std::string host() const { return directory_.path().string(); }
    [[nodiscard]] unsigned trips() const noexcept { return trips_; }
    /// Of the next request that holds `text`, once; a statement sent by its name holds none.
    void at(std::string text, Next next) {
        text_ = std::move(text); // before any client sends: the caller's own thread does
        next_ = next;
    }
    [[nodiscard]] bool done() const noexcept { return next_ == Next::pass; }

private:
    static sockaddr_un address_of(const std::string& path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.data(), path.size());
        return address;
    }
    static const sockaddr* plain(const sockaddr_un& address) {
        return reinterpret_cast<const sockaddr*>(&address);
    }
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
        const auto address = address_of(server_);
        bool open = ::connect(server, plain(address), sizeof address) == 0, asking = false;
        std::string bytes;
        while (open && !stop.stop_requested()) {
            pollfd entries[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
            ::poll(entries, 2, 10);
            if (entries[1].revents != 0) {
                open = read(server, bytes) && write(client, bytes);
                asking = false;
            } else if (entries[0].revents != 0) {
                open = read(client, bytes);
                trips_ += asking || !open || bytes[0] == 'X' ? 0 : 1;
                asking = true;
                const auto next = next_.load();
                if (next != Next::pass && bytes.find(text_) != std::string::npos) {
                    next_ = Next::pass;
                    if (next == Next::lose_answer) {
                        write(server, bytes);
                        ::shutdown(client, SHUT_RDWR);
                        while (read(server, bytes) && !ready_for_query(bytes)) {
                        } // until it was carried out
                    }
                    open = false;
                } else {
                    open = open && write(server, bytes);
                }
            }
        }
        ::close(server);
        ::close(client);
    }
    static bool ready_for_query(const std::string& bytes) {
        return bytes.size() >= 6 && bytes[bytes.size() - 6] == 'Z';
    }
    static bool read(int from, std::string& bytes) {
        bytes.resize(65'536);
        const ssize_t size = ::read(from, bytes.data(), bytes.size());
        bytes.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
        return size > 0;
    }
    static bool write(int to, const std::string& bytes) {
        return ::send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
               static_cast<ssize_t>(bytes.size());
    }

    TemporaryDirectory directory_;
    std::string server_;
    int listener_;
    std::string text_;
    std::atomic<Next> next_{Next::pass};
    std::atomic<unsigned> trips_{0};
    std::vector<std::jthread> connections_; // touched by the acceptor alone until it has ended
    std::jthread acceptor_;
};

} // namespace idem::testing_support

#endif // IDEM_TESTS_POSTGRES_LINK_PROXY_HPP
