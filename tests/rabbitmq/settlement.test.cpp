// SPDX-License-Identifier: MIT
// The settlement table of semantics.md 7 through idem::run: what the server shows afterwards.
#include <tuple>

#include "broker/settlement_rows.hpp"
#include "queue.hpp"

namespace idem::rabbitmq_tests {
namespace {

using broker_tests::Answering;
using broker_tests::Row;
using broker_tests::rows;

class SettlementTable : public ::testing::TestWithParam<std::tuple<std::string, Row>> {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RabbitServer::missing()); }

    /// The copies of the one message in all retry queues.
    static std::vector<RabbitLetter> in_retry(Queue& queue) {
        std::vector<RabbitLetter> found;
        for (const auto delay : detail::rabbit_retry_delays) {
            const auto name = queue.name + ".idem-retry-" + std::to_string(delay);
            if (RabbitSession::has(queue.address, name)) {
                for (auto& letter : queue.rabbit.drain(name)) {
                    found.push_back(std::move(letter));
                }
            }
        }
        return found;
    }
};

TEST_P(SettlementTable, r7_is_what_the_server_shows) {
    const auto& [type, row] = GetParam();
    Queue queue(type);
    queue.add({.body = "body", .message_id = "m"});
    {
        RabbitSource source(queue.address, queue.options());
        std::stop_source stop;
        const Answering handler{row.verdict, &stop};
        if (row.action == Action::stop) {
            EXPECT_THROW(run(source, handler, stop.get_token()), StoreError);
        } else {
            run(source, handler, stop.get_token());
        }
    }
    const auto dead = queue.dead();
    switch (row.action) {
    case Action::ack:
        EXPECT_EQ(queue.ready(), 0U);
        EXPECT_TRUE(dead.empty());
        break;
    case Action::dead_letter:
        EXPECT_EQ(queue.ready(), 0U);
        ASSERT_EQ(dead.size(), 1U);
        EXPECT_EQ(dead[0].headers.at("idem-reason"), row.reason);
        EXPECT_EQ(dead[0].headers.at("idem-origin"), queue.name);
        EXPECT_EQ(dead[0].body, "body");
        EXPECT_EQ(dead[0].message_id, "m");
        break;
    case Action::retry: { // in the queue, or on its way back to it: once
        EXPECT_TRUE(dead.empty());
        auto left = in_retry(queue);
        if (left.empty()) {
            EXPECT_EQ(queue.ready_becomes(1), 1U);
            left = queue.drain();
        }
        ASSERT_EQ(left.size(), 1U);
        EXPECT_EQ(left[0].message_id, "m");
        break;
    }
    case Action::stop: {
        EXPECT_EQ(queue.ready_becomes(1), 1U);
        EXPECT_TRUE(dead.empty());
        EXPECT_TRUE(in_retry(queue).empty());
        break;
    }
    }
}

INSTANTIATE_TEST_SUITE_P(Rabbit,
                         SettlementTable,
                         ::testing::Combine(::testing::Values("classic", "quorum"),
                                            ::testing::ValuesIn(rows())),
                         [](const auto& each) {
                             return std::get<0>(each.param) + '_' + std::get<1>(each.param).name;
                         });

} // namespace
} // namespace idem::rabbitmq_tests
