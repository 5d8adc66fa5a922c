// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_OFFSET_KEEPER_HPP
#define IDEM_BROKER_OFFSET_KEEPER_HPP

// Who keeps the offsets of a partition beside the broker: the fence rows of a store.

#include <idem/key.hpp>

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0 {

/// Where a source of partitions starts, and whom it tells of what it passed without a handler
/// (semantics.md 6.3). A source borrows it.
/// Throws: StoreError, of both members.
/// Concurrency: called by the source's own thread.
class OffsetKeeper {
public:
    /// Where the source continues on assignment: one past the last offset that was handled. None:
    /// nothing is known of the partition, the broker's own offset counts.
    virtual std::optional<std::uint64_t> next(std::string_view partition) = 0;
    /// The message at `position` lies in the dead-letter topic, confirmed. Repeating it is harmless;
    /// it never goes backwards.
    virtual void passed(const Position& position) = 0;

protected:
    ~OffsetKeeper() = default;
};

/// What FenceKeeper asks of a store.
///
/// | next(scope, partition)  | one past the offset of the fence row; none: no row, or none handled  |
/// | passed(scope, position) | the row moves to it where it is greater, in a transaction of its own |
template <class S>
concept OffsetKeepingStore = requires(S& store, std::string_view text, const Position& position) {
    { store.next(text, text) } -> std::same_as<std::optional<std::uint64_t>>;
    { store.passed(text, position) } -> std::same_as<void>;
};

/// The fence rows of one handler, for its source: `FenceKeeper offsets{store, "billing"};` and
/// `KafkaOptions{.offsets = &offsets}`. The scope is the one that wrap() was given. Borrows the
/// store.
/// Cost: one round trip per partition assigned, one per dead letter.
template <OffsetKeepingStore Store>
class FenceKeeper final : public OffsetKeeper {
public:
    /// Throws: std::invalid_argument where the scope is empty or past max_scope.
    FenceKeeper(Store& store, std::string scope) : store_(&store), scope_(std::move(scope)) {
        require_valid({scope_, "any id"});
    }

    std::optional<std::uint64_t> next(std::string_view partition) override {
        return store_->next(scope_, partition);
    }
    void passed(const Position& position) override { store_->passed(scope_, position); }

private:
    Store* store_;
    std::string scope_;
};

} // namespace idem::inline v0

#endif // IDEM_BROKER_OFFSET_KEEPER_HPP
