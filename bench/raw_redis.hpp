// SPDX-License-Identifier: MIT
#ifndef IDEM_BENCH_RAW_REDIS_HPP
#define IDEM_BENCH_RAW_REDIS_HPP

// The least that works over hiredis: SET NX GET PX takes a key, SET XX PX puts the result in its
// place. No owner is checked, no attempt counted, no fence kept.

#include <hiredis/hiredis.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace idem::bench {

constexpr std::string_view lease_ms = "30000", retention_ms = "604800000";

/// A connection that blocks, as hiredis makes it.
class RawRedis {
public:
    /// A path, or a port of the loopback interface.
    explicit RawRedis(const std::string& path)
        : context_(::redisConnectUnix(path.c_str()), ::redisFree) {
        require();
    }
    explicit RawRedis(int port) : context_(::redisConnect("127.0.0.1", port), ::redisFree) {
        require();
    }

    void send_claim(std::string_view key) {
        send({"SET", key, "I0123456789abcdef", "NX", "GET", "PX", lease_ms});
    }
    void send_complete(std::string_view key, std::string_view result) {
        send({"SET", key, "D" + std::string(result), "XX", "PX", retention_ms});
    }
    /// Whether the key was free.
    bool receive_claim() { return receive()->type == REDIS_REPLY_NIL; }
    void receive_complete() {
        if (receive()->type != REDIS_REPLY_STATUS) {
            throw std::runtime_error("a key that was claimed is gone");
        }
    }
    void claim(std::string_view key) {
        send_claim(key);
        if (!receive_claim()) {
            throw std::runtime_error("a fresh key was not claimed");
        }
    }
    void complete(std::string_view key, std::string_view result) {
        send_complete(key, result);
        receive_complete();
    }

private:
    using Reply = std::unique_ptr<redisReply, void (*)(void*)>;

    void require() const {
        if (context_ == nullptr || context_->err != 0) {
            throw std::runtime_error("hiredis cannot connect");
        }
    }
    void send(std::initializer_list<std::string_view> words) {
        const char* texts[8];
        std::size_t sizes[8];
        int count = 0;
        for (const auto word : words) {
            texts[count] = word.data();
            sizes[count++] = word.size();
        }
        ::redisAppendCommandArgv(context_.get(), count, texts, sizes);
    }
    Reply receive() {
        void* reply = nullptr;
        if (::redisGetReply(context_.get(), &reply) != REDIS_OK) {
            throw std::runtime_error(context_->errstr);
        }
        return {static_cast<redisReply*>(reply), ::freeReplyObject};
    }

    std::unique_ptr<redisContext, void (*)(redisContext*)> context_;
};

} // namespace idem::bench

#endif // IDEM_BENCH_RAW_REDIS_HPP
