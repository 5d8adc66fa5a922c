// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_HIREDIS_HPP
#define IDEM_DETAIL_HIREDIS_HPP

// A connection to Redis with a deadline on every call. hiredis parses the replies; the socket is
// ours, because a redisContext bounds each system call instead of the call, and raises SIGPIPE.

#include <idem/detail/redis_address.hpp>
#include <idem/detail/redis_error.hpp>
#include <idem/detail/stream_socket.hpp>
#include <idem/error.hpp>

#include <hiredis/hiredis.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0::detail {

/// A view of a reply or of an element of one.
class RedisValue {
public:
    explicit RedisValue(const redisReply* reply = nullptr) noexcept : reply_(reply) {}

    [[nodiscard]] bool is_nil() const noexcept { return is(REDIS_REPLY_NIL); }
    [[nodiscard]] bool is_error() const noexcept { return is(REDIS_REPLY_ERROR); }
    [[nodiscard]] bool is_string() const noexcept { return is(REDIS_REPLY_STRING); }
    [[nodiscard]] bool is_status() const noexcept { return is(REDIS_REPLY_STATUS); }
    [[nodiscard]] bool is_integer() const noexcept { return is(REDIS_REPLY_INTEGER); }
    [[nodiscard]] bool is_array() const noexcept { return is(REDIS_REPLY_ARRAY); }

    /// Of a string, a status or an error; else empty.
    [[nodiscard]] std::string_view text() const noexcept {
        return is_string() || is_status() || is_error()
                   ? std::string_view(reply_->str, static_cast<std::size_t>(reply_->len))
                   : std::string_view();
    }
    /// Of an error: NOSCRIPT, OOM, WRONGTYPE …; else empty.
    [[nodiscard]] std::string_view code() const noexcept {
        return is_error() ? redis_error_code(text()) : std::string_view();
    }
    /// Of an integer; else 0.
    [[nodiscard]] long long integer() const noexcept { return is_integer() ? reply_->integer : 0; }
    /// Of an array; else 0.
    [[nodiscard]] std::size_t size() const noexcept { return is_array() ? reply_->elements : 0; }
    /// A nil past the end.
    [[nodiscard]] RedisValue operator[](std::size_t at) const noexcept {
        return RedisValue(at < size() ? reply_->element[at] : nullptr);
    }

private:
    [[nodiscard]] bool is(int type) const noexcept {
        return reply_ != nullptr ? reply_->type == type : type == REDIS_REPLY_NIL;
    }
    const redisReply* reply_;
};

/// Owns a reply. Views of it are good while it lives.
class RedisReply {
public:
    explicit RedisReply(redisReply* reply = nullptr) noexcept : reply_(reply) {}
    RedisReply(const RedisReply&) = delete;
    RedisReply& operator=(const RedisReply&) = delete;
    RedisReply(RedisReply&& other) noexcept : reply_(std::exchange(other.reply_, nullptr)) {}
    RedisReply& operator=(RedisReply&& other) noexcept {
        std::swap(reply_, other.reply_);
        return *this;
    }
    ~RedisReply() {
        if (reply_ != nullptr) {
            freeReplyObject(reply_);
        }
    }
    [[nodiscard]] RedisValue value() const noexcept { return RedisValue(reply_); }
    [[nodiscard]] RedisValue operator*() const noexcept { return value(); }

private:
    redisReply* reply_;
};

/// A connection, greeted and with its database selected. After an error of transport or a timeout
/// it is broken for good: an answer may still be under way, and would be taken for another's.
/// Moved from, it can only be destroyed or assigned to.
/// Concurrency: one thread at a time. Not to be used by a child of a fork.
class RedisConnection {
public:
    /// Connects and says HELLO.
    /// Cost: two round trips, three with a database other than 0.
    /// Throws: StoreError unavailable; rejected for wrong credentials, a cluster, a server below
    /// 7.0.
    RedisConnection(const RedisAddress& address, Deadline deadline) : where_(address.where()) {
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

    /// Adds a command to what the next read() sends first: a pipeline is n appends and n reads.
    void append(std::span<const std::string_view> arguments) {
        out_ += '*';
        out_ += std::to_string(arguments.size());
        out_ += "\r\n";
        for (const auto argument : arguments) {
            out_ += '$';
            out_ += std::to_string(argument.size());
            out_ += "\r\n";
            out_ += argument;
            out_ += "\r\n";
        }
        ++pending_;
    }
    void append(std::initializer_list<std::string_view> arguments) {
        append(std::span(arguments.begin(), arguments.size()));
    }

    /// The reply to the oldest command that has none yet. Throws: as command().
    RedisReply read(Deadline deadline) {
        flush(deadline);
        void* reply = nullptr;
        for (;;) {
            if (redisReaderGetReply(parser_.reader, &reply) != REDIS_OK) {
                fail(std::string("not the protocol of Redis: ") + parser_.reader->errstr);
            }
            if (reply != nullptr) {
                break;
            }
            receive(deadline);
        }
        if (--pending_ == 0) {
            sent_ = false;
        }
        RedisReply owned(static_cast<redisReply*>(reply));
        demoted_ = demoted_ || owned.value().code() == "READONLY";
        return owned;
    }

    /// Commands without a reply yet.
    [[nodiscard]] std::size_t pending() const noexcept { return pending_; }
    /// Not to be used again.
    [[nodiscard]] bool broken() const noexcept { return !socket_.is_open(); }
    /// Whether it can take a next command: whole, not closed by the server meanwhile, and not to a
    /// replica (READONLY after a failover: the name may mean another server by now).
    [[nodiscard]] bool usable() const noexcept {
        return pending_ == 0 && out_.empty() && !demoted_ && socket_.is_quiet();
    }
    /// Host and port or path, for error texts.
    [[nodiscard]] const std::string& where() const noexcept { return where_; }

private:
    /// Owns hiredis's parser.
    struct Parser {
        Parser() : reader(redisReaderCreate()) {
            if (reader == nullptr) {
                throw std::bad_alloc();
            }
        }
        Parser(const Parser&) = delete;
        Parser& operator=(const Parser&) = delete;
        Parser(Parser&& other) noexcept : reader(std::exchange(other.reader, nullptr)) {}
        Parser& operator=(Parser&& other) noexcept {
            std::swap(reader, other.reader);
            return *this;
        }
        ~Parser() {
            if (reader != nullptr) {
                redisReaderFree(reader);
            }
        }
        redisReader* reader;
    };

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

    void flush(Deadline deadline) {
        std::string_view rest = out_;
        while (!rest.empty()) {
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
        out_.clear();
    }
    void receive(Deadline deadline) {
        char bytes[16'384];
        for (;;) {
            const auto received = broken() ? StreamSocket::Received{.ended = true}
                                           : socket_.receive_some(bytes, sizeof bytes);
            if (received.ended) {
                fail("the server closed the connection");
            }
            if (received.bytes < 0) {
                fail(std::strerror(errno));
            }
            if (received.bytes > 0) {
                redisReaderFeed(parser_.reader, bytes, static_cast<std::size_t>(received.bytes));
                return;
            }
            wait(POLLIN, deadline);
        }
    }
    void wait(short events, Deadline deadline) {
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
    Parser parser_;
    std::string out_;
    std::size_t pending_ = 0;
    bool sent_ = false; ///< something that has no answer yet
    bool demoted_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_HIREDIS_HPP
