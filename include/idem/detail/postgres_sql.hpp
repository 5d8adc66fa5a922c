// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_SQL_HPP
#define IDEM_DETAIL_POSTGRES_SQL_HPP

// What a handler's SQL would do to the transaction, told by its first words before it is sent.

#include <stdexcept>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Past white space, comments and empty statements, as the server's scanner passes over them.
[[nodiscard]] constexpr std::string_view without_preamble(std::string_view sql) noexcept {
    while (!sql.empty()) {
        if (std::string_view(" \t\n\r\f\v;").find(sql.front()) != std::string_view::npos) {
            sql.remove_prefix(1);
        } else if (sql.starts_with("--")) {
            const auto end = sql.find_first_of("\r\n");
            sql.remove_prefix(end == std::string_view::npos ? sql.size() : end);
        } else if (sql.starts_with("/*")) {
            int depth = 0; // they nest
            do {
                const int step = sql.starts_with("/*") ? 1 : sql.starts_with("*/") ? -1 : 0;
                depth += step;
                sql.remove_prefix(step == 0 ? 1 : 2);
            } while (depth > 0 && !sql.empty());
        } else {
            break;
        }
    }
    return sql;
}

/// Takes the first word off, in upper case.
[[nodiscard]] inline std::string take_word(std::string_view& sql) {
    sql = without_preamble(sql);
    std::string word;
    while (!sql.empty()) {
        const char c = sql.front();
        const bool lower = c >= 'a' && c <= 'z';
        if (!lower && !(c >= 'A' && c <= 'Z') && c != '_') {
            break;
        }
        word += lower ? static_cast<char>(c - 'a' + 'A') : c;
        sql.remove_prefix(1);
    }
    return word;
}

enum class SqlKind {
    plain,
    session, ///< may outlive the transaction in the session
    ending,  ///< begins, ends or splits a transaction
    copy,
};

[[nodiscard]] inline SqlKind kind_of(std::string_view sql) {
    const auto first = take_word(sql);
    for (const auto word :
         {"BEGIN", "COMMIT", "END", "ROLLBACK", "ABORT", "START", "SAVEPOINT", "RELEASE"}) {
        if (first == word) {
            return SqlKind::ending;
        }
    }
    if (first == "COPY") {
        return SqlKind::copy;
    }
    const auto second = take_word(sql);
    if (first == "PREPARE") {
        return second == "TRANSACTION" ? SqlKind::ending : SqlKind::session;
    }
    if (first == "SET") {
        return second == "LOCAL" || second == "CONSTRAINTS" || second == "TRANSACTION"
                   ? SqlKind::plain
                   : SqlKind::session;
    }
    for (const auto word : {"DECLARE", // WITH HOLD
                            "RESET",
                            "DISCARD",
                            "LISTEN",
                            "UNLISTEN",
                            "LOAD",
                            "DEALLOCATE"}) {
        if (first == word) {
            return SqlKind::session;
        }
    }
    const bool temporary = second == "TEMP" || second == "TEMPORARY" || second == "LOCAL" ||
                           second == "GLOBAL" || second == "OR";
    return first == "CREATE" && temporary ? SqlKind::session : SqlKind::plain;
}

/// Throws: std::logic_error for what a handler must leave to its transaction.
/// Returns whether the session must be reset after the transaction.
inline bool require_handler_sql(std::string_view sql) {
    const auto kind = kind_of(sql);
    if (kind == SqlKind::ending) {
        throw std::logic_error("idem: the handler must not begin, end or split its transaction: " +
                               std::string(sql.substr(0, 80)));
    }
    if (kind == SqlKind::copy) {
        throw std::logic_error("idem: execute() cannot COPY; use PQexec and PQputCopyData on "
                               "PostgresTransaction::native()");
    }
    return kind == SqlKind::session;
}

/// By the command tag of what was executed, should the first words have deceived us.
[[nodiscard]] inline bool is_transaction_tag(std::string_view tag) noexcept {
    for (const auto word : {"BEGIN",
                            "START TRANSACTION",
                            "COMMIT",
                            "ROLLBACK",
                            "PREPARE TRANSACTION",
                            "SAVEPOINT",
                            "RELEASE"}) {
        if (tag == word) {
            return true;
        }
    }
    return false;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_SQL_HPP
