// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_RABBITMQ_TABLE_HPP
#define IDEM_DETAIL_RABBITMQ_TABLE_HPP

// Numbers, strings and field tables of AMQP 0-9-1 as they travel, read where they lie.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Unsigned, in network order.
template <class Number>
[[nodiscard]] Number amqp_number(std::string_view bytes) noexcept {
    std::uint64_t value = 0;
    for (std::size_t at = 0; at < sizeof(Number) && at < bytes.size(); ++at) {
        value = value << 8 | static_cast<unsigned char>(bytes[at]);
    }
    return static_cast<Number>(value);
}
template <class Number>
void append_amqp(std::string& to, Number value) {
    for (std::size_t at = sizeof(Number); at-- > 0;) {
        to += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * at) & 0xff);
    }
}
/// Requires: at most 255 bytes.
inline void append_amqp_short(std::string& to, std::string_view text) {
    append_amqp(to, static_cast<std::uint8_t>(text.size()));
    to += text;
}
inline void append_amqp_long(std::string& to, std::string_view text) {
    append_amqp(to, static_cast<std::uint32_t>(text.size()));
    to += text;
}

/// A header as a reader wants it: text, or a number.
struct RabbitValue {
    std::optional<std::string_view> text{};
    std::optional<std::int64_t> number{};
};

struct RabbitField {
    std::string_view name;
    char kind = 'V';          ///< by RabbitMQ's table of kinds, where 's' is a short number
    std::string_view value{}; ///< without its length
    std::string_view all{};   ///< name, kind and value as they travel

    [[nodiscard]] RabbitValue read() const noexcept {
        switch (kind) {
        case 'S':
        case 'x':
            return {value, {}};
        case 'b':
            return {{}, amqp_number<std::int8_t>(value)};
        case 'B':
            return {{}, amqp_number<std::uint8_t>(value)};
        case 's':
            return {{}, amqp_number<std::int16_t>(value)};
        case 'u':
            return {{}, amqp_number<std::uint16_t>(value)};
        case 'I':
            return {{}, amqp_number<std::int32_t>(value)};
        case 'i':
            return {{}, amqp_number<std::uint32_t>(value)};
        case 'l':
        case 'L':
        case 'T':
            return {{}, amqp_number<std::int64_t>(value)};
        default:
            return {};
        }
    }
};

/// The fields of a table, one after the other. What is malformed ends it.
class RabbitTable {
public:
    explicit RabbitTable(std::string_view bytes) noexcept : rest_(bytes) {}

    [[nodiscard]] std::optional<RabbitField> next() noexcept {
        const auto begin = rest_;
        RabbitField field;
        if (!take(1 + (rest_.empty() ? 0U : static_cast<unsigned char>(rest_[0])), field.name) ||
            rest_.empty()) {
            return {};
        }
        field.name.remove_prefix(1);
        field.kind = rest_[0];
        rest_.remove_prefix(1);
        const auto size = size_of(field.kind);
        if (!size || !take(*size, field.value)) {
            rest_ = {};
            return {};
        }
        if (has_length(field.kind)) {
            field.value.remove_prefix(4);
        }
        field.all = begin.substr(0, begin.size() - rest_.size());
        return field;
    }

private:
    static bool has_length(char kind) noexcept {
        return kind == 'S' || kind == 'x' || kind == 'A' || kind == 'F';
    }
    [[nodiscard]] std::optional<std::size_t> size_of(char kind) const noexcept {
        switch (kind) {
        case 't':
        case 'b':
        case 'B':
            return 1;
        case 's':
        case 'u':
            return 2;
        case 'I':
        case 'i':
        case 'f':
            return 4;
        case 'D':
            return 5;
        case 'l':
        case 'L':
        case 'T':
        case 'd':
            return 8;
        case 'V':
            return 0;
        default:
            if (has_length(kind)) {
                return std::size_t{4} + amqp_number<std::uint32_t>(rest_);
            }
            return {};
        }
    }
    bool take(std::size_t size, std::string_view& into) noexcept {
        if (size > rest_.size()) {
            return false;
        }
        into = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return true;
    }
    std::string_view rest_;
};

/// The first field of that name in a table.
[[nodiscard]] inline std::optional<RabbitField> field_of(std::string_view table,
                                                         std::string_view name) noexcept {
    RabbitTable fields(table);
    while (const auto field = fields.next()) {
        if (field->name == name) {
            return field;
        }
    }
    return {};
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_RABBITMQ_TABLE_HPP
