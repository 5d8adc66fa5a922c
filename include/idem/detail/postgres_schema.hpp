// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_SCHEMA_HPP
#define IDEM_DETAIL_POSTGRES_SCHEMA_HPP

// The table of records: its columns, its name, and the lock that stands for a key.

#include <idem/detail/siphash.hpp>
#include <idem/key.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0::detail {

/// Of the record's columns and their meaning. A record of a newer format is not judged, and never
/// overwritten.
inline constexpr int postgres_record_format = 1;

/// The column `state`.
enum class PostgresState : std::int16_t {
    issued = 0,
    open = 1, ///< under a lease, or waiting for its next attempt
    completed = 2,
    dead = 3,
    parked = 4,
};

struct PostgresColumn {
    std::string_view name, type;
};

/// What verify() looks for in the table of offsets.
inline constexpr std::array<PostgresColumn, 9> postgres_offset_columns{{
    {"handled", "bigint"},
    {"before", "bigint"},
    {"tried", "bigint"},
    {"changed", "timestamp with time zone"},
    {"attempts", "integer"},
    {"scope", "bytea"},
    {"partition_name", "bytea"},
    {"owner", "bytea"},
    {"note", "text"},
}};

/// What verify() looks for, in the order of the schema: the wide ones first, so that a row has no
/// padding.
inline constexpr std::array<PostgresColumn, 15> postgres_columns{{
    {"fence", "bigint"},
    {"changed", "timestamp with time zone"},
    {"expires", "timestamp with time zone"},
    {"lease_until", "timestamp with time zone"},
    {"attempts", "integer"},
    {"algorithm", "integer"},
    {"format", "smallint"},
    {"state", "smallint"},
    {"scope", "bytea"},
    {"id", "bytea"},
    {"owner", "bytea"},
    {"fingerprint", "bytea"},
    {"holder", "bytea"},
    {"result", "bytea"},
    {"note", "text"},
}};

/// Invariants. One record per (scope, id), whatever their bytes. A record whose `expires` has
/// passed counts as absent. `owner` is the nonce of the claim that wrote it last, drawn anew for
/// each; a lease is held until `lease_until` by clock_timestamp(), and a joined claim holds none:
/// its advisory lock ends with its transaction. `fence` never falls. `fingerprint` is 16 bytes,
/// high first, null where `algorithm` is 0. `holder` is the key that redeemed a token.
///
/// Of the table of offsets: one row per handler's scope and partition. `handled` is the last offset
/// whose message took effect or was dead-lettered, -1: none yet; it never falls, and is written under
/// the row's own advisory lock only. `attempts` counts the failures of the one offset `tried`.
/// `owner` is the nonce of the transaction that moved the row last, from `before`.
///
/// The index is for pruning: of block ranges, as records expire in about the order in which they
/// were written, and one of rows would make each claim write a second entry.
inline constexpr std::string_view postgres_schema = R"sql(
CREATE TABLE IF NOT EXISTS {table} (
    fence       bigint      NOT NULL DEFAULT 0,
    changed     timestamptz NOT NULL,
    expires     timestamptz NOT NULL,
    lease_until timestamptz,
    attempts    integer     NOT NULL DEFAULT 0,
    algorithm   integer     NOT NULL DEFAULT 0,
    format      smallint    NOT NULL,
    state       smallint    NOT NULL,
    scope       bytea       NOT NULL,
    id          bytea       NOT NULL,
    owner       bytea,
    fingerprint bytea,
    holder      bytea,
    result      bytea,
    note        text,
    PRIMARY KEY (scope, id)
);
CREATE TABLE IF NOT EXISTS {offset} (
    handled        bigint      NOT NULL,
    before         bigint      NOT NULL,
    tried          bigint      NOT NULL,
    changed        timestamptz NOT NULL,
    attempts       integer     NOT NULL,
    scope          bytea       NOT NULL,
    partition_name bytea       NOT NULL,
    owner          bytea,
    note           text,
    PRIMARY KEY (scope, partition_name)
);
CREATE SEQUENCE IF NOT EXISTS {fence} AS bigint;
CREATE INDEX IF NOT EXISTS {prune} ON {table} USING brin (expires) WITH (autosummarize = on);
)sql";

/// `pattern` with {table}, {offset}, {fence} and {prune} put in. The name of an index takes no schema.
[[nodiscard]] inline std::string with_table(std::string_view pattern, std::string_view table) {
    auto quoted = [](std::string_view name) {
        std::string text = "\"";
        for (const char c : name) {
            c == '.' ? text += "\".\"" : text += c;
        }
        return text + "\"";
    };
    const std::string whole(table);
    const std::pair<std::string_view, std::string> marks[] = {
        {"{table}", quoted(table)},
        {"{offset}", quoted(whole + "_offset")},
        {"{fence}", quoted(whole + "_fence")},
        {"{prune}", quoted(whole.substr(whole.find('.') + 1) + "_prune")}};
    std::string sql;
    while (!pattern.empty()) {
        const auto at = std::min(pattern.find('{'), pattern.size());
        sql += pattern.substr(0, at);
        pattern.remove_prefix(at);
        bool found = false;
        for (const auto& [mark, text] : marks) {
            if (!found && pattern.starts_with(mark)) {
                sql += text;
                pattern.remove_prefix(mark.size());
                found = true;
            }
        }
        if (!found && !pattern.empty()) {
            sql += pattern.front();
            pattern.remove_prefix(1);
        }
    }
    return sql;
}

/// Throws: std::invalid_argument.
inline void require_postgres_table(std::string_view table) {
    bool plain = true, begins = true;
    std::size_t length = 0, parts = 1;
    for (const char c : table) {
        const bool letter = (c >= 'a' && c <= 'z') || c == '_';
        if (c == '.') {
            plain = plain && !begins;
            ++parts;
            length = 0;
            begins = true;
            continue;
        }
        plain = plain && (letter || (!begins && c >= '0' && c <= '9')) && ++length <= 56;
        begins = false;
    }
    if (!plain || begins || parts > 2) {
        throw std::invalid_argument(
            "idem: PostgresOptions::table must be name or schema.name, each of 1 to 56 lower-case "
            "letters, digits and underscores, not beginning with a digit: \"" +
            std::string(table) + "\"");
    }
}

/// The advisory lock of a key: 64 bits over (table, scope, id), each with its length before it. It
/// belongs to the record format (semantics.md 4.6): all programs over one table, in every mode,
/// must agree on it. Two keys with the same lock are a false "in progress", never a false
/// duplicate.
[[nodiscard]] inline std::int64_t advisory_lock_of(std::string_view table, const Key& key) {
    std::string bytes;
    bytes.reserve(table.size() + key.scope.size() + key.id.size() + 12);
    for (const auto part : {table, key.scope, key.id}) {
        for (unsigned shift = 0; shift < 32; shift += 8) {
            bytes += static_cast<char>(part.size() >> shift & 0xff);
        }
        bytes += part;
    }
    const auto digest = siphash128(bytes, 0x6964656d'2d6c6f63, 0x6b2d6b65'792d7631);
    return static_cast<std::int64_t>(digest.high);
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_SCHEMA_HPP
