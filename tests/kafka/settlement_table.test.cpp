// SPDX-License-Identifier: MIT
// The settlement table of semantics.md §7, as a Kafka server shows it.

#include <idem/broker/kafka.hpp>
#include <idem/testing/source_contract.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "support/kafka_records.hpp"
#include "support/kafka_server.hpp"
#include "support/needs.hpp"

namespace {

using idem::testing_support::KafkaServer;
using idem::testing_support::shared_kafka;

std::string fresh() {
    static int made = 0;
    return "orders-" + std::to_string(++made);
}

template <bool ordered>
class KafkaBroker {
public:
    using Source = idem::KafkaSource;
    static constexpr bool keeps_order = ordered;
    static std::string missing() {
        const auto why = KafkaServer::missing();
        if (!why.empty() && idem::testing_support::servers_required()) {
            ADD_FAILURE() << why;
        }
        return why;
    }

    KafkaBroker() { server_.create_topic(topic_); }
    void publish(const std::string& id, const std::string& payload) {
        static idem::testing_support::KafkaProducer producer(shared_kafka());
        producer.write({.topic = topic_, .payload = payload, .headers = {{"message-id", id}}});
        ++published_;
    }
    [[nodiscard]] std::unique_ptr<Source> source() const {
        idem::KafkaOptions options{.servers = server_.address(),
                                   .group = "billing " + topic_,
                                   .topics = {topic_},
                                   .ordered = ordered};
        options.settings = idem::testing_support::kafka_client_settings();
        options.settings.push_back({"session.timeout.ms", "6000"});
        return std::make_unique<Source>(std::move(options));
    }
    /// From the committed offset to the end.
    std::size_t unsettled() {
        const auto next =
            idem::testing_support::committed_offset(server_, "billing " + topic_, topic_);
        return published_ - static_cast<std::size_t>(next < 0 ? 0 : next);
    }
    std::vector<idem::testing::DeadLetter> dead_letters() {
        std::vector<idem::testing::DeadLetter> letters;
        for (const auto& record : idem::testing_support::read_topic(server_, topic_ + ".dead")) {
            idem::testing::DeadLetter letter{record.payload.value_or(""), {}};
            for (const auto& [name, value] : record.headers) {
                letter.headers[name] = value.value_or("");
            }
            letters.push_back(std::move(letter));
        }
        return letters;
    }
    /// Another member joins the group: all partitions are given back, and assigned anew.
    void take_away(Source& source) {
        idem::KafkaSource other({.servers = server_.address(),
                                 .group = "billing " + topic_,
                                 .topics = {topic_},
                                 .settings = idem::testing_support::kafka_client_settings()});
        const auto client = server_.client().make(RD_KAFKA_PRODUCER);
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(90);
        while (!has_two_members(client.get()) && std::chrono::steady_clock::now() < until) {
            static_cast<void>(other.receive(idem::milliseconds{0}, 0));
            static_cast<void>(source.receive(idem::milliseconds{10}, 0));
        }
    }

private:
    bool has_two_members(rd_kafka_t* client) const {
        const rd_kafka_group_list* groups = nullptr;
        if (rd_kafka_list_groups(client, ("billing " + topic_).c_str(), &groups, 10'000) !=
            RD_KAFKA_RESP_ERR_NO_ERROR) {
            return false;
        }
        const bool has = groups->group_cnt == 1 && groups->groups[0].member_cnt == 2 &&
                         std::string(groups->groups[0].state) == "Stable";
        rd_kafka_group_list_destroy(groups);
        return has;
    }
    KafkaServer& server_ = shared_kafka();
    std::string topic_ = fresh();
    std::size_t published_ = 0;
};

} // namespace

namespace idem::inline v0::testing {
INSTANTIATE_TYPED_TEST_SUITE_P(KafkaInOrder, SourceContract, KafkaBroker<true>);
INSTANTIATE_TYPED_TEST_SUITE_P(KafkaAbreast, SourceContract, KafkaBroker<false>);
} // namespace idem::inline v0::testing
