// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_CLAIMS_HPP
#define IDEM_DETAIL_POSTGRES_CLAIMS_HPP

// The steps of a claim: insert the record, or lock and read it, and take it as it was read.

#include <idem/detail/postgres_scope.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// Bounds that no timestamp overflows.
[[nodiscard]] inline double retention_seconds(seconds retention) noexcept {
    constexpr std::int64_t century = 3'155'760'000;
    return static_cast<double>(std::clamp<std::int64_t>(retention.count(), 0, century));
}
[[nodiscard]] inline PqParameter fingerprint_parameter(const Fingerprint& fingerprint) {
    return fingerprint.algorithm == 0 ? PqParameter{}
                                      : bytes_parameter(fingerprint_bytes(fingerprint));
}
[[nodiscard]] inline PqParameter algorithm_parameter(const Fingerprint& fingerprint) {
    return number_parameter(static_cast<std::int32_t>(fingerprint.algorithm));
}

[[nodiscard]] inline std::size_t rows_changed(PGresult* result) noexcept {
    const std::string_view text = PQcmdTuples(result);
    std::size_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return number;
}

/// Runs the statement that takes a lock and writes, `make(opens)`, where `opens` tells that it begins
/// a transaction of ours and bounds its idleness. Nothing where it gave up waiting for somebody
/// without the lock (55P03). Where it failed as the first statement, the transaction is as if it had
/// not been begun.
/// Throws: as PostgresScope::fail().
template <class Make>
std::optional<PqResult> first_step(PostgresCore& core, PostgresScope& scope, const Make& make) {
    for (int again = 0;; ++again) {
        const bool first = scope.fresh(), opens = first && scope.owned();
        PostgresSteps steps;
        steps.push_back({make(opens)});
        auto leg = scope.attempt(steps, opens);
        if (leg.ok()) {
            return std::move(leg.results.back());
        }
        const bool usable = !leg.link_lost && first && !scope.native_given() && scope.undo_claim();
        if (usable && leg.sqlstate == "55P03") {
            return std::nullopt;
        }
        const bool behind = leg.sqlstate == "40001"; // the snapshot misses who was first
        if (!usable || !(behind || is_unprepared(leg.sqlstate)) || again == 2) {
            scope.fail(leg, steps);
        }
        if (!behind) {
            core.stop_preparing();
        }
    }
}

class PostgresClaims {
public:
    PostgresClaims(PostgresCore& core, PostgresScope& scope) noexcept
        : core_(core)
        , scope_(scope) {}

    struct Look {
        std::vector<bool> locked;
        std::vector<std::optional<PostgresRecord>> records;
    };

    /// Rows inserted; nothing where it gave up waiting for somebody without the lock.
    std::optional<std::size_t> insert(const ClaimRequest& request, std::int64_t lock) {
        const auto inserted = first_step(core_, scope_, [&](bool opens) {
            PqStatement statement{
                .sql = opens ? core_.sql().opening_claim : core_.sql().claim,
                .parameters = {bytes_parameter(request.key.scope),
                               bytes_parameter(request.key.id),
                               bytes_parameter(scope_.nonce()),
                               fingerprint_parameter(request.fingerprint),
                               algorithm_parameter(request.fingerprint),
                               number_parameter(retention_seconds(request.retention)),
                               number_parameter(lock)}};
            if (opens) {
                statement.parameters.push_back(scope_.idle_bound());
            }
            return statement;
        });
        return inserted ? std::optional(rows_changed(inserted->get())) : std::nullopt;
    }

    /// Of a key that its first claim found taken, in a transaction of ours: the record without its
    /// lock, and the end of that transaction, in one trip.
    std::optional<PostgresRecord> read_outside(const ClaimRequest& request) {
        const auto rows = scope_.read_after_undo(
            {core_.sql().read_one,
             {bytes_parameter(request.key.scope), bytes_parameter(request.key.id)},
             true});
        if (PQntuples(rows.get()) == 0) {
            return std::nullopt;
        }
        return PostgresRecord(PqBinaryRow(rows.get(), 0));
    }

    Look read(std::span<const ClaimRequest> requests, const std::vector<std::int64_t>& locks) {
        PostgresSteps steps;
        if (requests.size() == 1) {
            const auto& key = requests[0].key;
            steps.push_back({{core_.sql().lock_one, {number_parameter(locks[0])}, true}});
            steps.push_back({{core_.sql().read_one,
                              {bytes_parameter(key.scope), bytes_parameter(key.id)},
                              true}});
        } else {
            std::vector<std::string_view> scopes, ids;
            for (const auto& request : requests) {
                scopes.push_back(request.key.scope);
                ids.push_back(request.key.id);
            }
            steps.push_back({{core_.sql().lock, {number_array(locks)}, true}});
            steps.push_back({{core_.sql().read, {bytes_array(scopes), bytes_array(ids)}, true}});
        }
        const auto results = scope_.run(std::move(steps));
        Look look{std::vector<bool>(requests.size()),
                  std::vector<std::optional<PostgresRecord>>(requests.size())};
        for (std::size_t at = 0; at < requests.size(); ++at) {
            look.locked[at] = PqBinaryRow(results[0].get(), static_cast<int>(at)).flag(0);
        }
        for (int row = 0; row < PQntuples(results[1].get()); ++row) {
            PostgresRecord record(PqBinaryRow(results[1].get(), row));
            const auto place = record.place;
            look.records[place] = std::move(record);
        }
        return look;
    }
    /// Whether it speaks for itself, whoever has the lock.
    static bool is_decided(const PostgresRecord& record) {
        const bool final = record.state == PostgresState::completed;
        const bool leased =
            record.state == PostgresState::open && record.lease_left > milliseconds{0};
        return !record.expired && (final || leased);
    }
    /// Without the lock only what is final is known.
    static Claim<std::monostate>
    judge_locked(const PostgresRecord& record, const ClaimRequest& request, bool locked) {
        return locked || is_decided(record) ? judge(record, request) : InProgress{milliseconds{0}};
    }
    /// False: it is no longer as it was read.
    bool take(const ClaimRequest& request, const PostgresRecord& record, unsigned attempts) {
        const bool keeps = !record.expired && request.fingerprint.algorithm == 0;
        const auto fingerprint = keeps ? record.fingerprint : request.fingerprint;
        PostgresSteps steps;
        steps.push_back({{core_.sql().take,
                          {bytes_parameter(request.key.scope),
                           bytes_parameter(request.key.id),
                           bytes_parameter(scope_.nonce()),
                           fingerprint_parameter(fingerprint),
                           algorithm_parameter(fingerprint),
                           number_parameter(retention_seconds(request.retention)),
                           number_parameter(attempts),
                           number_parameter(record.fence),
                           number_parameter(static_cast<int>(record.state)),
                           record.owner ? bytes_parameter(*record.owner) : PqParameter{}}}});
        const auto results = scope_.run(std::move(steps));
        return rows_changed(results[0].get()) == 1;
    }

private:
    PostgresCore& core_;
    PostgresScope& scope_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_CLAIMS_HPP
