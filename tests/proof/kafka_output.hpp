// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_KAFKA_OUTPUT_HPP
#define IDEM_TESTS_PROOF_KAFKA_OUTPUT_HPP

// A reader of committed records that reads on while they are written, and counts what must not be.

#include <idem/detail/kafka_client.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "proof/kafka_input.hpp"

namespace idem::proof {

class KafkaOutput {
public:
    KafkaOutput(const KafkaServer& server, std::string topic, const KafkaInput& input)
        : input_(input)
        , topic_(std::move(topic))
        , times_(input.count())
        , partitions_(input.numbers().size()) {
        auto config = server.client();
        config.set("group.id", "reader-of-" + topic_);
        config.set("enable.auto.commit", "false");
        config.set("fetch.wait.max.ms", "20");
        config.set("isolation.level", "read_committed");
        handle_ = std::move(config).make(RD_KAFKA_CONSUMER);
        rd_kafka_poll_set_consumer(handle_.get());
        const auto assignment = detail::kafka_partitions(partitions_.size());
        for (std::size_t i = 0; i < partitions_.size(); ++i) {
            detail::add_partition(assignment, topic_, static_cast<std::int32_t>(i)).offset =
                RD_KAFKA_OFFSET_BEGINNING;
        }
        rd_kafka_assign(handle_.get(), assignment.get());
    }
    /// What is there, or comes within a moment.
    void read() {
        int time = 20; // milliseconds
        for (int i = 0; i < 500; ++i) {
            const detail::KafkaRawMessage message(rd_kafka_consumer_poll(handle_.get(), time));
            if (!message) {
                return;
            }
            if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
                take(testing_support::record_of(topic_, *message));
                time = 0;
            }
        }
    }
    [[nodiscard]] std::size_t distinct() const noexcept { return distinct_; }
    [[nodiscard]] std::size_t doubled() const noexcept { return doubled_; }
    [[nodiscard]] std::size_t out_of_order() const noexcept { return out_of_order_; }
    [[nodiscard]] std::size_t strange() const noexcept { return strange_; } ///< or elsewhere
    [[nodiscard]] std::size_t lost() const noexcept { return input_.count() - distinct_; }
    /// Who wrote the newest; empty: it did not say.
    [[nodiscard]] const std::string& last_writer() const noexcept { return last_writer_; }

    void mark() {
        for (auto& partition : partitions_) {
            partition.writers_since_mark.clear();
        }
    }
    /// Whether another than this writer went on, since mark(), in each partition that is not worked off.
    [[nodiscard]] bool went_on_without(const std::string& writer) const {
        for (std::size_t i = 0; i < partitions_.size(); ++i) {
            bool others = partitions_[i].distinct == input_.written_to(i);
            for (const auto& each : partitions_[i].writers_since_mark) {
                others = others || each != writer;
            }
            if (!others) {
                return false;
            }
        }
        return true;
    }

private:
    struct Partition {
        std::int64_t last = -1;
        std::size_t distinct = 0;
        std::vector<std::string> writers_since_mark{}; // no two in a row the same
    };
    void take(const testing_support::KafkaRecord& record) {
        const auto number = number_of(record.payload.value_or(""));
        if (!number || *number >= times_.size()) {
            ++strange_;
            return;
        }
        auto& partition = partitions_[static_cast<std::size_t>(record.partition)];
        if (++times_[*number] == 1) {
            ++distinct_;
            ++partition.distinct;
        } else {
            ++doubled_;
        }
        const auto signed_number = static_cast<std::int64_t>(*number);
        out_of_order_ += signed_number < partition.last ? 1 : 0;
        partition.last = signed_number;
        last_writer_ = record.header("worker").value_or("");
        auto& writers = partition.writers_since_mark;
        if (writers.empty() || writers.back() != last_writer_) {
            writers.push_back(last_writer_);
        }
    }

    const KafkaInput& input_;
    std::string topic_;
    std::vector<unsigned> times_; // by number
    std::vector<Partition> partitions_;
    std::size_t distinct_ = 0, doubled_ = 0, out_of_order_ = 0, strange_ = 0;
    std::string last_writer_;
    detail::KafkaHandle handle_;
};

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_KAFKA_OUTPUT_HPP
