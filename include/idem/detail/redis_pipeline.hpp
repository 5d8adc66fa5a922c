// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_PIPELINE_HPP
#define IDEM_DETAIL_REDIS_PIPELINE_HPP

// Commands as Redis reads them, any bytes in their arguments.

#include <charconv>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Commands that travel in one write. Each has one reply, in this order.
class RedisPipeline {
public:
    void append(std::span<const std::string_view> arguments) {
        begin(arguments.size());
        for (const auto argument : arguments) {
            add(argument);
        }
    }
    void append(std::initializer_list<std::string_view> arguments) {
        append(std::span(arguments.begin(), arguments.size()));
    }
    /// A command of so many words, each then given to add().
    void begin(std::size_t words) {
        append_size('*', words);
        ++commands_;
    }
    void add(std::string_view word) {
        append_size('$', word.size());
        bytes_ += word;
        bytes_ += "\r\n";
    }
    void append(const RedisPipeline& other) {
        bytes_ += other.bytes_;
        commands_ += other.commands_;
    }
    void reserve(std::size_t bytes) { bytes_.reserve(bytes); }
    void clear() noexcept {
        bytes_.clear();
        commands_ = 0;
    }

    [[nodiscard]] std::string_view bytes() const noexcept { return bytes_; }
    [[nodiscard]] std::size_t commands() const noexcept { return commands_; }

private:
    void append_size(char kind, std::size_t size) {
        char text[24] = {kind};
        char* end = std::to_chars(text + 1, text + sizeof text - 2, size).ptr;
        *end++ = '\r';
        *end++ = '\n';
        bytes_.append(text, end);
    }

    std::string bytes_;
    std::size_t commands_ = 0;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_PIPELINE_HPP
