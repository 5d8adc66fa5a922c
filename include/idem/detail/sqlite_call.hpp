// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_CALL_HPP
#define IDEM_DETAIL_SQLITE_CALL_HPP

// One run of a statement: its values in, its rows out.

#include <idem/detail/sqlite.hpp>

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace idem::inline v0 {

namespace detail {

class SqliteCall;

template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

} // namespace detail

/// What a value of a statement may be: text, an integer, a floating-point number, a bool, bytes
/// (anything that converts to std::span<const std::byte>), nullptr, or std::optional of these.
template <class T>
concept SqliteValue = std::same_as<T, std::nullptr_t> || std::same_as<T, std::nullopt_t> ||
    std::is_arithmetic_v<T> || std::convertible_to<const T&, std::string_view> ||
    std::convertible_to<const T&, std::span<const std::byte>> || detail::is_optional<T>;

/// The rows of a statement, copied: they outlive the transaction.
class SqliteRows {
public:
    [[nodiscard]] std::size_t size() const noexcept {
        return columns_ == 0 ? 0 : cells_.size() / columns_;
    }
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    /// Rows that an INSERT, UPDATE or DELETE changed, without those of its triggers.
    [[nodiscard]] std::uint64_t affected() const noexcept { return affected_; }
    /// A value as text or bytes; nothing where it is NULL. Valid as long as this object.
    /// Throws: std::out_of_range.
    [[nodiscard]] std::optional<std::string_view> text(std::size_t row, std::size_t column) const {
        if (column >= columns_) {
            throw std::out_of_range("idem: SqliteRows has " + std::to_string(columns_) +
                                    " columns, column " + std::to_string(column) +
                                    " was asked for");
        }
        const auto& cell = cells_.at(row * columns_ + column);
        if (cell.null) {
            return std::nullopt;
        }
        return std::string_view(bytes_).substr(cell.at, cell.size);
    }
    /// A value as an integer; nothing where it is NULL.
    /// Throws: std::out_of_range, also for what is no integer of 64 bits.
    [[nodiscard]] std::optional<std::int64_t> integer(std::size_t row, std::size_t column) const {
        const auto digits = text(row, column);
        if (!digits) {
            return std::nullopt;
        }
        std::int64_t number = 0;
        const char* end = digits->data() + digits->size();
        const auto parsed = std::from_chars(digits->data(), end, number);
        if (parsed.ec != std::errc{} || parsed.ptr != end) {
            throw std::out_of_range("idem: not an integer: " + std::string(*digits));
        }
        return number;
    }

private:
    friend class detail::SqliteCall;
    struct Cell {
        std::size_t at, size;
        bool null;
    };
    std::string bytes_;
    std::vector<Cell> cells_;
    std::size_t columns_ = 0;
    std::uint64_t affected_ = 0;
};

namespace detail {

/// Borrows its values until it ends; then the statement is ready for the next call.
class SqliteCall {
public:
    /// `sql` is the text of a statement, or a SqliteStatement.
    /// Throws: SqliteError, std::invalid_argument.
    template <class Sql, SqliteValue... Values>
    SqliteCall(SqliteSession& session, const Sql& sql, const Values&... values)
        : session_(session)
        , statement_(session.prepare(sql)) {
        const auto wanted = static_cast<std::size_t>(sqlite3_bind_parameter_count(statement_));
        if (wanted != sizeof...(values)) {
            throw std::invalid_argument("idem: the statement has " + std::to_string(wanted) +
                                        " parameters, but " + std::to_string(sizeof...(values)) +
                                        " values were given");
        }
        try {
            int index = 0;
            (bind(++index, values), ...);
        } catch (...) {
            end();
            throw;
        }
    }
    SqliteCall(const SqliteCall&) = delete;
    SqliteCall& operator=(const SqliteCall&) = delete;
    ~SqliteCall() { end(); }

    /// Whether there is one more row. Throws: SqliteError.
    bool next() {
        const int code = sqlite3_step(statement_);
        if (code != SQLITE_ROW && code != SQLITE_DONE) {
            throw session_.error(code);
        }
        return code == SQLITE_ROW;
    }
    /// Runs to the end what answers no row, or one that does not matter.
    void finish() {
        while (next()) {
        }
    }
    /// All rows.
    SqliteRows rows() {
        SqliteRows rows;
        const int before = sqlite3_total_changes(session_.native());
        rows.columns_ = static_cast<std::size_t>(sqlite3_column_count(statement_));
        while (next()) {
            for (std::size_t column = 0; column < rows.columns_; ++column) {
                const bool null = is_null(column); // before bytes(), which may convert
                const auto value = bytes(static_cast<int>(column));
                rows.cells_.push_back({rows.bytes_.size(), value.size(), null});
                rows.bytes_ += value;
            }
        }
        if (sqlite3_total_changes(session_.native()) != before) {
            rows.affected_ = static_cast<std::uint64_t>(sqlite3_changes(session_.native()));
        }
        return rows;
    }

    [[nodiscard]] std::int64_t integer(int column) const {
        return sqlite3_column_int64(statement_, column);
    }
    /// Valid until the next row.
    [[nodiscard]] std::string_view bytes(int column) const {
        const bool binary = sqlite3_column_type(statement_, column) == SQLITE_BLOB;
        const void* data = binary ? sqlite3_column_blob(statement_, column)
                                  : sqlite3_column_text(statement_, column);
        const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
        return data == nullptr ? std::string_view{}
                               : std::string_view{static_cast<const char*>(data), size};
    }

private:
    [[nodiscard]] bool is_null(std::size_t column) const {
        return sqlite3_column_type(statement_, static_cast<int>(column)) == SQLITE_NULL;
    }
    void end() noexcept {
        sqlite3_reset(statement_);
        sqlite3_clear_bindings(statement_);
    }
    void require(int code) const {
        if (code != SQLITE_OK) {
            throw session_.error(code);
        }
    }
    template <SqliteValue T>
    void bind(int index, const T& value) {
        if constexpr (std::same_as<T, std::nullptr_t> || std::same_as<T, std::nullopt_t>) {
            require(sqlite3_bind_null(statement_, index));
        } else if constexpr (is_optional<T>) {
            value ? bind(index, *value) : bind(index, nullptr);
        } else if constexpr (std::is_floating_point_v<T>) {
            require(sqlite3_bind_double(statement_, index, static_cast<double>(value)));
        } else if constexpr (std::is_arithmetic_v<T>) {
            bind_integer(index, value);
        } else if constexpr (std::convertible_to<const T&, std::string_view>) {
            const std::string_view text(value);
            require(sqlite3_bind_text64(
                statement_, index, not_null(text.data()), text.size(), nullptr, SQLITE_UTF8));
        } else {
            const std::span<const std::byte> blob(value);
            require(sqlite3_bind_blob64(
                statement_, index, not_null(blob.data()), blob.size(), nullptr));
        }
    }
    template <class T>
    void bind_integer(int index, T value) {
        if constexpr (std::is_unsigned_v<T> && sizeof(T) == sizeof(std::int64_t)) {
            if (value > static_cast<T>(std::numeric_limits<std::int64_t>::max())) {
                throw std::invalid_argument("idem: value " + std::to_string(index) + ", " +
                                            std::to_string(value) +
                                            ", is over SQLite's integers of 63 bits and a sign");
            }
        }
        require(sqlite3_bind_int64(statement_, index, static_cast<std::int64_t>(value)));
    }
    /// A null pointer would bind NULL where an empty value is meant.
    template <class T>
    static const T* not_null(const T* data) noexcept {
        static constexpr T empty{};
        return data == nullptr ? &empty : data;
    }

    SqliteSession& session_;
    sqlite3_stmt* statement_;
};

/// The bytes of a string as a blob.
inline std::span<const std::byte> blob_of(std::string_view bytes) noexcept {
    return std::as_bytes(std::span(bytes.data(), bytes.size()));
}

} // namespace detail
} // namespace idem::inline v0

#endif // IDEM_DETAIL_SQLITE_CALL_HPP
