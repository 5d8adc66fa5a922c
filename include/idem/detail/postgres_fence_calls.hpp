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

class PostgresFenceCalls {
public:
    explicit PostgresFenceCalls(PostgresCore& core) : core_(core) {}

    /// Throws: StoreError.
    std::optional<std::uint64_t> next(std::string_view scope, std::string_view partition) {
        require_valid(scope, Position{.partition = partition});
        const auto rows = read(scope, partition);
        const auto handled = PQntuples(rows.get()) == 0 ? -1 : PqBinaryRow(rows.get(), 0).number(0);
        return handled < 0 ? std::nullopt
                           : std::optional<std::uint64_t>(static_cast<std::uint64_t>(handled) + 1);
    }

    /// Throws: StoreError.
    Claim<std::monostate> peek(std::string_view scope, const Position& position) {
        require_valid(scope, position);
        const auto rows = read(scope, position.partition);
        return judge_fence(rows.get(), static_cast<std::int64_t>(position.offset));
    }

    /// Repeated once where the link broke: a second run of what happened changes nothing.
    /// Throws: StoreError.
    void passed(std::string_view scope, const Position& position) {
        require_valid(scope, position);
        for (int again = 0;; ++again) {
            IDEM_FAILPOINT("postgres fence: before an offset is passed");
            const auto leg = run_under_lock(
                core_.fence_sql().pass, scope, position, {}, core_.options().deadline / 4 * 3);
            if (again > 0 || !leg.link_lost) {
                require_ok(leg, "moving a fence row past a dead letter");
                return;
            }
        }
    }

    void record_failure(std::string_view scope,
                        const Position& position,
                        std::string_view why) noexcept {
        try {
            require_valid(scope, position);
            static_cast<void>(run_under_lock(core_.fence_sql().failure,
                                             scope,
                                             position,
                                             {{.value = plain_note(why)}},
                                             core_.short_patience()));
        } catch (...) { // NOLINT(bugprone-empty-catch): what could not be counted is not counted
        }
    }

    void refund_failure(std::string_view scope, const Position& position) noexcept {
        try {
            require_valid(scope, position);
            static_cast<void>(run_under_lock(
                core_.fence_sql().refund, scope, position, {}, core_.short_patience()));
        } catch (...) { // NOLINT(bugprone-empty-catch): one attempt less is left
        }
    }

private:
    PqLeg run_under_lock(const PqSql& sql,
                         std::string_view scope,
                         const Position& position,
                         std::vector<PqParameter> more,
                         milliseconds patience) {
        std::vector<PqParameter> parameters{bytes_parameter(scope),
                                            bytes_parameter(position.partition),
                                            number_parameter(position.offset)};
        parameters.insert(parameters.end(), more.begin(), more.end());
        return core_.run_under_lock(core_.fence_lock_of(scope, position.partition),
                                    {.sql = sql, .parameters = std::move(parameters)},
                                    patience);
    }
    /// Throws: StoreError.
    PqResult read(std::string_view scope, std::string_view partition) {
        auto leg =
            core_.run_alone({{.sql = core_.fence_sql().read,
                              .parameters = {bytes_parameter(scope), bytes_parameter(partition)},
                              .binary_result = true}});
        require_ok(leg, "looking up a fence row");
        return std::move(leg.results[0]);
    }

    PostgresCore& core_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_FENCE_CALLS_HPP
