// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SQLITE_FAULTY_VFS_HPP
#define IDEM_TESTS_SQLITE_FAULTY_VFS_HPP

// The machine's file system, but for the failures that a test asks for: file:path?vfs=faulty.

#include <idem/detail/sqlite.hpp>

#include <cstdlib>
#include <string_view>

namespace idem::testing_support {

/// How often each operation on a write-ahead log is yet to fail, and how often the removal of a
/// rollback journal, which is what commits there, is to be answered by an error once it happened.
struct Faults {
    static inline int log_sync = 0, log_write = 0, open = 0, journal_removed = 0;
    static inline int write_code = SQLITE_FULL;
    static void none() { log_sync = log_write = open = journal_removed = 0; }
    static bool strike(int& left) { return left > 0 && left-- > 0; }
};

namespace detail {

struct FaultyFile {
    sqlite3_file base;
    sqlite3_file* real;
    bool log;
};

inline FaultyFile& faulty(sqlite3_file* file) {
    return *reinterpret_cast<FaultyFile*>(file);
}
inline sqlite3_file* real(sqlite3_file* file) {
    return faulty(file).real;
}

inline int close_file(sqlite3_file* file) {
    sqlite3_file* under = real(file);
    const int code = under->pMethods == nullptr ? SQLITE_OK : under->pMethods->xClose(under);
    std::free(under);
    return code;
}
inline int write_file(sqlite3_file* file, const void* data, int size, sqlite3_int64 at) {
    if (faulty(file).log && Faults::strike(Faults::log_write)) {
        return Faults::write_code;
    }
    return real(file)->pMethods->xWrite(real(file), data, size, at);
}
inline int sync_file(sqlite3_file* file, int flags) {
    if (faulty(file).log && Faults::strike(Faults::log_sync)) {
        return SQLITE_IOERR_FSYNC;
    }
    return real(file)->pMethods->xSync(real(file), flags);
}

inline const sqlite3_io_methods& faulty_methods() {
    static const sqlite3_io_methods methods = [] {
        sqlite3_io_methods all{};
        all.iVersion = 2;
        all.xClose = &close_file;
        all.xWrite = &write_file;
        all.xSync = &sync_file;
        all.xRead = [](sqlite3_file* f, void* to, int size, sqlite3_int64 at) {
            return real(f)->pMethods->xRead(real(f), to, size, at);
        };
        all.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) {
            return real(f)->pMethods->xTruncate(real(f), size);
        };
        all.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
            return real(f)->pMethods->xFileSize(real(f), size);
        };
        all.xLock = [](sqlite3_file* f, int level) {
            return real(f)->pMethods->xLock(real(f), level);
        };
        all.xUnlock = [](sqlite3_file* f, int level) {
            return real(f)->pMethods->xUnlock(real(f), level);
        };
        all.xCheckReservedLock = [](sqlite3_file* f, int* answer) {
            return real(f)->pMethods->xCheckReservedLock(real(f), answer);
        };
        all.xFileControl = [](sqlite3_file* f, int operation, void* argument) {
            return real(f)->pMethods->xFileControl(real(f), operation, argument);
        };
        all.xSectorSize = [](sqlite3_file* f) { return real(f)->pMethods->xSectorSize(real(f)); };
        all.xDeviceCharacteristics = [](sqlite3_file* f) {
            return real(f)->pMethods->xDeviceCharacteristics(real(f));
        };
        all.xShmMap = [](sqlite3_file* f, int page, int size, int extend, void volatile** at) {
            return real(f)->pMethods->xShmMap(real(f), page, size, extend, at);
        };
        all.xShmLock = [](sqlite3_file* f, int offset, int count, int flags) {
            return real(f)->pMethods->xShmLock(real(f), offset, count, flags);
        };
        all.xShmBarrier = [](sqlite3_file* f) { real(f)->pMethods->xShmBarrier(real(f)); };
        all.xShmUnmap = [](sqlite3_file* f, int remove) {
            return real(f)->pMethods->xShmUnmap(real(f), remove);
        };
        return all;
    }();
    return methods;
}

inline int
open_file(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
    auto* under_vfs = static_cast<sqlite3_vfs*>(vfs->pAppData);
    FaultyFile& opened = faulty(file);
    opened.base.pMethods = nullptr;
    if ((flags & SQLITE_OPEN_MAIN_DB) != 0 && Faults::strike(Faults::open)) {
        return SQLITE_CANTOPEN;
    }
    opened.log = (flags & SQLITE_OPEN_WAL) != 0;
    opened.real =
        static_cast<sqlite3_file*>(std::calloc(1, static_cast<std::size_t>(under_vfs->szOsFile)));
    const int code = under_vfs->xOpen(under_vfs, name, opened.real, flags, out_flags);
    if (code != SQLITE_OK) {
        std::free(opened.real);
        return code;
    }
    opened.base.pMethods = &faulty_methods();
    return SQLITE_OK;
}

inline int delete_file(sqlite3_vfs* vfs, const char* name, int sync) {
    auto* under_vfs = static_cast<sqlite3_vfs*>(vfs->pAppData);
    const int code = under_vfs->xDelete(under_vfs, name, sync);
    const bool journal = std::string_view(name).ends_with("-journal");
    return code == SQLITE_OK && journal && Faults::strike(Faults::journal_removed)
               ? SQLITE_IOERR_DELETE
               : code;
}

} // namespace detail

/// Makes ?vfs=faulty known to SQLite.
inline void register_faulty_vfs() {
    static sqlite3_vfs vfs = [] {
        sqlite3_vfs* under = sqlite3_vfs_find(nullptr);
        sqlite3_vfs made = *under;
        made.pNext = nullptr;
        made.zName = "faulty";
        made.szOsFile = sizeof(detail::FaultyFile);
        made.pAppData = under;
        made.xOpen = &detail::open_file;
        made.xDelete = &detail::delete_file;
        return made;
    }();
    static const int registered = sqlite3_vfs_register(&vfs, 0);
    if (registered != SQLITE_OK) {
        std::abort();
    }
}

} // namespace idem::testing_support

#endif // IDEM_TESTS_SQLITE_FAULTY_VFS_HPP
