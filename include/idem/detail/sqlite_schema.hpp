// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_SCHEMA_HPP
#define IDEM_DETAIL_SQLITE_SCHEMA_HPP

// The table of records, and the statements of claim, completion and failure.

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Of the record's columns and their meaning. A record of a newer format is not judged.
inline constexpr std::int64_t sqlite_record_format = 1;

enum class SqliteState : std::int64_t { open = 1, completed = 2, dead = 3, parked = 4 };

/// Invariants. One record per key, whatever its bytes: both parts are blobs, compared byte by byte.
/// A record whose `expires` has passed counts as absent. `fingerprint` has 16 bytes, high first; it
/// says nothing where `algorithm` is 0. Times are milliseconds since 1970 by the clock of the
/// machine; `expires` - `changed` is the retention. There is no index on `expires`: it would make
/// every claim pay for what only prune() needs. The long columns come last, so that a scan for what
/// has expired reads none of their pages.
inline constexpr std::string_view sqlite_schema = R"sql(
CREATE TABLE IF NOT EXISTS main."{table}" (
    scope       BLOB    NOT NULL,
    id          BLOB    NOT NULL,
    format      INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    fingerprint BLOB    NOT NULL,
    algorithm   INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    changed     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    note        TEXT    NOT NULL,
    result      BLOB    NOT NULL,
    PRIMARY KEY (scope, id)
) WITHOUT ROWID
)sql";

inline constexpr std::string_view sqlite_read = R"sql(
SELECT format, state, fingerprint, algorithm, attempts, result, changed, expires
FROM main."{table}" WHERE scope = ?1 AND id = ?2
)sql";

/// Invariant: a completed record that has not expired, and one of a newer format, are never
/// changed. The fingerprint of an earlier attempt stays where this one has none.
inline constexpr std::string_view sqlite_complete = R"sql(
INSERT INTO main."{table}" AS old
    (scope, id, format, state, fingerprint, algorithm, attempts, result, note, changed, expires)
VALUES (?1, ?2, 1, 2, ?3, ?4, 1, ?5, '', ?6, ?7)
ON CONFLICT (scope, id) DO UPDATE SET
    format = 1, state = 2, result = excluded.result, note = '',
    fingerprint = CASE WHEN excluded.algorithm = 0 AND old.expires > ?6
                       THEN old.fingerprint ELSE excluded.fingerprint END,
    algorithm = CASE WHEN excluded.algorithm = 0 AND old.expires > ?6
                     THEN old.algorithm ELSE excluded.algorithm END,
    attempts = CASE WHEN old.expires > ?6 THEN old.attempts + 1 ELSE 1 END,
    changed = excluded.changed, expires = excluded.expires
WHERE old.format <= 1 AND (old.state <> 2 OR old.expires <= ?6)
)sql";

/// Invariant: only an open, a dead or an expired record is changed. The first fingerprint stays. The
/// record is dead from the attempt on that uses up the limit, ?8.
inline constexpr std::string_view sqlite_charge = R"sql(
INSERT INTO main."{table}" AS old
    (scope, id, format, state, fingerprint, algorithm, attempts, result, note, changed, expires)
VALUES (?1, ?2, 1, CASE WHEN ?8 = 1 THEN 3 ELSE 1 END, ?3, ?4, 1, x'', ?5, ?6, ?7)
ON CONFLICT (scope, id) DO UPDATE SET
    format = 1, result = x'', note = excluded.note,
    state = CASE WHEN old.expires <= ?6 THEN excluded.state
                 WHEN ?8 > 0 AND old.attempts + 1 >= ?8 THEN 3 ELSE 1 END,
    fingerprint = CASE WHEN old.algorithm <> 0 AND old.expires > ?6
                       THEN old.fingerprint ELSE excluded.fingerprint END,
    algorithm = CASE WHEN old.algorithm <> 0 AND old.expires > ?6
                     THEN old.algorithm ELSE excluded.algorithm END,
    attempts = CASE WHEN old.expires > ?6 THEN old.attempts + 1 ELSE 1 END,
    changed = excluded.changed, expires = excluded.expires
WHERE old.format <= 1 AND (old.state IN (1, 3) OR old.expires <= ?6)
)sql";

/// Takes the write lock and changes nothing: no record has an empty key.
inline constexpr std::string_view sqlite_lock = R"sql(
DELETE FROM main."{table}" WHERE scope = x'' AND id = x''
)sql";

/// With sqlite_lock after it, a change that leaves everything as it was but is written and synced.
inline constexpr std::string_view sqlite_touch = R"sql(
INSERT OR REPLACE INTO main."{table}"
    (scope, id, format, state, fingerprint, algorithm, attempts, result, note, changed, expires)
VALUES (x'', x'', 1, 1, x'', 0, 0, x'', '', 0, 0)
)sql";

inline std::string sqlite_statement(std::string_view pattern, std::string_view table) {
    std::string sql(pattern);
    constexpr std::string_view mark = "{table}";
    sql.replace(sql.find(mark), mark.size(), table);
    return sql;
}

/// Throws: std::invalid_argument.
inline void require_sqlite_table(std::string_view table) {
    auto letter = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    };
    bool plain = !table.empty() && table.size() <= 63 && letter(table.front());
    for (const char c : table) {
        plain = plain && (letter(c) || (c >= '0' && c <= '9'));
    }
    if (!plain) {
        throw std::invalid_argument(
            "idem: SqliteOptions::table must be 1 to 63 letters, digits and "
            "underscores, and not begin with a digit: \"" +
            std::string(table) + "\"");
    }
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_SCHEMA_HPP
