// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_STEP_HPP
#define IDEM_DETAIL_SQLITE_STEP_HPP

// One step of a lease: a short transaction of its own, whose COMMIT is resolved where it fails.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/sqlite_doubt.hpp>

#include <stdexcept>
#include <utility>

namespace idem::inline v0::detail {

/// Waits for the write lock as begin() does, runs `work(session)`, commits. Where COMMIT fails and
/// left no transaction open, `stands(session)` tells by the nonce whether it happened, on a new
/// connection under the write lock; that it is durable, or will never be, is proved as for joined
/// transactions. Returns: it happened.
/// Throws: StoreError, with the fault `unknown` where that could not be told; std::logic_error where
/// this thread has the turn.
template <class Work, class Stands>
void sqlite_step(SqliteCore& core, const Work& work, const Stands& stands, Fault unknown) {
    core.require_same_process();
    const auto deadline = core.deadline();
    const auto turn = core.take_turn(deadline);
    auto session = core.as_store([&] {
        auto taken = core.take(deadline);
        taken->begin_immediate();
        work(*taken);
        return taken;
    });
    session->wait_until(core.deadline());
    IDEM_FAILPOINT("sqlite lease: before commit");
    const int code = session->commit();
    if (code == SQLITE_OK) {
        IDEM_FAILPOINT("sqlite lease: after commit");
        core.give_back(std::move(session));
        return;
    }
    const auto error = session->error(code);
    const bool still_open = session->in_transaction(); // a reader of a rollback journal, in its way
    session.reset();
    if (still_open) {
        throw sqlite_store_error(core.path(), error);
    }
    const auto outcome = sqlite_outcome(core, error, stands);
    if (outcome == SqliteCommit::unknown && unknown == Fault::unavailable) {
        throw StoreError(Fault::unavailable,
                         sqlite_failure(core.path(), error) +
                             "; COMMIT failed, and reading back failed too: the key may stay in "
                             "progress until its lease ends; check the disk");
    }
    require_sqlite_happened(core, error, outcome);
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_STEP_HPP
