// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_FAULT_HPP
#define IDEM_DETAIL_SQLITE_FAULT_HPP

// What SQLite's result codes mean for the caller: https://www.sqlite.org/rescode.html.

#include <idem/detail/sqlite.hpp>
#include <idem/error.hpp>

#include <cerrno>
#include <string>

namespace idem::inline v0::detail {

struct SqliteMeaning {
    Fault fault;
    const char* advice;
};

/// A file that cannot be opened is a matter for a human, unless the process or the machine is short
/// of something.
inline SqliteMeaning sqlite_meaning_of_open(int system_error) noexcept {
    switch (system_error) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOSPC:
    case EINTR:
    case EAGAIN:
        return {Fault::unavailable, "the process or the machine is short of files or memory"};
    case EACCES:
    case EPERM:
    case EROFS:
        return {Fault::rejected, "give this user write permission on the file and its directory"};
    default:
        return {Fault::rejected,
                "there is no such database file: check the path, or call migrate() to make it"};
    }
}

/// Of a failure outside COMMIT: nothing of the transaction stays.
inline SqliteMeaning sqlite_meaning(int code, int system_error) noexcept {
    switch (primary_code(code)) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return {Fault::unavailable,
                "other transactions held the database's only write lock for longer than "
                "SqliteOptions::busy: retry, keep transactions short, or raise it"};
    case SQLITE_FULL:
        return {Fault::unavailable, "the disk, or the file's page limit, is full: free some space"};
    case SQLITE_IOERR:
        return {Fault::unavailable, "the file system failed: check the disk"};
    case SQLITE_NOMEM:
        return {Fault::unavailable, "out of memory"};
    case SQLITE_INTERRUPT:
    case SQLITE_ABORT:
    case SQLITE_SCHEMA:
        return {Fault::unavailable, "retry"};
    case SQLITE_CANTOPEN:
        return sqlite_meaning_of_open(system_error);
    case SQLITE_READONLY:
        return {Fault::rejected,
                "the database is read-only: give this user write permission on the file, its -wal "
                "and -shm files, and its directory"};
    case SQLITE_NOTADB:
        return {Fault::rejected, "the file is no SQLite database: check the path"};
    case SQLITE_CORRUPT:
    case SQLITE_FORMAT:
        return {Fault::rejected, "the database file is damaged: restore it from a backup"};
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return {Fault::rejected, "access is denied: check the file's permissions"};
    default:
        return {Fault::rejected,
                "the table of records is missing or not this library's: call migrate(), or "
                "verify() to see what is wrong"};
    }
}

/// Whether the surroundings failed and not the statement: to be run again, never to be charged to
/// the message (semantics.md 3.2).
inline bool sqlite_surroundings_failed(int code) noexcept {
    if (code == SQLITE_LOCKED_SHAREDCACHE) { // any other SQLITE_LOCKED is of this connection alone
        return true;
    }
    switch (primary_code(code)) {
    case SQLITE_BUSY: // SQLITE_BUSY_SNAPSHOT with it
    case SQLITE_PROTOCOL:
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_NOMEM:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_SCHEMA:
        return true;
    default:
        return false;
    }
}

inline std::string sqlite_failure(const std::string& path, const SqliteError& error) {
    return "idem: SQLite database " + path + ": " + error.what() + " (code " +
           std::to_string(error.code()) +
           (error.system_error() == 0 ? "" : ", errno " + std::to_string(error.system_error())) +
           ")";
}

inline StoreError sqlite_store_error(const std::string& path, const SqliteError& error) {
    const auto meaning = sqlite_meaning(error.code(), error.system_error());
    return {meaning.fault, sqlite_failure(path, error) + "; " + meaning.advice};
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_FAULT_HPP
