// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_RECORDS_HPP
#define IDEM_DETAIL_SQLITE_RECORDS_HPP

// The records of one table, as claims in the handler's own transaction read and write them.

#include <idem/detail/sqlite_record.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace idem::inline v0::detail {

/// The records of one table. Its members throw SqliteError, and the StoreError of a newer format.
class SqliteRecords {
public:
    explicit SqliteRecords(std::string_view table)
        : read_{SqliteOwn::read, sqlite_statement(sqlite_read, table)}
        , complete_{SqliteOwn::complete, sqlite_statement(sqlite_complete, table)}
        , charge_{SqliteOwn::charge, sqlite_statement(sqlite_charge, table)}
        , lock_{SqliteOwn::lock, sqlite_statement(sqlite_lock, table)}
        , touch_(sqlite_statement(sqlite_touch, table)) {}

    [[nodiscard]] std::optional<SqliteRecord> find(SqliteSession& session, const Key& key) const {
        SqliteCall call(session, read_, blob_of(key.scope), blob_of(key.id));
        return call.next() ? std::optional<SqliteRecord>(std::in_place, call) : std::nullopt;
    }
    [[nodiscard]] Claim<std::monostate>
    claim(SqliteSession& session, const ClaimRequest& request, Timestamp now) const {
        return sqlite_judge(find(session, request.key), request, now);
    }
    /// False: the record is not as asked.
    [[nodiscard]] bool complete(SqliteSession& session,
                                const ClaimRequest& request,
                                std::string_view result,
                                Timestamp now) const {
        const int before = sqlite3_total_changes(session.native());
        write(session, complete_, request, blob_of(result), now);
        return sqlite3_total_changes(session.native()) != before;
    }
    /// Counts a failed attempt.
    void charge(SqliteSession& session,
                const ClaimRequest& request,
                std::string_view why,
                Timestamp now) const {
        write(session, charge_, request, sqlite_note(why), now, request.max_attempts);
    }
    void lock(SqliteSession& session) const { SqliteCall(session, lock_).finish(); }
    /// Makes the next commit write to the file, whatever else it holds.
    void touch(SqliteSession& session) const {
        SqliteCall(session, touch_).finish();
        lock(session);
    }
    /// Whether the key is completed with this result.
    [[nodiscard]] bool
    holds(SqliteSession& session, const Key& key, std::string_view result) const {
        const auto record = find(session, key);
        return record && record->format == sqlite_record_format &&
               record->state == SqliteState::completed && record->result == result;
    }

private:
    template <class Content, class... More>
    static void write(SqliteSession& session,
                      const SqliteStatement& statement,
                      const ClaimRequest& request,
                      Content content,
                      Timestamp now,
                      More... more) {
        const auto digest = sqlite_fingerprint_bytes(request.fingerprint);
        SqliteCall(session,
                   statement,
                   blob_of(request.key.scope),
                   blob_of(request.key.id),
                   blob_of({digest.data(), digest.size()}),
                   request.fingerprint.algorithm,
                   content,
                   sqlite_millis(now),
                   sqlite_millis(now + sqlite_span(request.retention)),
                   more...)
            .finish();
    }

    SqliteStatement read_, complete_, charge_, lock_;
    std::string touch_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_RECORDS_HPP
