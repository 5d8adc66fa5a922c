// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_PRUNE_HPP
#define IDEM_DETAIL_SQLITE_PRUNE_HPP

// How records past their retention leave the table of SqliteStore.

#include <idem/detail/sqlite_alone.hpp>

#include <algorithm>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// In the order of the key, so that the scan goes on from where the last one ended. Reads no page
/// of a long result.
inline constexpr std::string_view sqlite_expired = R"sql(
SELECT scope, id FROM main."{table}"
WHERE expires <= ?1 AND (scope, id) > (?2, ?3) AND format <= 1 LIMIT ?4
)sql";

/// Invariant: a record that was claimed anew since it was found stays.
inline constexpr std::string_view sqlite_prune = R"sql(
DELETE FROM main."{table}" WHERE expires <= ?1 AND scope = ?2 AND id = ?3 AND format <= 1
)sql";

/// Removes what is past its retention, from one table. Concurrency: every member may be called from
/// any number of threads.
class SqlitePruning {
public:
    explicit SqlitePruning(std::string_view table)
        : expired_(sqlite_statement(sqlite_expired, table))
        , prune_(sqlite_statement(sqlite_prune, table)) {}

    /// Finds without the write lock, and holds it for `most_at_once` records at a time. Goes on
    /// from where the last call ended, so that to prune a table in small steps is one scan of it;
    /// less than `limit` only after a whole scan.
    std::size_t prune(SqliteCore& core, std::size_t limit) {
        Name from = place();
        bool whole = from == Name{};
        std::size_t removed = 0;
        while (removed < limit) {
            const auto wanted = std::min(limit - removed, most_at_once);
            const auto found = expired(core, from, wanted);
            removed += remove(core, found);
            from = found.size() < wanted ? Name{} : found.back();
            move_place(from);
            if (from == Name{} && std::exchange(whole, true)) {
                break;
            }
        }
        return removed;
    }

private:
    using Name = std::pair<std::string, std::string>;
    static constexpr std::size_t most_at_once = 250;

    [[nodiscard]] std::vector<Name>
    expired(SqliteCore& core, const Name& from, std::size_t limit) const {
        return sqlite_read_alone(core, [&](SqliteSession& session) {
            std::vector<Name> names;
            SqliteCall call(session,
                            expired_,
                            sqlite_millis(core.now()),
                            blob_of(from.first),
                            blob_of(from.second),
                            limit);
            while (call.next()) {
                names.emplace_back(call.bytes(0), call.bytes(1));
            }
            return names;
        });
    }
    [[nodiscard]] std::size_t remove(SqliteCore& core, const std::vector<Name>& names) const {
        if (names.empty()) {
            return 0;
        }
        return sqlite_write_alone(core, [&](SqliteSession& session) {
            for (const auto& [scope, id] : names) {
                SqliteCall(session, prune_, sqlite_millis(core.now()), blob_of(scope), blob_of(id))
                    .finish();
            }
        });
    }
    [[nodiscard]] Name place() {
        const std::scoped_lock lock(mutex_);
        return place_;
    }
    void move_place(const Name& place) {
        const std::scoped_lock lock(mutex_);
        place_ = place;
    }

    std::string expired_, prune_;
    std::mutex mutex_{};
    Name place_{}; // where the last scan ended; empty: at the start, as no scope is
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_PRUNE_HPP
