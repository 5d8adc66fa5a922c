// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_HELD_HPP
#define IDEM_DETAIL_POSTGRES_HELD_HPP

// The keys that a transaction claimed, and the statements that make their records what they are to
// be at the commit.

#include <idem/detail/postgres_claims.hpp>
#include <idem/detail/postgres_failure.hpp>
#include <idem/detail/postgres_statements.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// A key that a transaction claimed.
struct PostgresHeld {
    std::string scope, id;
    std::int64_t lock;
    Fingerprint fingerprint;
    seconds retention;
    bool recorded;     ///< its record is written, as completed with the result of a void handler
    bool open = false; ///< it was written as open since
    std::optional<std::string> result{};
    [[nodiscard]] Key key() const { return {scope, id}; }
};
[[nodiscard]] inline PostgresStep
reopen(const PostgresStatements& sql, const std::string& nonce, const PostgresHeld& held) {
    return {{sql.reopen,
             {bytes_parameter(held.scope), bytes_parameter(held.id), bytes_parameter(nonce)}},
            PostgresOrigin::seal};
}

/// The records of held keys as open, once: for when the transaction may be committed by others.
[[nodiscard]] inline PostgresSteps reopening(const PostgresStatements& sql,
                                             const std::string& nonce,
                                             std::vector<PostgresHeld>& keys) {
    PostgresSteps steps;
    for (auto& held : keys) {
        if (held.recorded && !held.open) {
            held.open = true;
            steps.push_back(reopen(sql, nonce, held));
        }
    }
    return steps;
}

[[nodiscard]] inline PostgresStep seal_many(const PostgresStatements& sql,
                                            const std::string& nonce,
                                            std::vector<const PostgresHeld*> many) {
    std::sort(many.begin(), many.end(), [](const PostgresHeld* left, const PostgresHeld* right) {
        return std::pair(std::string_view(left->scope), std::string_view(left->id)) <
               std::pair(std::string_view(right->scope), std::string_view(right->id));
    });
    std::vector<std::string_view> scopes, ids, results, prints;
    std::vector<double> retentions;
    std::vector<std::int32_t> algorithms;
    std::vector<std::string> digests;
    digests.reserve(many.size());
    for (const auto* held : many) {
        scopes.push_back(held->scope);
        ids.push_back(held->id);
        results.push_back(*held->result);
        prints.push_back(digests.emplace_back(fingerprint_bytes(held->fingerprint)));
        retentions.push_back(retention_seconds(held->retention));
        algorithms.push_back(static_cast<std::int32_t>(held->fingerprint.algorithm));
    }
    return {{sql.complete_many,
             {bytes_parameter(nonce),
              bytes_array(scopes),
              bytes_array(ids),
              number_array(retentions),
              number_array(algorithms),
              bytes_array(prints),
              bytes_array(results),
              number_parameter(many.size())}},
            PostgresOrigin::seal};
}

/// What makes the records as they are to be: nothing for one message with a void result.
[[nodiscard]] inline PostgresSteps sealing(const PostgresStatements& sql,
                                           const std::string& nonce,
                                           const std::vector<PostgresHeld>& keys) {
    PostgresSteps steps;
    std::vector<const PostgresHeld*> many;
    for (const auto& held : keys) {
        if (held.result && !held.recorded) {
            many.push_back(&held);
        } else if (held.result && (held.open || !held.result->empty())) {
            steps.push_back(
                {{sql.complete,
                  {bytes_parameter(held.scope),
                   bytes_parameter(held.id),
                   bytes_parameter(nonce),
                   number_parameter(retention_seconds(held.retention)),
                   held.result->empty() ? PqParameter{} : bytes_parameter(*held.result)}},
                 PostgresOrigin::seal});
        } else if (!held.result && held.recorded && !held.open) {
            steps.push_back(reopen(sql, nonce, held)); // claimed, and not completed
        }
    }
    if (!many.empty()) {
        steps.push_back(seal_many(sql, nonce, std::move(many)));
    }
    return steps;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_HELD_HPP
