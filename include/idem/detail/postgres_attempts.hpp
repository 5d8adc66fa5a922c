// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_ATTEMPTS_HPP
#define IDEM_DETAIL_POSTGRES_ATTEMPTS_HPP

// Beside a handler's transaction: attempts that are counted or given back, and a look at a key.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/postgres_claims.hpp>

#include <string_view>
#include <variant>

namespace idem::inline v0::detail {

inline void
record_failure(PostgresCore& core, const ClaimRequest& request, std::string_view why) noexcept {
    try {
        require_valid(request.key);
        IDEM_FAILPOINT("postgres: before a failure is recorded");
        static_cast<void>(core.run_under_lock(
            request.key,
            {.sql = core.sql().failure,
             .parameters = {bytes_parameter(request.key.scope),
                            bytes_parameter(request.key.id),
                            fingerprint_parameter(request.fingerprint),
                            algorithm_parameter(request.fingerprint),
                            number_parameter(retention_seconds(request.retention)),
                            number_parameter(static_cast<int>(request.max_attempts)),
                            {.value = plain_note(why)}}},
            core.short_patience()));
        IDEM_FAILPOINT("postgres: after a failure is recorded");
    } catch (...) { // NOLINT(bugprone-empty-catch): what could not be counted is not counted
    }
}

inline void refund_failure(PostgresCore& core, const ClaimRequest& request) noexcept {
    try {
        require_valid(request.key);
        static_cast<void>(core.run_under_lock(
            request.key,
            {.sql = core.sql().refund,
             .parameters = {bytes_parameter(request.key.scope), bytes_parameter(request.key.id)}},
            core.short_patience()));
    } catch (...) { // NOLINT(bugprone-empty-catch): one attempt less is left
    }
}

/// Throws: StoreError.
inline Claim<std::monostate> peek(PostgresCore& core, const ClaimRequest& request) {
    require_valid(request.key);
    const auto leg = core.run_alone(
        {{.sql = core.sql().read_one,
          .parameters = {bytes_parameter(request.key.scope), bytes_parameter(request.key.id)},
          .binary_result = true}});
    require_ok(leg, "looking up a key");
    if (PQntuples(leg.results[0].get()) == 0) {
        return Claimed<std::monostate>{};
    }
    return judge(PostgresRecord(PqBinaryRow(leg.results[0].get(), 0)), request);
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_ATTEMPTS_HPP
