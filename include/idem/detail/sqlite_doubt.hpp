// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_DOUBT_HPP
#define IDEM_DETAIL_SQLITE_DOUBT_HPP

// What became of a COMMIT that failed.

#include <idem/detail/sqlite_core.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// A key that a transaction claimed, and the result it wrote.
struct SqliteClaim {
    std::string scope, id;
    std::optional<std::string> result{};
    [[nodiscard]] bool is_of(const Key& key) const noexcept {
        return id == key.id && scope == key.scope;
    }
};

/// An open transaction, its connection and its right to write. Without a turn it is a savepoint in
/// the user's.
struct SqliteOpened {
    SqliteCore* core;
    std::optional<SqliteCore::Turn> turn{};
    SqliteCore::Session session{};
    std::string savepoint{};
};

enum class SqliteCommit { happened, did_not_happen, unknown };

/// Decides about a COMMIT that failed and left no transaction open.
///
/// A COMMIT answered by SQLITE_BUSY or a failed constraint leaves the transaction open and is not
/// for here: https://www.sqlite.org/lang_transaction.html. SQLITE_FULL is a write that found no
/// room; the frame that commits is the last one written, so it is not there. But after a failed
/// write or sync that frame may stand in the log, complete: other connections do not see it, as the
/// index was not moved on, until a crash makes recovery read the whole log and find it: then the
/// transaction is there after all. So absence is proved by a write: the next commit overwrites the
/// log from where the failed one began. That write is synced, so that a record found here is
/// durable too.
///
/// `stands(session)`: whether what the transaction wrote is there.
template <class Stands>
SqliteCommit
sqlite_outcome(const SqliteCore& core, const SqliteError& error, const Stands& stands) noexcept {
    if (primary_code(error.code()) == SQLITE_FULL) {
        return SqliteCommit::did_not_happen;
    }
    try {
        const auto deadline = core.deadline();
        const auto session = core.open(SQLITE_OPEN_READWRITE, deadline);
        session->begin_immediate(); // no other COMMIT is under way
        const bool there = stands(*session);
        core.records().touch(*session);
        session->wait_until(core.deadline());
        if (session->commit() != SQLITE_OK) {
            session->rollback();
            return SqliteCommit::unknown;
        }
        return there ? SqliteCommit::happened : SqliteCommit::did_not_happen;
    } catch (...) {
        return SqliteCommit::unknown;
    }
}

/// The same of a transaction that has to have completed these keys and moved these fence rows;
/// without any of that there is nothing to tell by.
inline SqliteCommit sqlite_outcome_of(const SqliteCore& core,
                                      const SqliteError& error,
                                      const std::vector<SqliteClaim>& claims,
                                      const std::vector<SqliteAdvanced>& fences) noexcept {
    bool any = !fences.empty();
    for (const auto& claim : claims) {
        any = any || claim.result.has_value();
    }
    const auto outcome = sqlite_outcome(core, error, [&](SqliteSession& session) {
        bool all = true;
        for (const auto& claim : claims) {
            const Key key{claim.scope, claim.id};
            all = all && (!claim.result || core.records().holds(session, key, *claim.result));
        }
        for (const auto& moved : fences) {
            all = all && core.fences().holds(session, moved);
        }
        return all;
    });
    const bool full = primary_code(error.code()) == SQLITE_FULL;
    return any || full ? outcome : SqliteCommit::unknown;
}

/// Throws: StoreError where it is not certain that it happened.
inline void
require_sqlite_happened(const SqliteCore& core, const SqliteError& error, SqliteCommit outcome) {
    if (outcome == SqliteCommit::did_not_happen) {
        throw StoreError(Fault::unavailable,
                         sqlite_failure(core.path(), error) +
                             "; COMMIT failed, nothing of it happened: " +
                             sqlite_meaning(error.code(), error.system_error()).advice);
    }
    if (outcome == SqliteCommit::unknown) {
        throw StoreError(
            Fault::in_doubt,
            sqlite_failure(core.path(), error) +
                "; COMMIT failed, and reading back failed too: check the disk, then retry");
    }
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_DOUBT_HPP
