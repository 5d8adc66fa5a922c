// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_KAFKA_INPUT_HPP
#define IDEM_TESTS_PROOF_KAFKA_INPUT_HPP

// Numbered messages over the partitions of a topic, and what a group has committed of them.

#include <idem/broker/delivery.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/settlement.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "proof/numbered.hpp"
#include "proof/seed.hpp"
#include "support/kafka_records.hpp"
#include "support/kafka_server.hpp"

namespace idem::proof {

using testing_support::KafkaServer;

/// Ascending in each partition, as many in one as in another by chance; and now and then a message
/// without a number, which nobody can process. Written while it is worked on, a little ahead, so
/// that what happens in mid-work does, whoever is quick.
class KafkaInput {
public:
    KafkaInput(
        KafkaServer& server, std::string topic, int partitions, std::size_t count, Seed& seed)
        : topic_(std::move(topic))
        , numbers_(static_cast<std::size_t>(partitions))
        , bad_(numbers_.size())
        , written_(numbers_.size(), 0)
        , count_(count)
        , producer_(server, {{"enable.idempotence", "true"}, {"linger.ms", "5"}}) {
        server.create_topic(topic_, partitions);
        for (std::size_t number = 0; number < count; ++number) {
            const auto place = seed.below(numbers_.size());
            places_.push_back(place);
            numbers_[place].push_back(number);
            if (is_followed(number)) {
                bad_[place].push_back(end_of(place));
            }
        }
    }
    [[nodiscard]] const std::string& topic() const noexcept { return topic_; }
    [[nodiscard]] std::size_t count() const noexcept { return count_; }
    /// By partition, those that are not written yet too.
    [[nodiscard]] const std::vector<std::vector<std::size_t>>& numbers() const noexcept {
        return numbers_;
    }
    /// By partition, the offsets of those that nobody can process.
    [[nodiscard]] const std::vector<std::vector<std::int64_t>>& bad() const noexcept {
        return bad_;
    }
    /// How many good ones so far, perhaps not confirmed yet.
    [[nodiscard]] std::size_t written_to(std::size_t partition) const {
        return written_[partition];
    }
    [[nodiscard]] std::vector<std::int64_t> ends() const {
        std::vector<std::int64_t> all;
        for (std::size_t i = 0; i < numbers_.size(); ++i) {
            all.push_back(end_of(i));
        }
        return all;
    }
    /// Without waiting. `done`: how much is worked off.
    void write_ahead_of(std::size_t done) {
        const std::size_t until = std::min(count_, done + count_ / 16);
        for (; next_ < until; ++next_) {
            write(places_[next_], message_of(next_), "m-" + std::to_string(next_));
            ++written_[places_[next_]];
            if (is_followed(next_)) {
                write(places_[next_], "nothing", "bad-" + std::to_string(next_));
            }
        }
        rd_kafka_poll(producer_.native(), 0);
    }

private:
    static bool is_followed(std::size_t number) { return number % 1'000 == 500; }
    [[nodiscard]] std::int64_t end_of(std::size_t partition) const {
        return static_cast<std::int64_t>(numbers_[partition].size() + bad_[partition].size());
    }
    void write(std::size_t partition, std::string payload, std::string id) {
        producer_.send({.topic = topic_,
                        .partition = static_cast<std::int32_t>(partition),
                        .key = "account-" + std::to_string(partition),
                        .payload = std::move(payload),
                        .headers = {{"message-id", std::move(id)}}});
    }

    std::string topic_;
    std::vector<std::vector<std::size_t>> numbers_;
    std::vector<std::vector<std::int64_t>> bad_;
    std::vector<std::size_t> places_, written_; // by number; by partition
    std::size_t count_, next_ = 0;
    testing_support::KafkaProducer producer_;
};

/// Whether each that nobody can process is a dead letter, at least once, and nothing else is.
inline ::testing::AssertionResult dead_letters_are_the_bad(const KafkaServer& server,
                                                           const KafkaInput& input) {
    std::size_t expected = 0;
    for (const auto& bad : input.bad()) {
        expected += bad.size();
    }
    std::set<std::string> ids;
    for (const auto& letter : testing_support::read_topic(server, input.topic() + ".dead")) {
        if (letter.payload != "nothing" || letter.header(header::reason) != reason::unprocessable) {
            return ::testing::AssertionFailure()
                   << letter.payload.value_or("")
                   << " is dead: " << letter.header(header::reason).value_or("no reason");
        }
        ids.insert(letter.header("message-id").value_or(""));
    }
    return ids.size() == expected
               ? ::testing::AssertionSuccess()
               : ::testing::AssertionFailure() << ids.size() << " of " << expected;
}

/// A group, seen from beside it.
class KafkaGroup {
public:
    KafkaGroup(const KafkaServer& server,
               std::string group,
               std::string topic,
               std::size_t partitions)
        : group_(std::move(group))
        , topic_(std::move(topic))
        , partitions_(partitions) {
        auto config = server.client();
        config.set("group.id", group_);
        config.set("isolation.level", "read_uncommitted");
        handle_ = std::move(config).make(RD_KAFKA_CONSUMER);
    }
    [[nodiscard]] const std::string& name() const noexcept { return group_; }
    /// Of each partition the next to be read, 0 where there is none; none: the server does not say.
    [[nodiscard]] std::optional<std::vector<std::int64_t>> committed() const {
        const auto asked = detail::kafka_partitions(partitions_);
        for (std::size_t i = 0; i < partitions_; ++i) {
            detail::add_partition(asked, topic_, static_cast<std::int32_t>(i));
        }
        if (rd_kafka_committed(handle_.get(), asked.get(), 2'000) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return {};
        }
        std::vector<std::int64_t> all;
        for (std::size_t i = 0; i < partitions_; ++i) {
            const auto& one = asked->elems[i];
            if (one.err != RD_KAFKA_RESP_ERR_NO_ERROR) {
                return {};
            }
            all.push_back(one.offset < 0 ? 0 : one.offset);
        }
        return all;
    }
    /// How many the server has in it. Throws where it does not say.
    [[nodiscard]] int members() const {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        for (;;) {
            const rd_kafka_group_list* list = nullptr;
            const auto error = rd_kafka_list_groups(handle_.get(), group_.c_str(), &list, 5'000);
            if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
                const int count = list->group_cnt == 1 ? list->groups[0].member_cnt : 0;
                rd_kafka_group_list_destroy(list);
                return count;
            }
            if (std::chrono::steady_clock::now() > until) {
                throw std::runtime_error(std::string("members: ") + rd_kafka_err2str(error));
            }
        }
    }

private:
    std::string group_, topic_;
    std::size_t partitions_;
    detail::KafkaHandle handle_;
};

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_KAFKA_INPUT_HPP
