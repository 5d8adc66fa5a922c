// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_LEASE_CLAIM_HPP
#define IDEM_DETAIL_SQLITE_LEASE_CLAIM_HPP

// The claim of keys by lease: answer what a look decides, take the rest in one transaction.

#include <idem/detail/nonce.hpp>
#include <idem/detail/sqlite_alone.hpp>
#include <idem/detail/sqlite_lease_statements.hpp>
#include <idem/detail/sqlite_step.hpp>
#include <idem/detail/sqlite_ticket.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

/// One claim of keys that differ.
class SqliteLeaseClaim {
public:
    using Answer = Claim<SqliteTicket>;

    SqliteLeaseClaim(SqliteCore& core,
                     const SqliteLeaseStatements& sql,
                     std::span<const ClaimRequest> requests)
        : core_(core)
        , sql_(sql)
        , requests_(requests)
        , answers_(requests.size()) {}

    /// Throws: StoreError: then none of the keys was won.
    std::vector<Answer> run() {
        look();
        if (std::find(answers_.begin(), answers_.end(), std::nullopt) != answers_.end()) {
            take();
        }
        std::vector<Answer> all;
        all.reserve(answers_.size());
        for (auto& answer : answers_) {
            all.push_back(std::move(*answer));
        }
        return all;
    }

private:
    using Said = Claim<std::monostate>;

    /// Without the write lock: a committed record that does not let the key be taken decides, and
    /// so does an open transaction of this process that has the key.
    void look() {
        sqlite_read_alone(core_, [&](SqliteSession& session) {
            for (std::size_t place = 0; place < requests_.size(); ++place) {
                const auto key = sqlite_filed_under(requests_[place]);
                const auto record = core_.records().find(session, key);
                auto said = sqlite_judge(record, requests_[place], core_.now());
                if (!writes(said, record)) {
                    answer(place, std::move(said));
                } else if (core_.is_claimed(key)) {
                    answers_[place] = InProgress{milliseconds{0}};
                }
            }
            return true;
        });
    }
    /// Under the write lock. All that was won is there by its nonce, or none of it.
    void take() {
        sqlite_step(
            core_,
            [&](SqliteSession& session) { decide(session); },
            [&](SqliteSession& session) {
                return std::all_of(answers_.begin(), answers_.end(), [&](const auto& one) {
                    const auto* won = std::get_if<0>(&*one);
                    return won == nullptr || stands(session, won->ticket);
                });
            },
            Fault::unavailable);
    }
    void decide(SqliteSession& session) {
        const auto now = core_.now();
        std::optional<std::int64_t> last;
        for (std::size_t place = 0; place < requests_.size(); ++place) {
            if (answers_[place]) {
                continue;
            }
            const auto record = core_.records().find(session, sqlite_filed_under(requests_[place]));
            auto said = sqlite_judge(record, requests_[place], now);
            if (const auto* free = std::get_if<0>(&said)) {
                last = last ? *last : last_fence(session);
                last = std::max(*last, record ? record->fence : 0) + 1;
                win(session, place, *free, record, *last, now);
            } else {
                if (writes(said, record)) {
                    bury(session, requests_[place], now);
                }
                answer(place, std::move(said));
            }
        }
        if (last) {
            SqliteCall(session, sql_.keep_fence, *last).finish();
        }
    }
    /// Whether the answer leaves something to write: a record that is taken, or found to be dead.
    static bool writes(const Said& said, const std::optional<SqliteRecord>& record) noexcept {
        return std::holds_alternative<Claimed<std::monostate>>(said) ||
               (std::holds_alternative<Dead>(said) && record->state == SqliteState::open);
    }
    void answer(std::size_t place, Said&& said) {
        std::visit(
            [&](auto&& alternative) {
                using Held = std::remove_cvref_t<decltype(alternative)>;
                if constexpr (!std::is_same_v<Held, Claimed<std::monostate>>) {
                    answers_[place] = std::forward<decltype(alternative)>(alternative);
                }
            },
            std::move(said));
    }
    std::int64_t last_fence(SqliteSession& session) const {
        SqliteCall call(session, sql_.last_fence);
        return call.next() ? call.integer(0) : 0;
    }
    void win(SqliteSession& session,
             std::size_t place,
             const Claimed<std::monostate>& free,
             const std::optional<SqliteRecord>& record,
             std::int64_t fence,
             Timestamp now) {
        const auto& asked = requests_[place];
        const auto key = sqlite_filed_under(asked);
        const bool keeps = record && !record->expired(now) && asked.fingerprint.algorithm == 0;
        const auto print = keeps ? record->fingerprint : asked.fingerprint;
        const auto digest = sqlite_fingerprint_bytes(print);
        const auto lease = sqlite_span_of_lease(asked.lease);
        auto nonce = draw_nonce();
        const int before = sqlite3_total_changes(session.native());
        SqliteCall(session,
                   sql_.take,
                   blob_of(key.scope),
                   blob_of(key.id),
                   blob_of({digest.data(), digest.size()}),
                   print.algorithm,
                   free.attempt,
                   sqlite_millis(now),
                   sqlite_millis(now + std::max(sqlite_span(asked.retention), lease)),
                   sqlite_millis(now + lease),
                   fence,
                   blob_of(nonce),
                   blob_of(asked.token.empty() ? std::string_view() : asked.key.id))
            .finish();
        require_sqlite_written(core_, sqlite3_total_changes(session.native()) != before);
        answers_[place] =
            Claimed<SqliteTicket>{.ticket = {.scope = std::string(key.scope),
                                             .id = std::string(key.id),
                                             .nonce = std::move(nonce),
                                             .fence = static_cast<std::uint64_t>(fence),
                                             .retention = asked.retention,
                                             .max_attempts = asked.max_attempts},
                                  .attempt = free.attempt,
                                  .fence = static_cast<std::uint64_t>(fence),
                                  .takeover = free.takeover};
    }
    void bury(SqliteSession& session, const ClaimRequest& asked, Timestamp now) const {
        const auto key = sqlite_filed_under(asked);
        SqliteCall(session,
                   sql_.bury,
                   blob_of(key.scope),
                   blob_of(key.id),
                   sqlite_millis(now),
                   sqlite_millis(now + sqlite_span(asked.retention)))
            .finish();
    }
    bool stands(SqliteSession& session, const SqliteTicket& ticket) const {
        const auto record = core_.records().find(session, ticket.key());
        return record && record->owner == ticket.nonce;
    }

    SqliteCore& core_;
    const SqliteLeaseStatements& sql_;
    std::span<const ClaimRequest> requests_;
    std::vector<std::optional<Answer>> answers_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_LEASE_CLAIM_HPP
