// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_SCHEMA_HPP
#define IDEM_DETAIL_SQLITE_SCHEMA_HPP

// The table of records, and the statements of a joined claim, its completion and its failure.

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Of the record's columns and their meaning. A record of a newer format is not judged.
inline constexpr std::int64_t sqlite_record_format = 1;

/// The column `state`; the numbers of idem::State.
enum class SqliteState : std::int64_t { issued = 0, open = 1, completed = 2, dead = 3, parked = 4 };

/// Invariants. One record per key, whatever its bytes: both parts are blobs, compared byte by byte.
/// A record whose `expires` has passed counts as absent. `fingerprint` has 16 bytes, high first; it
/// says nothing where `algorithm` is 0. Times are milliseconds since 1970 by the clock of the
/// machine; `expires` - `changed` is the retention, or the lease where that is longer. There is no
/// index on `expires`: it would make every claim pay for what only prune() needs. The long columns
/// come last, so that a scan for what has expired reads none of their pages.
///
/// Of leases: `lease_until` is 0 where there is none, and else never later than `expires`; of an
/// issued token it ends the time for its first redeem. `owner` is the nonce of the claim by lease
/// that wrote the record last, `fence` the number that it was given, `holder` the key that redeemed
/// a token. A joined claim has none of these: the write lock is its claim.
///
/// The last fence that was given out, for whatever key, has a table of its own: so fences grow also
/// across what prune() and those who delete records by hand remove, and across a clock set back.
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
    lease_until INTEGER NOT NULL DEFAULT 0,
    fence       INTEGER NOT NULL DEFAULT 0,
    owner       BLOB    NOT NULL DEFAULT x'',
    holder      BLOB    NOT NULL DEFAULT x'',
    note        TEXT    NOT NULL,
    result      BLOB    NOT NULL,
    PRIMARY KEY (scope, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS main."{table}_fence" (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    last     INTEGER NOT NULL
);
)sql";

inline constexpr std::string_view sqlite_read = R"sql(
SELECT format, state, fingerprint, algorithm, attempts, result, changed, expires,
       lease_until, fence, owner, holder
FROM main."{table}" WHERE scope = ?1 AND id = ?2
)sql";

/// Invariant: a completed record that has not expired, and one of a newer format, are never
/// changed. The fingerprint of an earlier attempt stays where this one has none. That no lease
/// lasts was judged by the claim, under the same write lock.
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
    changed = excluded.changed, expires = excluded.expires,
    lease_until = 0, owner = x'', holder = x''
WHERE old.format <= 1 AND (old.state <> 2 OR old.expires <= ?6)
)sql";

/// Invariant: only an open record that nobody has under a lease, a dead or an expired one is
/// changed. The first fingerprint stays. The record is dead from the attempt on that uses up the
/// limit, ?8.
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
    changed = excluded.changed, expires = excluded.expires,
    lease_until = 0, owner = x'', holder = x''
WHERE old.format <= 1
  AND ((old.state IN (1, 3) AND old.lease_until <= ?6) OR old.expires <= ?6)
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
    for (auto at = sql.find(mark); at != std::string::npos; at = sql.find(mark, at)) {
        sql.replace(at, mark.size(), table);
    }
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
