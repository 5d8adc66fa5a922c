// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_SQLITE_FENCE_MEMBERS_HPP
#define IDEM_DETAIL_SQLITE_FENCE_MEMBERS_HPP

// How SqliteTransaction moves a fence row.

#include <idem/detail/nonce.hpp>
#include <idem/detail/sqlite_transaction.hpp>
#include <idem/detail/sqlite_transaction_members.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace idem::inline v0 {

/// The write lock is the claim, as for keys, so the row is read before it is moved.
inline Claim<std::monostate> SqliteTransaction::advance(std::string_view scope,
                                                        const Position& position) {
    require_valid(scope, position);
    require_intact();
    IDEM_FAILPOINT("sqlite fence: before advance");
    std::string owner = detail::draw_nonce();
    auto answer = as_store([&] {
        lock_joined();
        auto judged = core().fences().judge(session(), scope, position);
        if (std::holds_alternative<Claimed<std::monostate>>(judged)) {
            detail::require_sqlite_written(
                core(), core().fences().advance(session(), scope, position, owner, core().now()));
        }
        return judged;
    });
    if (std::holds_alternative<Claimed<std::monostate>>(answer)) {
        detail::SqliteAdvanced moved{std::string(scope),
                                     std::string(position.partition),
                                     detail::fence_offset(position),
                                     std::move(owner)};
        for (auto& earlier : fences_) {
            if (earlier.scope == moved.scope && earlier.partition == moved.partition) {
                earlier = std::move(moved); // a row is where it was moved last
                return answer;
            }
        }
        fences_.push_back(std::move(moved));
    }
    IDEM_FAILPOINT("sqlite fence: after advance");
    return answer;
}

} // namespace idem::inline v0

#endif // IDEM_DETAIL_SQLITE_FENCE_MEMBERS_HPP
