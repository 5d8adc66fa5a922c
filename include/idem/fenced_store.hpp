// SPDX-License-Identifier: MIT
#ifndef IDEM_FENCED_STORE_HPP
#define IDEM_FENCED_STORE_HPP

// What OffsetFence asks of a store: one row for each handler's scope and partition.

#include <idem/dedup_store.hpp>

#include <concepts>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>

namespace idem::inline v0 {

/// | advance(scope, position)  | Claimed where position.offset is greater than the row's, which then |
/// |                           | is this offset, as part of the commit; `attempt` is one more than   |
/// |                           | the failures recorded of this offset                                |
/// |                           | else Completed, an omitted result                                   |
/// |                           | another open transaction is at the row: InProgress, never blocks    |
/// |                           | Throws: std::invalid_argument past the limits                       |
template <class T>
concept FencedTransaction = StoreTransaction<T> &&
    requires(T& tx, std::string_view scope, const Position& position) {
    { tx.advance(scope, position) } -> std::same_as<Claim<std::monostate>>;
};

template <class S>
concept FencedStore = TransactionalStore<S> && FencedTransaction<typename S::Transaction>;

/// | record_failure(scope, position, why) | counts a failed attempt of this offset, in a          |
/// |                                      | transaction of its own; only after rollback()         |
/// | refund_failure(scope, position)      | one that was counted is not counted after all         |
/// | peek(scope, position)                | what advance() would answer, read without a lock      |
/// | next(scope, partition)               | one past the row's offset; none: no row, or nothing   |
/// |                                      | handled yet: where a source starts on assignment      |
/// | passed(scope, position)              | the row moves to this offset, where that is greater,  |
/// |                                      | in a transaction of its own: it lies dead-lettered    |
///
/// Failures are counted of one offset at a time, the last that failed: of a partition one message
/// is handled at a time, in order.
template <class S>
concept FailureCountingFence = FencedStore<S> &&
    requires(S& store, std::string_view scope, const Position& position, std::string_view text) {
    { store.record_failure(scope, position, text) } -> std::same_as<void>;
    { store.refund_failure(scope, position) } -> std::same_as<void>;
    { store.peek(scope, position) } -> std::same_as<Claim<std::monostate>>;
    { store.next(scope, text) } -> std::same_as<std::optional<std::uint64_t>>;
    { store.passed(scope, position) } -> std::same_as<void>;
    requires noexcept(store.record_failure(scope, position, text));
    requires noexcept(store.refund_failure(scope, position));
};

/// Limits of a fence row, in every store: a partition's name of 1 to 1,024 bytes, any bytes, and an
/// offset below 2^63 - 1.
/// Throws: std::invalid_argument naming the field and the limit.
inline void require_valid(std::string_view scope, const Position& position) {
    require_valid(Key{scope, "any id"});
    if (position.partition.empty() || position.partition.size() > max_id) {
        throw std::invalid_argument("idem: Position::partition has " +
                                    std::to_string(position.partition.size()) + " bytes; 1 to " +
                                    std::to_string(max_id) + " are allowed");
    }
    if (position.offset >= std::uint64_t{0x7fff'ffff'ffff'ffff}) {
        throw std::invalid_argument("idem: Position::offset is " + std::to_string(position.offset) +
                                    "; the limit is 2^63 - 2");
    }
}

} // namespace idem::inline v0

#endif // IDEM_FENCED_STORE_HPP
