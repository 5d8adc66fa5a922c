// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_SCRIPT_HPP
#define IDEM_DETAIL_REDIS_SCRIPT_HPP

// A script that the server keeps by its digest, sent again where the server forgot it (a restart,
// SCRIPT FLUSH, a failover).

#include <idem/detail/redis_connection.hpp>
#include <idem/detail/sha1.hpp>

#include <array>
#include <charconv>
#include <cstddef>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// A script over `keys` keys; its arguments are the keys, then the values. Or over any number of
/// keys, where `words_of_a_key` says how many arguments belong to each.
class RedisScript {
public:
    constexpr explicit RedisScript(std::string_view text,
                                   unsigned keys = 1,
                                   unsigned words_of_a_key = 0)
        : text_(text)
        , sha_(sha1(text))
        , keys_(keys)
        , words_of_a_key_(words_of_a_key) {}

    /// Adds a call. Its reply may be the error NOSCRIPT: then load().
    template <class Arguments>
    void append(RedisPipeline& pipeline, const Arguments& arguments) const {
        const auto count = static_cast<std::size_t>(std::end(arguments) - std::begin(arguments));
        const std::size_t keys = words_of_a_key_ == 0 ? keys_ : count / words_of_a_key_;
        char digits[24];
        const auto* end = std::to_chars(digits, digits + sizeof digits, keys).ptr;
        pipeline.begin(3 + count);
        pipeline.add("EVALSHA");
        pipeline.add({sha_.data(), sha_.size()});
        pipeline.add({digits, static_cast<std::size_t>(end - digits)});
        for (const auto& argument : arguments) {
            pipeline.add(argument);
        }
    }

    /// Runs it once.
    /// Cost: one round trip, two where the server does not know it.
    /// Throws: as RedisConnection::command(); an error reply is returned.
    template <class Link>
    RedisReply
    run(Link& link, std::initializer_list<std::string_view> arguments, Deadline deadline) const {
        return std::move(run_all(
            link, 1, [&](std::size_t) { return arguments; }, deadline)[0]);
    }

    /// Runs it `count` times, in one pipeline: `arguments(i)` are those of the i-th.
    /// `link.exchange(pipeline, deadline)` returns the replies.
    /// Cost: one round trip, two where the server does not know it.
    template <class Link, class ArgumentsOf>
    std::vector<RedisReply>
    run_all(Link& link, std::size_t count, const ArgumentsOf& arguments, Deadline deadline) const {
        RedisPipeline pipeline;
        pipeline.reserve(count * usual_size);
        for (std::size_t i = 0; i < count; ++i) {
            append(pipeline, arguments(i));
        }
        auto replies = link.exchange(pipeline, deadline);
        std::vector<std::size_t> again;
        for (std::size_t i = 0; i < count; ++i) {
            if (replies[i].value().code() == "NOSCRIPT") {
                again.push_back(i);
            }
        }
        if (again.empty()) {
            return replies;
        }
        pipeline.clear();
        pipeline.append({"SCRIPT", "LOAD", text_});
        for (const auto i : again) {
            append(pipeline, arguments(i));
        }
        auto loaded = link.exchange(pipeline, deadline);
        for (std::size_t at = 0; at < again.size(); ++at) {
            replies[again[at]] = std::move(loaded[at + 1]);
        }
        if (loaded[0].value().is_error()) { // it says why, the calls only NOSCRIPT again
            replies[again.front()] = std::move(loaded[0]);
        }
        return replies;
    }

    [[nodiscard]] constexpr std::string_view text() const noexcept { return text_; }

private:
    static constexpr std::size_t usual_size = 512;

    std::string_view text_;
    std::array<char, 40> sha_;
    unsigned keys_, words_of_a_key_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_SCRIPT_HPP
