// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_KAFKA_SETTLEMENT_HPP
#define IDEM_BROKER_KAFKA_SETTLEMENT_HPP

// Settlements carried out for those who have a Kafka consumer and a loop of their own.

#include <idem/broker/kafka_delivery.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/detail/kafka_dead_letters.hpp>
#include <idem/settlement.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

struct KafkaSettlerOptions {
    std::string dead_letter_topic{}; ///< default: that of the message + ".dead"
    milliseconds deadline{10'000};   ///< of a dead letter, and of a seek
    std::vector<KafkaSetting>
        producer{}; ///< of that of dead letters: bootstrap.servers, security …
};

/// For a consumer that handles the messages of each partition one after the other, with
/// `enable.auto.offset.store=false`; whether its stored offsets are committed by
/// `enable.auto.commit` or by the loop is up to you.
///
///     settler.resume();                       // all that was taken earlier is settled, or dropped
///     message = rd_kafka_consumer_poll(…);
///     KafkaMessage read{*message};
///     settler.settle(read, bill.handle(read).settlement());
///
/// and in the rebalance callback, on a revoke, `settler.revoked(*partitions)` before the unassign.
/// Concurrency: the thread of the consumer's loop.
class KafkaSettler {
public:
    /// Borrows the consumer, and must go before it. rd_kafka_consumer_close() calls the rebalance
    /// callback once more: close before this goes, or keep the callback from it.
    /// Throws: std::invalid_argument where the consumer stores offsets by itself: it would commit
    /// what was not handled yet.
    explicit KafkaSettler(rd_kafka_t* consumer, KafkaSettlerOptions options = {})
        : consumer_(consumer)
        , options_(std::move(options))
        , dead_letters_(options_.deadline, options_.dead_letter_topic) {
        char stores[16] = "";
        std::size_t size = sizeof stores;
        rd_kafka_conf_get(rd_kafka_conf(consumer), "enable.auto.offset.store", stores, &size);
        if (std::string_view(stores) != "false") {
            throw std::invalid_argument("idem: KafkaSettler needs enable.auto.offset.store=false: "
                                        "the consumer would commit what was not handled yet");
        }
    }
    KafkaSettler(const KafkaSettler&) = delete;
    KafkaSettler& operator=(const KafkaSettler&) = delete;
    ~KafkaSettler() = default;

    /// ack: stores the offset to be committed. retry: pauses the partition and seeks back, so that
    /// the message comes again once resume() is called after the delay; what was taken of the
    /// partition after it comes again too, and is lost here. dead_letter: writes it, confirmed,
    /// then stores the offset. stop: nothing.
    /// lost: the partition is not assigned, or the message comes again.
    /// Throws: StoreError, of a dead letter or a seek: nothing was stored.
    Settled settle(const KafkaMessage& message, const Settlement& settlement) {
        const auto held = held_.find(place_of(message));
        if (held != held_.end() && message.offset() >= held->second.offset) {
            return Settled::lost;
        }
        switch (settlement.action) {
        case Action::ack:
            return store(message);
        case Action::retry:
            return hold(message, settlement.delay);
        case Action::dead_letter:
            dead_letters_.write(message, settlement, producer_config());
            return store(message);
        case Action::stop:
            break;
        }
        return Settled::yes;
    }

    /// Gives free the partitions whose delay is over. To be called before each poll of the consumer,
    /// when all that it gave is settled or dropped. How long until the next is due: the longest
    /// sensible wait of that poll.
    milliseconds resume() {
        auto next = milliseconds{60'000};
        const auto now = std::chrono::steady_clock::now();
        for (auto each = held_.begin(); each != held_.end();) {
            if (each->second.due <= now) {
                resume(each->first);
                each = held_.erase(each);
            } else {
                const auto left = std::chrono::ceil<milliseconds>(each->second.due - now);
                next = left < next ? left : next;
                ++each;
            }
        }
        return next;
    }
    /// Not ours any more: without this a partition that was paused stays silent when it comes back.
    void revoked(const rd_kafka_topic_partition_list_t& partitions) {
        for (int i = 0; i < partitions.cnt; ++i) {
            const Place place{partitions.elems[i].topic, partitions.elems[i].partition};
            if (held_.erase(place) > 0) {
                resume(place);
            }
        }
    }

private:
    using Place = std::pair<std::string, std::int32_t>;
    struct Held {
        std::int64_t offset;
        std::chrono::steady_clock::time_point due;
    };

    static Place place_of(const KafkaMessage& message) {
        return {std::string(message.topic()), message.partition()};
    }
    static detail::KafkaPartitions list_of(const Place& place) {
        auto list = detail::kafka_partitions(1);
        detail::add_partition(list, place.first, place.second);
        return list;
    }
    [[nodiscard]] detail::KafkaConfig producer_config() const {
        detail::KafkaConfig config;
        config.set(options_.producer);
        return config;
    }
    Settled store(const KafkaMessage& message) {
        const auto list = list_of(place_of(message));
        list->elems[0].offset = message.offset() + 1;
        return rd_kafka_offsets_store(consumer_, list.get()) == RD_KAFKA_RESP_ERR_NO_ERROR
                   ? Settled::yes
                   : Settled::lost; // the partition is not assigned
    }
    Settled hold(const KafkaMessage& message, milliseconds delay) {
        const auto place = place_of(message);
        const auto list = list_of(place);
        rd_kafka_pause_partitions(consumer_, list.get());
        if (list->elems[0].err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return Settled::lost;
        }
        list->elems[0].offset = message.offset();
        const detail::KafkaError error(rd_kafka_seek_partitions(
            consumer_, list.get(), static_cast<int>(options_.deadline.count())));
        if (error || list->elems[0].err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            resume(place);
            if (error) {
                throw detail::kafka_error("seek", error);
            }
            return Settled::lost;
        }
        held_[place] = {message.offset(), std::chrono::steady_clock::now() + delay};
        return Settled::yes;
    }
    void resume(const Place& place) {
        const auto list = list_of(place);
        rd_kafka_resume_partitions(consumer_, list.get());
    }

    rd_kafka_t* consumer_;
    const KafkaSettlerOptions options_;
    detail::KafkaDeadLetters dead_letters_;
    std::map<Place, Held> held_; // paused, and sought back
};

} // namespace idem::inline v0

#endif // IDEM_BROKER_KAFKA_SETTLEMENT_HPP
