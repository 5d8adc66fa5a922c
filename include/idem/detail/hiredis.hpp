// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_HIREDIS_HPP
#define IDEM_DETAIL_HIREDIS_HPP

// Replies of Redis, as hiredis parses them out of a stream of bytes.

#include <idem/detail/redis_error.hpp>

#include <hiredis/hiredis.h>

#include <cstddef>
#include <new>
#include <optional>
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

/// Cuts the bytes that come from a server into replies.
class RedisParser {
public:
    /// Throws: std::bad_alloc.
    RedisParser() : reader_(redisReaderCreate()) {
        if (reader_ == nullptr) {
            throw std::bad_alloc();
        }
    }
    RedisParser(const RedisParser&) = delete;
    RedisParser& operator=(const RedisParser&) = delete;
    RedisParser(RedisParser&& other) noexcept : reader_(std::exchange(other.reader_, nullptr)) {}
    RedisParser& operator=(RedisParser&& other) noexcept {
        std::swap(reader_, other.reader_);
        return *this;
    }
    ~RedisParser() {
        if (reader_ != nullptr) {
            redisReaderFree(reader_);
        }
    }

    void feed(const char* bytes, std::size_t size) { redisReaderFeed(reader_, bytes, size); }
    /// The next whole reply; nothing while its bytes are not all there, or where problem() is set.
    [[nodiscard]] std::optional<RedisReply> next() {
        void* reply = nullptr;
        if (redisReaderGetReply(reader_, &reply) != REDIS_OK || reply == nullptr) {
            return {};
        }
        return RedisReply(static_cast<redisReply*>(reply));
    }
    /// Empty while what came is the protocol of Redis.
    [[nodiscard]] std::string_view problem() const noexcept {
        return reader_->err == 0 ? std::string_view() : std::string_view(reader_->errstr);
    }

private:
    redisReader* reader_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_HIREDIS_HPP
