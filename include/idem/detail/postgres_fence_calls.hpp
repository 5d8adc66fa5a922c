// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_FENCE_CALLS_HPP
#define IDEM_DETAIL_POSTGRES_FENCE_CALLS_HPP

// Beside a handler's transaction: where a source starts, what it passed, attempts of an offset.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/postgres_fences.hpp>

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

[[nodiscard]] inline std::vector<PqParameter> fence_parameters(std::string_view scope,
                                                               const Position& position) {
    return {bytes_parameter(scope),
            bytes_parameter(position.partition),
            number_parameter(position.offset)};
}

/// Throws: StoreError.
inline PqResult read_fence(PostgresCore& core, std::string_view scope, std::string_view partition) {
    auto leg = core.run_alone({{.sql = core.fence_sql().read,
                                .parameters = {bytes_parameter(scope), bytes_parameter(partition)},
                                .binary_result = true}});
    require_ok(leg, "looking up a fence row");
    return std::move(leg.results[0]);
}

/// Throws: StoreError.
inline std::optional<std::uint64_t>
fence_next(PostgresCore& core, std::string_view scope, std::string_view partition) {
    require_valid(scope, Position{.partition = partition});
    const auto rows = read_fence(core, scope, partition);
    const auto handled = PQntuples(rows.get()) == 0 ? -1 : PqBinaryRow(rows.get(), 0).number(0);
    return handled < 0 ? std::nullopt
                       : std::optional<std::uint64_t>(static_cast<std::uint64_t>(handled) + 1);
}

/// Throws: StoreError.
inline Claim<std::monostate>
peek_fence(PostgresCore& core, std::string_view scope, const Position& position) {
    require_valid(scope, position);
    const auto rows = read_fence(core, scope, position.partition);
    return judge_fence(rows.get(), static_cast<std::int64_t>(position.offset));
}

/// Repeated once where the link broke: a second run of what happened changes nothing.
/// Throws: StoreError.
inline void pass_fence(PostgresCore& core, std::string_view scope, const Position& position) {
    require_valid(scope, position);
    for (int again = 0;; ++again) {
        IDEM_FAILPOINT("postgres fence: before an offset is passed");
        const auto leg = core.run_under_lock(
            core.fence_lock_of(scope, position.partition),
            {.sql = core.fence_sql().pass, .parameters = fence_parameters(scope, position)},
            core.options().deadline / 4 * 3);
        if (again > 0 || !leg.link_lost) {
            require_ok(leg, "moving a fence row past a dead letter");
            return;
        }
    }
}

inline void count_fence_failure(PostgresCore& core,
                                std::string_view scope,
                                const Position& position,
                                std::string_view why) noexcept {
    try {
        require_valid(scope, position);
        auto parameters = fence_parameters(scope, position);
        parameters.push_back({.value = plain_note(why)});
        static_cast<void>(core.run_under_lock(
            core.fence_lock_of(scope, position.partition),
            {.sql = core.fence_sql().failure, .parameters = std::move(parameters)},
            core.short_patience()));
    } catch (...) { // NOLINT(bugprone-empty-catch): what could not be counted is not counted
    }
}

inline void refund_fence_failure(PostgresCore& core,
                                 std::string_view scope,
                                 const Position& position) noexcept {
    try {
        require_valid(scope, position);
        static_cast<void>(core.run_under_lock(
            core.fence_lock_of(scope, position.partition),
            {.sql = core.fence_sql().refund, .parameters = fence_parameters(scope, position)},
            core.short_patience()));
    } catch (...) { // NOLINT(bugprone-empty-catch): one attempt less is left
    }
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_FENCE_CALLS_HPP
