// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_TRANSACTION_MEMBERS_HPP
#define IDEM_DETAIL_SQLITE_TRANSACTION_MEMBERS_HPP

// How SqliteTransaction keeps what it promises.

#include <idem/detail/sqlite_transaction.hpp>

#include <stdexcept>
#include <string>
#include <utility>

namespace idem::inline v0 {

inline void SqliteTransaction::require_open() const {
    if (opened_.session == nullptr) {
        throw std::logic_error("idem: the SqliteTransaction is over");
    }
    core().require_same_process();
}

inline void SqliteTransaction::require_intact() {
    require_open();
    const bool intact = joined() ? session().in_transaction() : session().intact();
    if (!intact) {
        state_.conflicted = conflicted();
        throw SqliteError(SQLITE_ABORT_ROLLBACK,
                          joined() ? "idem: the handler ended the user's transaction"
                                   : "idem: the handler ended the transaction it was given, or a "
                                     "statement of it that failed rolled all back; nothing of it "
                                     "happened");
    }
}

inline void SqliteTransaction::note(const SqliteError& error) noexcept {
    state_.conflicted = conflicted() || detail::sqlite_surroundings_failed(error.code());
}

/// Runs a statement of the library's own: what SQLite refuses in it is the store's failure.
template <class Work>
decltype(auto) SqliteTransaction::as_store(const Work& work) {
    try {
        return work();
    } catch (const SqliteError& error) {
        note(error);
        throw detail::sqlite_store_error(core().path(), error);
    }
}

/// The user may have begun a joined transaction without the write lock.
inline void SqliteTransaction::lock_joined() {
    if (joined() && !state_.locked) {
        core().records().lock(session());
        state_.locked = true;
    }
}

inline Claim<std::monostate> SqliteTransaction::claim(const ClaimRequest& request) {
    require_valid(request.key);
    require_intact();
    for (const auto& earlier : claims_) {
        if (earlier.is_of(request.key)) {
            throw std::logic_error("idem: this transaction has claimed the same key already");
        }
    }
    IDEM_FAILPOINT("sqlite: before claim");
    auto answer = as_store([&] {
        lock_joined();
        return core().records().claim(session(), request, core().now());
    });
    if (std::holds_alternative<Claimed<std::monostate>>(answer)) {
        claims_.push_back({std::string(request.key.scope), std::string(request.key.id)});
        if (opened_.turn) {
            opened_.core->note_claim(request.key);
        }
    }
    IDEM_FAILPOINT("sqlite: after claim");
    return answer;
}

inline std::vector<Claim<std::monostate>>
SqliteTransaction::claim(std::span<const ClaimRequest> requests) {
    std::vector<Claim<std::monostate>> answers;
    answers.reserve(requests.size());
    for (const auto& request : requests) { // one lock for all: no order of keys can deadlock
        answers.push_back(claim(request));
    }
    return answers;
}

inline detail::SqliteClaim& SqliteTransaction::claim_of(const Key& key) {
    for (auto& claim : claims_) {
        if (claim.is_of(key) && !claim.result) {
            return claim;
        }
    }
    throw std::logic_error(
        "idem: complete() of a key that this transaction has not claimed, or has "
        "completed already");
}

inline void SqliteTransaction::complete(const ClaimRequest& request, std::string_view result) {
    require_intact();
    auto& mine = claim_of(request.key);
    IDEM_FAILPOINT("sqlite: before complete");
    const bool written = as_store(
        [&] { return core().records().complete(session(), request, result, core().now()); });
    detail::require_sqlite_written(core(), written);
    mine.result.emplace(result);
    IDEM_FAILPOINT("sqlite: after complete");
}

inline void SqliteTransaction::complete(std::span<const ClaimRequest> requests,
                                        std::span<const std::string> results) {
    if (requests.size() != results.size()) {
        throw std::invalid_argument("idem: complete() takes a result for each request");
    }
    if (state_.in_message) { // else each page of the records is copied, should it go back
        session().run("RELEASE idem_message");
        state_.in_message = false;
    }
    for (std::size_t at = 0; at < requests.size(); ++at) {
        complete(requests[at], results[at]);
    }
}

inline void SqliteTransaction::savepoint() {
    require_intact();
    try {
        if (state_.in_message) {
            session().run("RELEASE idem_message");
        }
        session().run("SAVEPOINT idem_message");
        state_.batch = state_.in_message = true;
    } catch (const SqliteError&) { // the handler before, or the disk: the others have to run again
        state_.conflicted = true;
        throw;
    }
}

inline void SqliteTransaction::back_to_savepoint() {
    require_intact();
    try {
        session().run("ROLLBACK TO idem_message");
    } catch (const SqliteError&) {
        state_.conflicted = true;
        throw;
    }
}

inline void SqliteTransaction::commit() {
    if (opened_.session != nullptr && !joined() && state_.changed_session &&
        !session().intact_after_others()) {
        session().rollback(); // so that the next line says it
    }
    try {
        require_intact();
    } catch (...) {
        rollback();
        throw;
    }
    if (joined()) {
        release_joined();
        return;
    }
    session().wait_until(core().deadline());
    IDEM_FAILPOINT("sqlite: before commit");
    if (const int code = session().commit(); code != SQLITE_OK) {
        settle_failed_commit(session().error(code), session().in_transaction());
        return;
    }
    IDEM_FAILPOINT("sqlite: after commit");
    finish();
}

inline void SqliteTransaction::release_joined() {
    try {
        session().run("RELEASE " + opened_.savepoint);
    } catch (const SqliteError& error) {
        note(error);
        rollback();
        if (state_.conflicted) {
            throw detail::sqlite_store_error(core().path(), error);
        }
        throw SqliteError(error.code(), "idem: the handler ended the user's transaction");
    }
    finish();
}

/// Returns only where the transaction is durable all the same.
inline void SqliteTransaction::settle_failed_commit(const SqliteError& error, bool still_open) {
    if (still_open) { // a deferred constraint, a statement that the handler left half run, a reader
        bool handlers = detail::primary_code(error.code()) != SQLITE_BUSY;
        for (auto* left = sqlite3_next_stmt(session().native(), nullptr); left != nullptr;
             left = sqlite3_next_stmt(session().native(), left)) {
            handlers =
                handlers || (sqlite3_stmt_busy(left) != 0 && sqlite3_stmt_readonly(left) == 0);
        }
        rollback();
        if (handlers) {
            throw error;
        }
        throw detail::sqlite_store_error(core().path(), error);
    }
    opened_.session.reset(); // never used again
    const auto outcome = detail::sqlite_outcome_of(core(), error, claims_, fences_);
    finish();
    detail::require_sqlite_happened(core(), error, outcome);
}

inline void SqliteTransaction::rollback() noexcept {
    if (opened_.session != nullptr && !session().forked()) {
        state_.conflicted = conflicted();
        if (joined()) {
            for (const char* statement : {"ROLLBACK TO ", "RELEASE "}) {
                const std::string sql = statement + opened_.savepoint;
                sqlite3_exec(session().native(), sql.c_str(), nullptr, nullptr, nullptr);
            }
        } else {
            session().rollback();
        }
    }
    finish();
}

inline void SqliteTransaction::finish() noexcept {
    if (opened_.session != nullptr) {
        const bool reusable = !joined() && !state_.changed_session && !state_.conflicted &&
                              !session().forked() && !session().in_transaction();
        if (reusable) {
            opened_.core->give_back(std::move(opened_.session));
        }
        opened_.session.reset();
    }
    opened_.turn.reset(); // last: the connection is free, or closed
    claims_.clear();
    fences_.clear();
}

} // namespace idem::inline v0

// Behind the members above, which it calls.
#include <idem/detail/sqlite_fence_members.hpp>

#endif // IDEM_DETAIL_SQLITE_TRANSACTION_MEMBERS_HPP
