// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_ALONE_HPP
#define IDEM_DETAIL_SQLITE_ALONE_HPP

// What a store does outside the transactions of its user: one read, or one write by itself.

#include <idem/detail/sqlite_core.hpp>

#include <cstddef>
#include <memory>
#include <utility>

namespace idem::inline v0::detail {

/// Reads on any idle connection, without the write lock. Throws: StoreError.
template <class Work>
auto sqlite_read_alone(SqliteCore& core, const Work& work) {
    core.require_same_process();
    return core.as_store([&] {
        auto session = core.take(core.deadline());
        auto answer = work(*session);
        core.give_back(std::move(session));
        return answer;
    });
}

/// A transaction of its own around `work`; returns how many rows it changed. It waits for the write
/// lock as begin() does. Throws: StoreError; std::logic_error where this thread has the turn.
template <class Work>
std::size_t sqlite_write_alone(SqliteCore& core, const Work& work) {
    core.require_same_process();
    const auto deadline = core.deadline();
    const auto turn = core.take_turn(deadline);
    return core.as_store([&] {
        auto session = core.take(deadline);
        session->begin_immediate();
        const int before = sqlite3_total_changes(session->native());
        work(*session);
        const int changed = sqlite3_total_changes(session->native()) - before;
        if (const int code = session->commit(); code != SQLITE_OK) {
            throw session->error(code);
        }
        core.give_back(std::move(session));
        return static_cast<std::size_t>(changed);
    });
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_ALONE_HPP
