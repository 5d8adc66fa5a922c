// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_FENCES_HPP
#define IDEM_DETAIL_POSTGRES_FENCES_HPP

// The fence rows that a transaction moved, and the statements that make them what they are to be at
// the commit.

#include <idem/detail/postgres_claims.hpp>
#include <idem/fenced_store.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

struct PostgresFence {
    std::string scope, partition;
    std::int64_t offset;
    bool open = false; ///< it was set back since, as others may commit the transaction
};

/// The answer to a row that was not moved, by postgres_fence_read.
[[nodiscard]] inline Claim<std::monostate> judge_fence(const PGresult* rows, std::int64_t offset) {
    if (PQntuples(rows) == 0) {
        return Claimed<std::monostate>{};
    }
    const PqBinaryRow row(rows, 0);
    if (row.number(0) >= offset) {
        return Completed{omitted_result()};
    }
    const auto failed = row.number(1) == offset ? static_cast<unsigned>(row.number(2)) : 0U;
    return Claimed<std::monostate>{.ticket = {}, .attempt = failed + 1};
}

/// Of one transaction. Concurrency: one thread at a time.
class PostgresFences {
public:
    PostgresFences(PostgresCore& core, PostgresScope& scope) noexcept
        : core_(core)
        , scope_(scope) {}

    /// Claimed: the row is moved, and is remembered.
    Claim<std::monostate> advance(std::string_view scope, const Position& position) {
        const auto offset = static_cast<std::int64_t>(position.offset);
        const bool alone = scope_.owned() && scope_.fresh();
        const auto moved = first_step(core_, scope_, [&](bool opens) {
            PqStatement statement{
                .sql = opens ? core_.fence_sql().opening : core_.fence_sql().advance,
                .parameters = {bytes_parameter(scope),
                               bytes_parameter(position.partition),
                               number_parameter(offset),
                               bytes_parameter(scope_.nonce()),
                               number_parameter(core_.fence_lock_of(scope, position.partition))},
                .binary_result = true};
            if (opens) {
                statement.parameters.push_back(scope_.idle_bound());
            }
            return statement;
        });
        if (!moved) {
            return InProgress{milliseconds{0}}; // the statement gave up waiting: 55P03
        }
        if (PQntuples(moved->get()) == 1) {
            const auto failed = PqBinaryRow(moved->get(), 0).number(0);
            remember({std::string(scope), std::string(position.partition), offset});
            return Claimed<std::monostate>{.ticket = {},
                                           .attempt = static_cast<unsigned>(failed) + 1};
        }
        PqStatement read{
            .sql = core_.fence_sql().read,
            .parameters = {bytes_parameter(scope), bytes_parameter(position.partition)},
            .binary_result = true};
        auto answer = judge_fence(
            (alone ? scope_.read_after_undo(std::move(read)) : run(std::move(read))).get(), offset);
        if (std::holds_alternative<Completed>(answer)) {
            return answer;
        }
        return InProgress{milliseconds{0}}; // another transaction has the row's lock
    }

    [[nodiscard]] bool empty() const noexcept { return moved_.empty(); }
    [[nodiscard]] const PostgresFence& last() const noexcept { return moved_.back(); }
    void forget() noexcept { moved_.clear(); }
    /// The rows as they were, once: for when the transaction may be committed by others.
    void reopen(PostgresSteps& steps) {
        for (auto& fence : moved_) {
            if (!fence.open) {
                fence.open = true;
                steps.push_back(
                    {{core_.fence_sql().reopen, parameters(fence)}, PostgresOrigin::seal});
            }
        }
    }
    /// What makes those rows as they are to be.
    void seal(PostgresSteps& steps) const {
        for (const auto& fence : moved_) {
            if (fence.open) {
                steps.push_back(
                    {{core_.fence_sql().seal, parameters(fence)}, PostgresOrigin::seal});
                steps.back().statement.parameters.push_back(number_parameter(fence.offset));
            }
        }
    }

private:
    PqResult run(PqStatement statement) {
        PostgresSteps steps;
        steps.push_back({std::move(statement)});
        return std::move(scope_.run(std::move(steps))[0]);
    }
    void remember(PostgresFence&& fence) {
        for (auto& earlier : moved_) {
            if (earlier.scope == fence.scope && earlier.partition == fence.partition) {
                earlier = std::move(fence); // a row is where it was moved last
                return;
            }
        }
        moved_.push_back(std::move(fence));
    }
    [[nodiscard]] std::vector<PqParameter> parameters(const PostgresFence& fence) const {
        return {bytes_parameter(fence.scope),
                bytes_parameter(fence.partition),
                bytes_parameter(scope_.nonce())};
    }

    PostgresCore& core_;
    PostgresScope& scope_;
    std::vector<PostgresFence> moved_{};
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_FENCES_HPP
