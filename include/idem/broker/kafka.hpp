// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_KAFKA_HPP
#define IDEM_BROKER_KAFKA_HPP

// Deliveries from the partitions of a Kafka consumer group.

#include <idem/broker/kafka_delivery.hpp>
#include <idem/broker/kafka_options.hpp>
#include <idem/broker/source.hpp>
#include <idem/detail/kafka_consumer.hpp>
#include <idem/detail/kafka_dead_letters.hpp>
#include <idem/detail/kafka_ownership.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// A member of a consumer group, for idem::run or a loop of your own. Joins at the first receive(),
/// and comes back by itself after an outage. Needs Kafka 2.1.
///
/// ack: the message is finished; what is committed is the lowest unfinished offset of its
/// partition, each commit_interval, after commit_count, and before the partition is given back.
/// retry: the source keeps the record and gives it again after the delay; where order is kept,
/// before anything else of its partition. dead_letter: to the dead-letter topic, confirmed; then it
/// is finished. A delivery of an earlier assignment is lost: nothing of it is settled.
/// What may have been handled before is marked redelivered: in a partition, the first 2 ×
/// commit_count after its assignment, and what comes again.
/// Concurrency: one thread, but for the deliveries, each of which one thread reads at a time.
class KafkaSource {
public:
    using Delivery = KafkaDelivery;

    /// Throws: std::invalid_argument naming what is wrong with the options or a setting.
    explicit KafkaSource(KafkaOptions options)
        : options_(detail::checked(std::move(options)))
        , consumer_(options_, ownership_)
        , dead_letters_(options_.deadline, options_.dead_letter_topic) {
        ownership_.set_commit_count(options_.commit_count);
    }
    KafkaSource(const KafkaSource&) = delete; // its deliveries refer to it
    KafkaSource& operator=(const KafkaSource&) = delete;
    /// Commits what is finished and leaves the group; at most about the deadline of the options and
    /// the session's. All deliveries must be gone.
    ~KafkaSource() = default;

    [[nodiscard]] const KafkaOptions& options() const noexcept { return options_; }
    /// Where dead letters of a topic go.
    [[nodiscard]] std::string dead_letter_topic(std::string_view topic) const {
        return dead_letters_.topic_of(topic);
    }
    /// Often enough to notice within a second or so that a partition went to another member.
    [[nodiscard]] DeliveryDeadline deadline() const noexcept {
        constexpr milliseconds longest{3'000};
        const auto third = options_.max_poll_interval / 3;
        return {third < longest ? third : longest, true};
    }
    /// A partition, where order is kept; else the delivery's own.
    [[nodiscard]] std::uint64_t lane(const Delivery& delivery) const noexcept {
        return delivery.lane_;
    }

    /// From all partitions in turn. To be called again within max_poll_interval, with 0 messages
    /// at least, which serves the group and takes none.
    /// Throws: StoreError: unavailable (all brokers are down, the group took all away) after which
    /// it goes on by itself; rejected for credentials, permissions, a topic that is not there.
    std::vector<Delivery> receive(milliseconds time) { return receive(time, options_.count); }
    std::vector<Delivery> receive(milliseconds time, std::size_t at_most) {
        auto now = std::chrono::steady_clock::now();
        const auto until = now + time;
        at_most = std::min(at_most, most_at_a_time);
        std::vector<Delivery> received;
        for (;;) {
            consumer_.wakeup().clear();
            consumer_.serve(now);
            if (at_most > 0) {
                take(received, at_most, now);
            }
            if (!received.empty() || at_most == 0 || now >= until) {
                return received;
            }
            consumer_.wakeup().wait_until(std::min({until, consumer_.next_commit(), next_due()}));
            now = std::chrono::steady_clock::now();
        }
    }

    /// A delivery that is settled a second time is lost. Waits for the broker only where it is a
    /// dead letter.
    /// Throws: StoreError of a dead letter: unavailable where it is not known to be there, so that
    /// it may be there twice; rejected.
    Settled settle(Delivery& delivery, const Settlement& settlement) {
        switch (settlement.action) {
        case Action::ack:
            return finish(delivery) ? Settled::yes : Settled::lost;
        case Action::retry:
            return give_back(delivery, settlement.delay) ? Settled::yes : Settled::lost;
        case Action::dead_letter:
            return dead_letter(delivery, settlement) ? Settled::yes : Settled::lost;
        case Action::stop: // nothing is told, and the offset stays unfinished
            break;
        }
        return Settled::yes;
    }
    /// Without the broker, and so quick.
    std::vector<Settled> acknowledge(std::span<Delivery* const> deliveries) {
        std::vector<Settled> answers(deliveries.size(), Settled::lost);
        const auto held = ownership_.lock();
        for (std::size_t i = 0; i < deliveries.size(); ++i) {
            auto& delivery = *deliveries[i];
            if (delivery.owned_ &&
                ownership_.finish(held, *delivery.from_, delivery.epoch_, delivery.offset())) {
                answers[i] = Settled::yes;
            }
        }
        return answers;
    }
    /// False: its partition was given back since. Without the broker.
    bool extend(Delivery& delivery, milliseconds time) {
        static_cast<void>(time);
        return delivery.owned_ && ownership_.is_current(*delivery.from_, delivery.epoch_);
    }
    /// Gives nothing more of the partition. Where order is not kept, lanes are not partitions, and
    /// others go on: nothing happens.
    void pause(std::uint64_t lane) noexcept { set_paused(lane, true); }
    void resume(std::uint64_t lane) noexcept { set_paused(lane, false); }

private:
    friend class KafkaSink;
    using Time = std::chrono::steady_clock::time_point;
    static constexpr std::size_t most_at_a_time = 10'000;
    static constexpr std::uint64_t own_lane = std::uint64_t{1} << 63; // not that of a partition

    void set_paused(std::uint64_t lane, bool paused) noexcept {
        for (auto* partition : consumer_.owned()) {
            if (partition->lane == lane) {
                partition->paused = paused;
            }
        }
    }
    /// When the first of those that were returned may be given again.
    [[nodiscard]] Time next_due() const noexcept {
        auto next = Time::max();
        for (const auto* partition : consumer_.owned()) {
            for (const auto& each : partition->returned) {
                next = partition->paused ? next : std::min(next, each.due);
                if (options_.ordered) {
                    break; // the others wait for it
                }
            }
        }
        return next;
    }

    // ---- what comes -----------------------------------------------------------------------------
    /// A fair share of each partition, until there is room no more or nothing left.
    void take(std::vector<Delivery>& received, std::size_t at_most, Time now) {
        const auto& owned = consumer_.owned();
        if (owned.empty()) {
            return;
        }
        records_.resize(std::max(records_.size(), at_most));
        const auto held = ownership_.lock(); // once for all
        for (bool more = true; more && received.size() < at_most;) {
            const std::size_t before = received.size();
            const std::size_t share = std::max<std::size_t>((at_most - before) / owned.size(), 1);
            for (std::size_t i = 0; i < owned.size() && received.size() < at_most; ++i) {
                turn_ = turn_ + 1 < owned.size() ? turn_ + 1 : 0;
                take_from(*owned[turn_], received, std::min(share, at_most - received.size()), now);
            }
            more = received.size() > before;
        }
    }
    void take_from(detail::KafkaPartition& partition,
                   std::vector<Delivery>& received,
                   std::size_t share,
                   Time now) {
        if (partition.paused || partition.epoch == 0) {
            return;
        }
        if (!partition.returned.empty()) {
            share -= take_returned(partition, received, share, now);
            if (options_.ordered && !partition.returned.empty()) {
                return; // what is younger must not overtake it
            }
        }
        const auto size = partition.tracker.size();
        share = std::min(share, size < options_.window ? options_.window - size : 0);
        if (share == 0) {
            return;
        }
        // Nothing may fail between taking a record and noting it: a later commit would pass it.
        if (received.capacity() < received.size() + share) {
            received.reserve(std::max(received.size() + share, 2 * received.capacity()));
        }
        partition.tracker.reserve(share);
        const auto count =
            rd_kafka_consume_batch_queue(partition.queue.get(), 0, records_.data(), share);
        for (ssize_t i = 0; i < count; ++i) {
            detail::KafkaRawMessage record(records_[static_cast<std::size_t>(i)]);
            if (record->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
                consumer_.note(*record);
                continue;
            }
            if (partition.tracker.next() < 0 && options_.start != KafkaStart::latest) {
                partition.committed = partition.confirmed = record->offset; // nothing to commit yet
            } // else where it began is committed, so that a restart does not begin later
            partition.tracker.take(record->offset);
            const bool suspect = partition.suspects > 0;
            partition.suspects -= suspect ? 1 : 0;
            received.push_back(delivery_of(partition, std::move(record), suspect));
        }
    }
    std::size_t take_returned(detail::KafkaPartition& partition,
                              std::vector<Delivery>& received,
                              std::size_t share,
                              Time now) {
        std::size_t taken = 0;
        auto& returned = partition.returned;
        for (std::size_t i = 0; i < returned.size() && taken < share;) {
            if (returned[i].due <= now) {
                received.push_back(delivery_of(partition, std::move(returned[i].record), true));
                returned.erase(returned.begin() + static_cast<std::ptrdiff_t>(i));
                ++taken;
            } else if (options_.ordered) {
                break;
            } else {
                ++i;
            }
        }
        return taken;
    }
    [[nodiscard]] Delivery
    delivery_of(detail::KafkaPartition& from, detail::KafkaRawMessage record, bool redelivered) {
        const auto lane = options_.ordered ? from.lane : own_lane | ++given_;
        return {std::move(record), from, from.epoch, lane, redelivered};
    }

    // ---- what is settled ------------------------------------------------------------------------
    [[nodiscard]] bool finish(Delivery& delivery) {
        const auto held = ownership_.lock();
        return delivery.owned_ &&
               ownership_.finish(held, *delivery.from_, delivery.epoch_, delivery.offset());
    }
    [[nodiscard]] bool is_ours(const Delivery& delivery) {
        const auto held = ownership_.lock();
        return delivery.owned_ && delivery.from_->epoch == delivery.epoch_ &&
               delivery.from_->tracker.is_unfinished(delivery.offset());
    }
    [[nodiscard]] bool give_back(Delivery& delivery, milliseconds delay) {
        if (!is_ours(delivery)) {
            return false;
        }
        auto& returned = delivery.from_->returned;
        const auto offset = delivery.offset();
        const auto place =
            std::find_if(returned.begin(), returned.end(), [offset](const auto& other) {
                return other.record->offset > offset;
            });
        returned.insert(place,
                        {std::move(delivery.owned_), std::chrono::steady_clock::now() + delay});
        return true;
    }
    [[nodiscard]] bool dead_letter(Delivery& delivery, const Settlement& settlement) {
        if (!is_ours(delivery)) {
            return false;
        }
        if (!delivery.dead_lettered_) {
            dead_letters_.write(delivery, settlement, detail::kafka_producer_config(options_));
            IDEM_FAILPOINT("kafka: after dead letter");
            delivery.dead_lettered_ = true;
        }
        if (options_.offsets != nullptr) {
            pass(delivery);
        }
        return finish(delivery);
    }

    /// Throws: StoreError; never in_doubt, as to repeat it is harmless.
    void pass(const Delivery& delivery) {
        try {
            options_.offsets->passed({delivery.from_->name,
                                      static_cast<std::uint64_t>(delivery.offset()),
                                      delivery.epoch_});
        } catch (const StoreError& error) {
            if (error.fault() == Fault::in_doubt) {
                throw StoreError(Fault::unavailable, error.what());
            }
            throw;
        }
    }

    const KafkaOptions options_;
    detail::KafkaOwnership ownership_;
    detail::KafkaConsumer consumer_;
    detail::KafkaDeadLetters dead_letters_;
    std::vector<rd_kafka_message_t*> records_;
    std::size_t turn_ = 0;
    std::uint64_t given_ = 0;
};

static_assert(OrderedSource<KafkaSource> && BoundedSource<KafkaSource> &&
              BulkAckSource<KafkaSource> && DeadlinedSource<KafkaSource> &&
              PausableSource<KafkaSource>);

} // namespace idem::inline v0

#endif // IDEM_BROKER_KAFKA_HPP
