// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_SCRIPT_HPP
#define IDEM_DETAIL_REDIS_SCRIPT_HPP

// A script that the server keeps by its digest, sent again where the server forgot it (a restart,
// SCRIPT FLUSH, a failover).

#include <idem/detail/hiredis.hpp>
#include <idem/detail/sha1.hpp>

#include <array>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// A script over `keys` keys. Its arguments are the keys, then the values.
class RedisScript {
public:
    constexpr explicit RedisScript(std::string_view text, unsigned keys = 1)
        : text_(text)
        , sha_(sha1(text))
        , keys_(keys) {}

    /// Adds a call to the connection's pipeline. Its reply may be the error NOSCRIPT: then load().
    template <class Arguments>
    void append(RedisConnection& connection, const Arguments& arguments) const {
        const std::string keys = std::to_string(keys_);
        std::vector<std::string_view> words{"EVALSHA", {sha_.data(), sha_.size()}, keys};
        words.insert(words.end(), std::begin(arguments), std::end(arguments));
        connection.append(words);
    }
    /// Adds the loading of the script to the pipeline; its reply is its digest.
    void append_load(RedisConnection& connection) const {
        connection.append({"SCRIPT", "LOAD", text_});
    }

    /// Runs it once.
    /// Cost: one round trip, two where the server does not know it.
    /// Throws: as RedisConnection::command(); an error reply is returned.
    RedisReply run(RedisConnection& connection,
                   std::initializer_list<std::string_view> arguments,
                   Deadline deadline) const {
        append(connection, arguments);
        auto reply = connection.read(deadline);
        if (reply.value().code() != "NOSCRIPT") {
            return reply;
        }
        append_load(connection);
        append(connection, arguments);
        auto loaded = connection.read(deadline);
        reply = connection.read(deadline);
        return loaded.value().is_error() ? std::move(loaded) : std::move(reply);
    }

    /// Runs it `count` times, in one pipeline: `arguments(i)` are those of the i-th, good until all
    /// replies came.
    /// Cost: one round trip, two where the server does not know it.
    template <class ArgumentsOf>
    std::vector<RedisReply> run_all(RedisConnection& connection,
                                    std::size_t count,
                                    const ArgumentsOf& arguments,
                                    Deadline deadline) const {
        std::vector<RedisReply> replies(count);
        std::vector<std::size_t> again;
        for (std::size_t i = 0; i < count; ++i) {
            append(connection, arguments(i));
        }
        for (std::size_t i = 0; i < count; ++i) {
            replies[i] = connection.read(deadline);
            if (replies[i].value().code() == "NOSCRIPT") {
                again.push_back(i);
            }
        }
        if (again.empty()) {
            return replies;
        }
        append_load(connection);
        for (const auto i : again) {
            append(connection, arguments(i));
        }
        auto loaded = connection.read(deadline);
        for (const auto i : again) {
            replies[i] = connection.read(deadline);
        }
        if (loaded.value().is_error()) {
            replies[again.front()] = std::move(loaded); // says why, the calls only NOSCRIPT again
        }
        return replies;
    }

    [[nodiscard]] constexpr std::string_view text() const noexcept { return text_; }

private:
    std::string_view text_;
    std::array<char, 40> sha_;
    unsigned keys_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_SCRIPT_HPP
