// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_FENCE_CALLS_HPP
#define IDEM_DETAIL_SQLITE_FENCE_CALLS_HPP

// Beside a handler's transaction: where a source starts, what it passed, attempts of an offset.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/sqlite_alone.hpp>

#include <cstdint>
#include <optional>
#include <string_view>

namespace idem::inline v0::detail {

class SqliteFenceCalls {
public:
    explicit SqliteFenceCalls(SqliteCore& core) : core_(core) {}

    /// Throws: StoreError.
    std::optional<std::uint64_t> next(std::string_view scope, std::string_view partition) {
        require_valid(scope, Position{.partition = partition});
        const auto row = sqlite_read_alone(core_, [&](SqliteSession& session) {
            return core_.fences().find(session, scope, partition);
        });
        return row && row->handled >= 0
                   ? std::optional<std::uint64_t>(static_cast<std::uint64_t>(row->handled) + 1)
                   : std::nullopt;
    }

    /// Throws: StoreError.
    void passed(std::string_view scope, const Position& position) {
        require_valid(scope, position);
        sqlite_write_alone(core_, [&](SqliteSession& session) {
            core_.fences().advance(session, scope, position, {}, core_.now());
            IDEM_FAILPOINT("sqlite fence: before the commit of a passed offset");
        });
    }

    /// Throws: StoreError.
    Claim<std::monostate> peek(std::string_view scope, const Position& position) {
        require_valid(scope, position);
        return sqlite_read_alone(core_, [&](SqliteSession& session) {
            return core_.fences().judge(session, scope, position);
        });
    }

    void record_failure(std::string_view scope,
                        const Position& position,
                        std::string_view why) noexcept {
        try {
            require_valid(scope, position);
            sqlite_write_alone(core_, [&](SqliteSession& session) {
                core_.fences().charge(session, scope, position, why, core_.now());
                IDEM_FAILPOINT("sqlite fence: before the commit of a failure");
            });
        } catch (...) { // one attempt less is counted: at worst the message runs once more
        }
    }

    void refund_failure(std::string_view scope, const Position& position) noexcept {
        try {
            require_valid(scope, position);
            sqlite_write_alone(core_, [&](SqliteSession& session) {
                core_.fences().refund(session, scope, position);
            });
        } catch (...) { // one attempt more is counted: at worst it dies one delivery earlier
        }
    }

private:
    SqliteCore& core_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_SQLITE_FENCE_CALLS_HPP
