// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_FAILURE_HPP
#define IDEM_DETAIL_POSTGRES_FAILURE_HPP

// Whose failure it is when a leg of a transaction fails, and whether to run it all again. Pure, so
// that each row is tested without a server.

#include <idem/detail/postgres_errors.hpp>
#include <idem/detail/pq.hpp>

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0::detail {

/// Whose statement it is, and what it is there for.
enum class PostgresOrigin {
    ours,
    handler,
    seal,       ///< writes a record, or fails by dividing by zero where it is no longer the claim's
    still_ours, ///< fails where the transaction is no longer the one that was begun
    end,        ///< COMMIT, or the release of our savepoint
};

struct PostgresStep {
    PqStatement statement;
    PostgresOrigin origin = PostgresOrigin::ours;
};
using PostgresSteps = std::vector<PostgresStep>;

enum class PostgresBlame {
    store,
    handler,
    handler_ended_it, ///< the transaction is not the one that was begun
    record_changed,   ///< by somebody who did not hold its lock
};

/// Requires: leg.ok() is false.
[[nodiscard]] inline PostgresBlame blame_for(const PqLeg& leg, const PostgresSteps& steps) {
    // A link that broke without a word of the server's is the concern of whoever asked last.
    const auto origin = leg.failed ? steps[*leg.failed].origin : steps.back().origin;
    const bool division = leg.failed && leg.sqlstate == "22012";
    if (origin != PostgresOrigin::handler && (leg.sqlstate == "3B001" || leg.sqlstate == "25P01")) {
        return PostgresBlame::handler_ended_it; // a savepoint of ours is not there
    }
    switch (origin) {
    case PostgresOrigin::handler:
        return PostgresBlame::handler;
    case PostgresOrigin::still_ours:
        return division ? PostgresBlame::handler_ended_it : PostgresBlame::store;
    case PostgresOrigin::seal:
        if (division) {
            return PostgresBlame::record_changed;
        }
        if (leg.failed && leg.sqlstate == "42P01") { // the claim found it: a search_path hides it
            return PostgresBlame::handler;
        }
        break;
    case PostgresOrigin::end:
        // At COMMIT speak the deferred constraints and triggers of the handler's own tables.
        if (leg.failed && !is_conflict(leg.sqlstate) &&
            (fault_of(leg.sqlstate) == Fault::rejected || leg.sqlstate.starts_with("P0"))) {
            return PostgresBlame::handler;
        }
        break;
    case PostgresOrigin::ours:
        break;
    }
    // Behind a failed statement that the handler swallowed, every later one fails with 25P02.
    return leg.sqlstate == "25P02" ? PostgresBlame::handler : PostgresBlame::store;
}

/// Whether nothing happened, and another run may fare better: never charged. Not where the handler
/// took longer than it may, by our clock or the server's (25P03).
/// Requires: nothing was committed.
[[nodiscard]] inline bool is_worth_a_rerun(const PqLeg& leg) {
    const bool lost = leg.link_lost && !leg.timed_out && leg.sqlstate != "25P03";
    return lost || is_conflict(leg.sqlstate) || is_unprepared(leg.sqlstate);
}

inline constexpr const char* ended_by_handler =
    "idem: the handler ended its transaction, or rolled it back; what it committed stands without "
    "a "
    "record, and the message counts as failed";

/// Throws: PostgresError or std::logic_error for the handler's failure, StoreError for the store's.
[[noreturn]] inline void throw_failure(PostgresBlame blame, const PqLeg& leg) {
    switch (blame) {
    case PostgresBlame::handler:
        if (fault_of(leg.sqlstate) == Fault::lease_lost) {
            throw store_error(leg.sqlstate, leg.message, "the handler's transaction");
        }
        throw PostgresError(leg.sqlstate,
                            explained(leg.sqlstate, leg.message, "a statement of the handler"));
    case PostgresBlame::handler_ended_it:
        throw std::logic_error(ended_by_handler);
    case PostgresBlame::record_changed:
        throw StoreError(
            Fault::unavailable,
            "idem: the record changed under its claim, by somebody who does not take its "
            "lock; nothing was committed");
    case PostgresBlame::store:
        break;
    }
    throw store_error(leg.sqlstate, leg.message, "a statement of the store");
}

/// For a leg that is the store's own. Throws: StoreError.
inline void require_ok(const PqLeg& leg, std::string_view doing) {
    if (!leg.ok()) {
        throw store_error(leg.sqlstate, leg.message, doing);
    }
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_FAILURE_HPP
