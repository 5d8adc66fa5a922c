// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_CONNECTION_HPP
#define IDEM_DETAIL_REDIS_CONNECTION_HPP

// A connection to Redis with a deadline on every call. hiredis parses the replies; the socket is
// ours, because a redisContext bounds each system call instead of the call, and raises SIGPIPE.

#include <idem/detail/hiredis.hpp>
#include <idem/detail/redis_address.hpp>
#include <idem/detail/redis_patience.hpp>
#include <idem/detail/redis_pipeline.hpp>
#include <idem/detail/stream_socket.hpp>
#include <idem/error.hpp>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <sched.h>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0::detail {

/// A connection, greeted and with its database selected. After an error of transport or a timeout
/// it is broken for good: an answer may still be under way, and would be taken for another's.
/// Moved from, it can only be destroyed or assigned to.
/// Concurrency: one thread at a time. Not to be used by a child of a fork.
class RedisConnection {
public:
    /// Connects and says HELLO. `looks`: how often to look for an answer before sleeping.
    /// Cost: two round trips, three with a database other than 0.
    /// Throws: StoreError unavailable; rejected for wrong credentials, a cluster, a server below
    /// 7.0.
    RedisConnection(const RedisAddress& address, Deadline deadline, unsigned looks = 0)
        : where_(address.where())
        , patience_(looks) {
        const std::string problem = address.path.empty()
                                        ? socket_.connect_tcp(address.host, address.port, deadline)
                                        : socket_.connect_unix(address.path, deadline);
        if (!problem.empty()) {
            throw StoreError(Fault::unavailable,
                             "idem: cannot connect to Redis at " + where_ + ": " + problem);
        }
        try {
            greet(address, deadline);
        } catch (const StoreError& cause) {
            // Where the link broke while a greeting was out, still no command of the caller's was.
            throw StoreError(cause.fault() == Fault::in_doubt ? Fault::unavailable : cause.fault(),
                             cause.what());
        }
    }

    /// One command, any bytes.
    /// Cost: one round trip. An error reply is returned, not thrown.
    /// Throws: StoreError unavailable where nothing was sent, else in_doubt; the connection is
    /// broken.
    RedisReply command(std::span<const std::string_view> arguments, Deadline deadline) {
        append(arguments);
        return read(deadline);
    }
    RedisReply command(std::initializer_list<std::string_view> arguments, Deadline deadline) {
        return command(std::span(arguments.begin(), arguments.size()), deadline);
    }
    /// All its commands. Cost: one round trip. Throws: as command().
    std::vector<RedisReply> exchange(const RedisPipeline& pipeline, Deadline deadline) {
        send(pipeline, deadline);
        std::vector<RedisReply> replies(pipeline.commands());
        for (auto& reply : replies) {
            reply = read(deadline);
        }
        return replies;
    }

    /// Adds to what the next read() or flush() sends.
    void append(std::span<const std::string_view> arguments) {
        out_.append(arguments);
        ++pending_;
    }
    void append(std::initializer_list<std::string_view> arguments) {
        append(std::span(arguments.begin(), arguments.size()));
    }
    void append(const RedisPipeline& pipeline) {
        out_.append(pipeline);
        pending_ += pipeline.commands();
    }
    /// Sends what was added. Throws: as command(); unsent() then says how much never left.
    void flush(Deadline deadline) {
        send(out_.bytes(), deadline);
        out_.clear();
    }
    /// Sends a pipeline as it is: append() and flush() without a copy. Requires: all was sent.
    void send(const RedisPipeline& pipeline, Deadline deadline) {
        pending_ += pipeline.commands();
        send(pipeline.bytes(), deadline);
    }
    /// The reply to the oldest command that has none yet. Throws: as command().
    RedisReply read(Deadline deadline) {
        flush(deadline);
        auto reply = parser_.next();
        while (!reply) {
            if (!parser_.problem().empty()) {
                fail("not the protocol of Redis: " + std::string(parser_.problem()));
            }
            receive(deadline);
            reply = parser_.next();
        }
        if (--pending_ == 0) {
            sent_ = false;
        }
        demoted_ = demoted_ || reply->value().code() == "READONLY";
        return std::move(*reply);
    }

    /// Commands without a reply yet.
    [[nodiscard]] std::size_t pending() const noexcept { return pending_; }
    /// Bytes at the end of what was added that a flush() which failed did not send.
    [[nodiscard]] std::size_t unsent() const noexcept { return unsent_; }
    /// Not to be used again.
    [[nodiscard]] bool broken() const noexcept { return !socket_.is_open(); }
    /// Whether what was asked was answered, and not by a replica (READONLY after a failover: the
    /// name may mean another server by now).
    [[nodiscard]] bool whole() const noexcept { return !broken() && pending_ == 0 && !demoted_; }
    /// Whether it can take a next command: whole, and not closed by the server meanwhile.
    /// Cost: a system call.
    [[nodiscard]] bool usable() const noexcept { return whole() && socket_.is_quiet(); }
    /// Host and port or path, for error texts.
    [[nodiscard]] const std::string& where() const noexcept { return where_; }

private:
    void greet(const RedisAddress& address, Deadline deadline) {
        const std::string_view user =
            address.user.empty() ? "default" : std::string_view(address.user);
        const std::string_view hello[] = {"HELLO", "2", "AUTH", user, address.password};
        const auto reply = command(std::span(hello, address.password.empty() ? 2 : 5), deadline);
        if (reply.value().code() == "ERR") {
            // At its limit of clients the server answers ERR and closes; a server that does not
            // know HELLO stays. The next command tells which.
            static_cast<void>(command({"HELLO"}, deadline));
        }
        if (reply.value().is_error()) {
            throw redis_error(where_, reply.value().text());
        }
        for (std::size_t at = 0; at + 1 < reply.value().size(); at += 2) {
            check_greeting(reply.value()[at].text(), reply.value()[at + 1].text());
        }
        if (address.database != 0) {
            const auto selected = command({"SELECT", std::to_string(address.database)}, deadline);
            if (selected.value().is_error()) {
                throw redis_error(where_ + " (SELECT)", selected.value().text());
            }
        }
    }

    void check_greeting(std::string_view field, std::string_view value) const {
        std::string problem;
        if (field == "mode" && value != "standalone") {
            problem = "is in " + std::string(value) + " mode, which is not supported";
        } else if (field == "version" && value.find('.') < 2 && value.front() < '7') {
            problem = "has version " + std::string(value) + "; 7.0 or later is needed";
        }
        if (!problem.empty()) {
            throw StoreError(Fault::rejected, "idem: Redis at " + where_ + " " + problem);
        }
    }

    void send(std::string_view rest, Deadline deadline) {
        while (!rest.empty()) {
            unsent_ = rest.size();
            const ssize_t sent = broken() ? -1 : socket_.send_some(rest);
            if (sent < 0) {
                fail(broken() ? "the connection is closed" : std::strerror(errno));
            }
            sent_ = sent_ || sent > 0;
            rest.remove_prefix(static_cast<std::size_t>(sent));
            if (!rest.empty() && sent == 0) {
                wait(POLLOUT, deadline);
            }
        }
        unsent_ = 0;
    }
    /// Some bytes more for the parser.
    void receive(Deadline deadline) {
        char bytes[16'384];
        const unsigned looks = patience_.looks();
        auto received = look_for(bytes, sizeof bytes, looks);
        while (received.bytes == 0 && !received.ended) {
            const auto left = deadline - std::chrono::steady_clock::now();
            if (left > StreamSocket::soon) {
                received = socket_.receive_soon(bytes, sizeof bytes);
            } else {
                wait(POLLIN, deadline);
                received = socket_.receive_some(bytes, sizeof bytes);
            }
        }
        if (received.ended) {
            fail("the server closed the connection");
        }
        if (received.bytes < 0) {
            fail(std::strerror(errno));
        }
        parser_.feed(bytes, static_cast<std::size_t>(received.bytes));
    }
    /// Nothing where it did not come in a moment.
    StreamSocket::Received look_for(char* bytes, std::size_t size, unsigned looks) {
        if (broken()) {
            return {.ended = true};
        }
        if (looks == 0) {
            return {};
        }
        const auto long_enough = std::chrono::steady_clock::now() + RedisPatience::moment;
        for (unsigned look = 0; look < looks; ++look) {
            const auto received = socket_.receive_some(bytes, size);
            if (received.bytes != 0 || received.ended) {
                patience_.found();
                return received;
            }
            ::sched_yield();
            if (std::chrono::steady_clock::now() > long_enough) {
                break; // others need the processor
            }
        }
        patience_.missed();
        return {};
    }
    void wait(short events, Deadline deadline) {
        if (broken()) {
            fail("the connection is closed");
        }
        switch (socket_.wait(events, deadline)) {
        case StreamSocket::Ready::yes:
            return;
        case StreamSocket::Ready::timed_out:
            fail("no answer within the deadline");
        case StreamSocket::Ready::failed:
            fail(std::strerror(errno));
        }
    }
    [[noreturn]] void fail(const std::string& problem) {
        socket_.close();
        throw StoreError(sent_ ? Fault::in_doubt : Fault::unavailable,
                         "idem: Redis at " + where_ + ": " + problem);
    }

    std::string where_;
    StreamSocket socket_;
    RedisParser parser_;
    RedisPatience patience_;
    RedisPipeline out_;
    std::size_t pending_ = 0, unsent_ = 0;
    bool sent_ = false; ///< something that has no answer yet
    bool demoted_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_CONNECTION_HPP
