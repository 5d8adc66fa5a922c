// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_CONTROL_HPP
#define IDEM_DETAIL_SQLITE_CONTROL_HPP

// Which statements of a handler would end its transaction, or outlive it.

#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Removes white space, comments and empty statements from the front, as SQLite does.
inline void skip_sqlite_space(std::string_view& sql) noexcept {
    while (!sql.empty()) {
        if (std::string_view(" \t\n\f\r;").find(sql.front()) != std::string_view::npos) {
            sql.remove_prefix(1);
        } else if (sql.substr(0, 3) == "\xef\xbb\xbf") {
            sql.remove_prefix(3);
        } else if (sql.substr(0, 2) == "--" || sql.substr(0, 2) == "/*") {
            const std::string_view close = sql.front() == '-' ? "\n" : "*/";
            const auto end = sql.find(close, 2);
            sql.remove_prefix(end == std::string_view::npos ? sql.size() : end + close.size());
        } else {
            return;
        }
    }
}

/// Removes a keyword from the front, and returns it in upper case.
inline std::string take_sqlite_keyword(std::string_view& sql) {
    skip_sqlite_space(sql);
    std::string word;
    while (!sql.empty()) {
        const char c = sql.front();
        const bool lower = c >= 'a' && c <= 'z';
        if (!lower && !(c >= 'A' && c <= 'Z') && c != '_') {
            break;
        }
        word += static_cast<char>(lower ? c - 'a' + 'A' : c);
        sql.remove_prefix(1);
    }
    return word;
}

enum class SqliteKind {
    plain,
    control,         // begins or ends the transaction
    changes_session, // leaves something in the connection that no rollback takes away, or may
};

/// Savepoints of the handler's own are plain: ROLLBACK TO is one of their statements.
inline SqliteKind sqlite_kind(std::string_view sql) {
    const auto word = take_sqlite_keyword(sql);
    if (word == "BEGIN" || word == "COMMIT" || word == "END") {
        return SqliteKind::control;
    }
    if (word == "ROLLBACK") {
        auto next = take_sqlite_keyword(sql);
        if (next == "TRANSACTION") {
            next = take_sqlite_keyword(sql);
        }
        return next == "TO" ? SqliteKind::plain : SqliteKind::control;
    }
    const bool lasts = word == "PRAGMA" || word == "ATTACH" || word == "DETACH" || word == "CREATE";
    return lasts ? SqliteKind::changes_session : SqliteKind::plain;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_CONTROL_HPP
