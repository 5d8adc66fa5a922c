// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_INSPECTION_HPP
#define IDEM_DETAIL_SQLITE_INSPECTION_HPP

// What operators do with the records of SqliteStore, and the charge that is taken back.

#include <idem/detail/sqlite_alone.hpp>
#include <idem/inspectable_store.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0::detail {

/// In each statement ?1 is the time of the machine's clock.
inline constexpr std::string_view sqlite_find = R"sql(
SELECT scope, id, format, state, fingerprint, algorithm, attempts, changed, result, note,
       lease_until, fence
FROM main."{table}" WHERE expires > ?1 AND scope = ?2 AND id = ?3
)sql";

/// Reads the whole table, as there is no index on states.
inline constexpr std::string_view sqlite_list = R"sql(
SELECT scope, id, format, state, fingerprint, algorithm, attempts, changed, result, note,
       lease_until, fence
FROM main."{table}" WHERE expires > ?1 AND state = ?2 AND format <= 1
ORDER BY changed, scope, id LIMIT ?3
)sql";

// Invariants of the three interventions. A record under a lease that lasts, one that has expired and
// one of a newer format are not changed; an owner whose lease ran out is an outdated one from then
// on. `expires` - `changed` stays what it was: the retention begins anew.

/// Invariant: only a dead or parked record is changed. The fingerprint stays.
inline constexpr std::string_view sqlite_revive = R"sql(
UPDATE main."{table}" SET state = 1, attempts = 0, note = ?4, lease_until = 0, owner = x'',
    changed = ?1, expires = ?1 + (expires - changed)
WHERE scope = ?2 AND id = ?3 AND expires > ?1 AND format <= 1 AND state IN (3, 4)
)sql";

/// Invariant: neither a completed record nor an issued token is changed.
inline constexpr std::string_view sqlite_force_complete = R"sql(
UPDATE main."{table}" SET state = 2, result = ?5, note = ?4, lease_until = 0, owner = x'',
    changed = ?1, expires = ?1 + (expires - changed)
WHERE scope = ?2 AND id = ?3 AND expires > ?1 AND format <= 1 AND state IN (1, 3, 4)
    AND lease_until <= ?1
)sql";

/// Invariant: what is left says nothing about the key but who erased it, and its fence. An issued
/// token is erased at any time.
inline constexpr std::string_view sqlite_erase = R"sql(
UPDATE main."{table}" SET state = 1, attempts = 0, note = ?4,
    fingerprint = zeroblob(16), algorithm = 0, result = x'',
    lease_until = 0, owner = x'', holder = x'',
    changed = ?1, expires = ?1 + (expires - changed)
WHERE scope = ?2 AND id = ?3 AND expires > ?1 AND format <= 1
    AND (state = 0 OR lease_until <= ?1)
    AND NOT (state = 1 AND attempts = 0 AND algorithm = 0 AND lease_until = 0 AND holder = x'')
)sql";

/// Invariant: nothing but an open record that nobody has under a lease, or a dead one, is changed,
/// nor any record's life.
inline constexpr std::string_view sqlite_refund = R"sql(
UPDATE main."{table}" SET state = 1, attempts = max(attempts - 1, 0)
WHERE expires > ?1 AND scope = ?2 AND id = ?3 AND format <= 1 AND state IN (1, 3)
    AND lease_until <= ?1
)sql";

/// The operator's view of one table. Concurrency: every member may be called from any number of
/// threads.
class SqliteInspection {
public:
    explicit SqliteInspection(std::string_view table)
        : find_(sqlite_statement(sqlite_find, table))
        , list_(sqlite_statement(sqlite_list, table))
        , revive_(sqlite_statement(sqlite_revive, table))
        , force_complete_(sqlite_statement(sqlite_force_complete, table))
        , erase_(sqlite_statement(sqlite_erase, table))
        , refund_(sqlite_statement(sqlite_refund, table)) {}

    [[nodiscard]] std::optional<Record> find(SqliteCore& core, const Key& key) const {
        require_valid(key);
        return sqlite_read_alone(core, [&](SqliteSession& session) -> std::optional<Record> {
            SqliteCall call(session, find_, now(core), blob_of(key.scope), blob_of(key.id));
            if (!call.next()) {
                return std::nullopt;
            }
            require_known_format(call.integer(2));
            return record(call);
        });
    }
    [[nodiscard]] std::vector<Record> list(SqliteCore& core, State state, std::size_t limit) const {
        return sqlite_read_alone(core, [&](SqliteSession& session) {
            std::vector<Record> records;
            SqliteCall call(
                session, list_, now(core), static_cast<std::int64_t>(state), at_most(limit));
            while (call.next()) {
                records.push_back(record(call));
            }
            return records;
        });
    }

    bool revive(SqliteCore& core, const Key& key, const Intervention& by) const {
        return intervene(core, revive_, key, note_of("revived", by));
    }
    bool force_complete(SqliteCore& core,
                        const Key& key,
                        std::string_view result,
                        const Intervention& by) const {
        return intervene(core, force_complete_, key, note_of("completed", by), blob_of(result));
    }
    bool erase(SqliteCore& core, const Key& key, const Intervention& by) const {
        return intervene(core, erase_, key, note_of("erased", by));
    }
    void refund(SqliteCore& core, const Key& key) const {
        require_valid(key);
        sqlite_write_alone(core, [&](SqliteSession& session) {
            SqliteCall(session, refund_, now(core), blob_of(key.scope), blob_of(key.id)).finish();
        });
    }

private:
    static std::int64_t now(const SqliteCore& core) { return sqlite_millis(core.now()); }
    static std::int64_t at_most(std::size_t limit) {
        constexpr std::size_t most = 1'000'000'000;
        return static_cast<std::int64_t>(std::min(limit, most));
    }
    /// The row of sqlite_find or sqlite_list.
    static Record record(const SqliteCall& call) {
        Record read{.scope = std::string(call.bytes(0)),
                    .id = std::string(call.bytes(1)),
                    .state = static_cast<State>(call.integer(3)),
                    .fingerprint = sqlite_fingerprint(call.bytes(4), call.integer(5)),
                    .attempts = static_cast<unsigned>(call.integer(6)),
                    .fence = static_cast<std::uint64_t>(call.integer(11)),
                    .changed = Timestamp(milliseconds{call.integer(7)}),
                    .result = std::string(call.bytes(8)),
                    .note = std::string(call.bytes(9))};
        if (const auto until = call.integer(10); until != 0) {
            read.lease_until = Timestamp(milliseconds{until});
        }
        return read;
    }
    template <class... More>
    static bool intervene(SqliteCore& core,
                          const std::string& statement,
                          const Key& key,
                          const std::string& note,
                          More... more) {
        require_valid(key);
        return sqlite_write_alone(core, [&](SqliteSession& session) {
                   SqliteCall(session,
                              statement,
                              now(core),
                              blob_of(key.scope),
                              blob_of(key.id),
                              note,
                              more...)
                       .finish();
               }) > 0;
    }

    std::string find_, list_, revive_, force_complete_, erase_, refund_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_INSPECTION_HPP
