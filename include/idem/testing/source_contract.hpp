// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_SOURCE_CONTRACT_HPP
#define IDEM_TESTING_SOURCE_CONTRACT_HPP

// The settlement table of semantics.md §7 as a GoogleTest suite: each outcome, and what the broker's
// server shows of the message afterwards. To run over a Source of your own.
//
// Write a harness, made anew for each row with a queue (topic, stream) of its own, and instantiate
// the suite in its namespace:
//
//     struct MyBroker {
//         using Source = MySource;
//         static constexpr bool keeps_order = true;         // of what publish() was given
//         static std::string missing();                     // why it cannot run here; empty: it can
//         void publish(const std::string& id, const std::string& payload); // confirmed, in order
//         std::unique_ptr<Source> source();                 // the group's only consumer
//         std::size_t unsettled();                          // asks the server, while no source lives
//         std::vector<idem::testing::DeadLetter> dead_letters(); // likewise, in their order
//         void take_away(Source&);      // may be missing: what the source gave is no longer its own
//     };
//     namespace idem::testing {
//     INSTANTIATE_TYPED_TEST_SUITE_P(MyBroker, SourceContract, MyBroker);
//     }
//
// `unsettled` is what a new consumer would be given, now or later: uncommitted offsets, pending and
// unread entries, ready messages and those in a retry queue.

#include <idem/testing/source_harness.hpp>

#include <stdexcept>
#include <string>
#include <vector>

namespace idem::inline v0::testing {

template <class Broker>
class SourceContract : public ::testing::Test {
protected:
    void SetUp() override {
        if (const std::string reason = Broker::missing(); !reason.empty()) {
            GTEST_SKIP() << reason;
        }
    }
};
TYPED_TEST_SUITE_P(SourceContract);

TYPED_TEST_P(SourceContract, r7_what_took_effect_is_acked_and_never_given_again) {
    TypeParam broker;
    SettledRows rows;
    rows.add("executed", verdict_with(Status::executed));
    rows.add("replayed", verdict_with(Status::replayed));
    rows.add("skipped", verdict_with(Status::skipped));
    rows.publish(broker);
    rows.run_until_settled(broker, 3);
    EXPECT_EQ(rows.settled(Action::ack), 3U);
    EXPECT_EQ(broker.unsettled(), 0U);
    EXPECT_TRUE(broker.dead_letters().empty());
    EXPECT_EQ(rows.starts("executed"), 1U);
}

TYPED_TEST_P(SourceContract, r7_what_must_be_retried_stays_with_the_broker_and_is_given_again) {
    struct Row {
        std::string id;
        Verdict verdict;
    };
    for (const auto& [id, verdict] :
         {Row{"in progress", verdict_with(Status::in_progress)},
          Row{"failed", failed_with(std::runtime_error("no stock"))},
          Row{"retry later", failed_with(RetryLater(milliseconds{100}))},
          Row{"in doubt", store_failed_with(Fault::in_doubt)},
          Row{"lease lost", store_failed_with(Fault::lease_lost)},
          Row{"unavailable", store_failed_with(Fault::unavailable)}}) {
        TypeParam broker;
        SettledRows rows;
        rows.add(id, verdict);
        rows.publish(broker);
        rows.run_until_started(broker, 1);
        EXPECT_EQ(broker.unsettled(), 1U) << id;
        EXPECT_TRUE(broker.dead_letters().empty()) << id;

        SettledRows again;
        again.add(id, verdict_with(Status::executed));
        again.run_until_settled(broker, 1);
        EXPECT_EQ(again.starts(id), 1U) << id;
        EXPECT_EQ(again.payload(id), rows.payload(id)) << id;
        EXPECT_EQ(broker.unsettled(), 0U) << id;
        EXPECT_TRUE(broker.dead_letters().empty()) << id;
    }
}

TYPED_TEST_P(SourceContract, r7_2_a_retry_is_held_here_and_handled_again_by_this_consumer) {
    TypeParam broker;
    SettledRows rows;
    rows.add("m",
             {failed_with(RetryLater(milliseconds{100})),
              verdict_with(Status::in_progress),
              verdict_with(Status::executed)});
    rows.publish(broker);
    rows.run_until_settled(broker, 1);
    EXPECT_EQ(rows.starts("m"), 3U);
    EXPECT_EQ(rows.settled(Action::ack), 1U);
    EXPECT_EQ(rows.settled(Action::retry), 0U);
    EXPECT_EQ(broker.unsettled(), 0U);
}

TYPED_TEST_P(SourceContract, r7_3_what_no_retry_mends_is_a_dead_letter_with_its_reason) {
    TypeParam broker;
    SettledRows rows;
    auto dead = verdict_with(Status::dead);
    dead.attempts = 3;
    auto spent = verdict_with(Status::refused);
    spent.reason = reason::token_spent;
    auto expired = verdict_with(Status::refused);
    expired.reason = reason::token_expired;
    auto old = verdict_with(Status::invalid);
    old.reason = reason::too_old;
    rows.add("conflict", verdict_with(Status::conflict), reason::conflict);
    rows.add("dead", dead, reason::dead);
    rows.add("parked", verdict_with(Status::parked), reason::parked);
    rows.add("unknown", verdict_with(Status::refused), reason::token_unknown);
    rows.add("spent", spent, reason::token_spent);
    rows.add("expired", expired, reason::token_expired);
    rows.add("invalid", verdict_with(Status::invalid), reason::invalid_key);
    rows.add("old", old, reason::too_old);
    rows.add("unprocessable", failed_with(Unprocessable("no customer")), reason::unprocessable);
    rows.publish(broker);
    rows.run_until_settled(broker, 9);
    EXPECT_EQ(broker.unsettled(), 0U);

    const auto letters = broker.dead_letters();
    ASSERT_EQ(letters.size(), 9U);
    for (std::size_t at = 0; at < letters.size(); ++at) { // in the order of their messages
        const auto& id = rows.ids()[at];
        EXPECT_EQ(letters[at].payload, rows.payload(id)) << id;
        EXPECT_EQ(letters[at].header(header::reason), rows.reason_of(id)) << id;
        EXPECT_EQ(letters[at].header(header::attempts), id == "dead" ? "3" : "0") << id;
        EXPECT_NE(letters[at].header(header::origin), "") << id;
    }
    EXPECT_EQ(letters[8].header(header::detail), "no customer");
}

TYPED_TEST_P(SourceContract, r7_rejected_stops_the_loop_and_settles_nothing) {
    TypeParam broker;
    SettledRows rows;
    rows.add("m", store_failed_with(Fault::rejected));
    rows.publish(broker);
    EXPECT_THROW(rows.run_until_settled(broker, 1), StoreError);
    EXPECT_EQ(rows.settled_at_all(), 0U);
    EXPECT_EQ(broker.unsettled(), 1U);
    EXPECT_TRUE(broker.dead_letters().empty());

    SettledRows again;
    again.add("m", verdict_with(Status::executed));
    again.run_until_settled(broker, 1);
    EXPECT_EQ(again.starts("m"), 1U);
    EXPECT_EQ(broker.unsettled(), 0U);
}

TYPED_TEST_P(SourceContract, r9_8_order_is_kept_where_it_is_promised) {
    if constexpr (TypeParam::keeps_order) {
        TypeParam broker;
        SettledRows rows;
        rows.add("1", verdict_with(Status::executed));
        rows.add("2", {failed_with(RetryLater(milliseconds{100})), verdict_with(Status::executed)});
        rows.add("3", verdict_with(Status::conflict), reason::conflict);
        rows.add("4", {verdict_with(Status::in_progress), verdict_with(Status::executed)});
        rows.add("5", verdict_with(Status::executed));
        rows.publish(broker);
        rows.run_until_settled(broker, 5);
        EXPECT_EQ(rows.order(), (std::vector<std::string>{"1", "2", "2", "3", "4", "4", "5"}));
        EXPECT_EQ(broker.unsettled(), 0U);
    } else {
        GTEST_SKIP() << "the broker promises no order";
    }
}

TYPED_TEST_P(SourceContract, r9_2_of_many_mixed_nothing_is_lost_and_nothing_left) {
    TypeParam broker;
    SettledRows rows;
    std::size_t letters = 0;
    for (int number = 0; number < 200; ++number) {
        const auto id = "m-" + std::to_string(number);
        if (number % 7 == 3) {
            rows.add(id, verdict_with(Status::conflict), reason::conflict);
            ++letters;
        } else if (number % 41 == 5) {
            rows.add(id,
                     {failed_with(RetryLater(milliseconds{100})), verdict_with(Status::executed)});
        } else {
            rows.add(id, verdict_with(number % 2 == 0 ? Status::executed : Status::replayed));
        }
    }
    rows.publish(broker);
    rows.run_until_settled(broker, 200, {.concurrency = 2});
    EXPECT_EQ(rows.settled(Action::ack), 200 - letters);
    EXPECT_EQ(rows.settled(Action::dead_letter), letters);
    EXPECT_EQ(broker.dead_letters().size(), letters);
    EXPECT_EQ(broker.unsettled(), 0U);
}

TYPED_TEST_P(SourceContract, r9_14_a_delivery_is_settled_once) {
    TypeParam broker;
    broker.publish("a", "body of a");
    broker.publish("b", "body of b");
    {
        const auto source = broker.source();
        auto given = receive_until(*source, 2);
        ASSERT_EQ(given.size(), 2U);
        const Settlement ack, letter{Action::dead_letter, milliseconds{0}, reason::conflict};
        EXPECT_EQ(source->settle(given[0], ack), Settled::yes);
        EXPECT_EQ(source->settle(given[0], letter), Settled::lost);
        EXPECT_EQ(source->settle(given[1], letter), Settled::yes);
        EXPECT_EQ(source->settle(given[1], letter), Settled::lost);
    }
    EXPECT_EQ(broker.unsettled(), 0U);
    EXPECT_EQ(broker.dead_letters().size(), 1U);
}

TYPED_TEST_P(SourceContract, r7_6_what_was_taken_away_is_lost_whatever_is_asked) {
    if constexpr (requires(TypeParam & broker, typename TypeParam::Source & source) {
                      broker.take_away(source);
                  }) {
        TypeParam broker;
        broker.publish("m", "body of m");
        {
            const auto source = broker.source();
            auto given = receive_until(*source, 1);
            ASSERT_EQ(given.size(), 1U);
            broker.take_away(*source);
            EXPECT_FALSE(source->extend(given[0], milliseconds{1'000}));
            EXPECT_EQ(source->settle(given[0], Settlement{}), Settled::lost);
        }
        EXPECT_EQ(broker.unsettled(), 1U);
        EXPECT_TRUE(broker.dead_letters().empty());
    } else {
        GTEST_SKIP() << "the harness cannot take a delivery away";
    }
}

REGISTER_TYPED_TEST_SUITE_P(SourceContract,
                            r7_what_took_effect_is_acked_and_never_given_again,
                            r7_what_must_be_retried_stays_with_the_broker_and_is_given_again,
                            r7_2_a_retry_is_held_here_and_handled_again_by_this_consumer,
                            r7_3_what_no_retry_mends_is_a_dead_letter_with_its_reason,
                            r7_rejected_stops_the_loop_and_settles_nothing,
                            r9_8_order_is_kept_where_it_is_promised,
                            r9_2_of_many_mixed_nothing_is_lost_and_nothing_left,
                            r9_14_a_delivery_is_settled_once,
                            r7_6_what_was_taken_away_is_lost_whatever_is_asked);

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_SOURCE_CONTRACT_HPP
