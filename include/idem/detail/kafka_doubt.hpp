// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_DOUBT_HPP
#define IDEM_DETAIL_KAFKA_DOUBT_HPP

// A transaction whose commit was sent and whose end is not known, until the group's offsets tell.

#include <idem/detail/failpoint.hpp>
#include <idem/detail/kafka_committed_offsets.hpp>
#include <idem/detail/kafka_ownership.hpp>
#include <idem/detail/kafka_transactional_producer.hpp>

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// What a transaction is to commit. Positions of partitions that live as long as their source.
struct KafkaConsumed {
    std::vector<Position> positions{};
    std::vector<KafkaCommitted> offsets{};
};

/// Concurrency: one thread at a time.
class KafkaDoubt {
public:
    KafkaDoubt(const KafkaOptions& source, KafkaTransactionalProducer& producer) noexcept
        : source_(source)
        , producer_(producer) {}

    [[nodiscard]] bool is_open() const noexcept { return open_.has_value(); }
    void open(KafkaConsumed consumed) { open_.emplace(std::move(consumed)); }
    /// It is over, one way or the other. Requires: is_open().
    [[nodiscard]] KafkaConsumed close() {
        KafkaConsumed consumed = std::move(*open_);
        open_.reset();
        return consumed;
    }
    /// Whether it was committed; none: that was not to be known in time. A new producer's start
    /// ends what the last one left open, so that the offsets read after it are final.
    [[nodiscard]] std::optional<bool> ask(KafkaDeadline until) {
        producer_.discard();
        try {
            producer_.require_ready(until);
            IDEM_FAILPOINT("kafka transaction: before reading back");
            return kafka_are_committed(source_, open_->offsets, until);
        } catch (const StoreError&) {
            return std::nullopt;
        }
    }

    /// Messages that were told "in doubt", and were committed: they must not run again.
    void remember(const std::vector<KafkaCommitted>& offsets) {
        for (const auto& [partition, epoch, offset] : offsets) {
            const Over over{partition->name, epoch, static_cast<std::uint64_t>(offset)};
            bool found = false;
            for (auto& known : over_) {
                if (known.partition == over.partition) {
                    known = over;
                    found = true;
                }
            }
            if (!found) {
                over_.push_back(over);
            }
        }
    }
    [[nodiscard]] bool is_over(const Position& position) const noexcept {
        for (const auto& over : over_) {
            if (over.partition == position.partition && over.epoch == position.epoch) {
                return position.offset < over.next;
            }
        }
        return false;
    }

private:
    struct Over {
        std::string_view partition;
        std::uint64_t epoch, next;
    };

    const KafkaOptions& source_;
    KafkaTransactionalProducer& producer_;
    std::optional<KafkaConsumed> open_{};
    std::vector<Over> over_{};
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_DOUBT_HPP
