// SPDX-License-Identifier: MIT
// What is kept of a result, what is refused before anything is written, and what the observer is
// told (semantics.md 3.7, 5.1–5.6).

#include <idem/consumer.hpp>
#include <idem/strategy/distributed_lock.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "strategy/came_out.hpp"
#include "strategy/scripted_leases.hpp"

namespace {

using idem::Action;
using idem::DistributedLock;
using idem::Fault;
using idem::Identity;
using idem::milliseconds;
using idem::Status;

struct Order {
    std::string id = "m-1";
};

/// A result whose codec fails where its text says so.
struct Fragile {
    std::string text;
};

} // namespace

template <>
struct idem::Codec<Fragile> {
    static std::string encode(const Fragile& value) {
        if (value.text == "cannot encode") {
            throw std::runtime_error("codec");
        }
        return value.text;
    }
    static Fragile decode(std::string_view bytes) {
        if (bytes == "cannot decode") {
            throw std::runtime_error("codec");
        }
        return {std::string(bytes)};
    }
};

namespace {

struct Seen {
    std::string scope, id;
    Status status;
    bool threw, takeover, omitted, aged;
    std::optional<Fault> fault;
    unsigned attempts;
    idem::seconds retention;
    std::chrono::nanoseconds took;
};

class Log final : public idem::Observer {
public:
    std::vector<Seen> events;
    void on(const idem::Event& event) noexcept override {
        events.push_back({std::string(event.key.scope),
                          std::string(event.key.id),
                          event.status,
                          event.threw,
                          event.takeover,
                          event.result_omitted,
                          event.age.has_value(),
                          event.fault,
                          event.attempts,
                          event.retention,
                          event.took});
    }
};

class Results : public ::testing::Test {
protected:
    template <class Handler>
    auto wrapped(Handler handler, idem::ConsumerOptions options = {}) {
        options.observer = &log_;
        return idem::IdempotentConsumer{store_, DistributedLock{}, options}.wrap(
            "billing", &Order::id, std::move(handler));
    }
    template <class KeyOf>
    auto keyed(KeyOf key_of, idem::ConsumerOptions options = {}) {
        options.observer = &log_;
        return idem::IdempotentConsumer{store_, DistributedLock{}, options}.wrap(
            "billing", std::move(key_of), [this](const Order&) { return ++runs_; });
    }

    Log log_;
    PowerfulLeases store_;
    int runs_ = 0;
};

// ---- what is kept

TEST_F(Results, r5_4_a_codec_that_throws_never_reruns_the_handler) {
    const auto bill = wrapped([this](const Order&) {
        ++runs_;
        return Fragile{"cannot encode"};
    });
    const auto first = bill(Order{});
    EXPECT_EQ(first.status(), Status::executed);
    EXPECT_EQ(first.value().text, "cannot encode") << "the caller still has the value";
    EXPECT_TRUE(log_.events.at(0).omitted) << "the observer is told";
    const auto again = bill(Order{});
    EXPECT_EQ(again.status(), Status::skipped);
    EXPECT_EQ(again.settlement().action, Action::ack);
    EXPECT_THROW(static_cast<void>(again.value()), idem::ResultUnavailable);
    EXPECT_EQ(runs_, 1);
    EXPECT_EQ(store_.script.count("abandon"), 0U);
}

TEST_F(Results, r5_4_a_result_over_the_limit_is_executed_and_its_duplicate_skipped) {
    const auto bill =
        wrapped([](const Order& order) { return std::string(order.id == "fits" ? 10 : 11, 'x'); },
                {.max_result = 10});
    EXPECT_EQ(bill(Order{"fits"}).value().size(), 10U);
    EXPECT_EQ(bill(Order{"fits"}).value().size(), 10U);
    EXPECT_FALSE(log_.events.back().omitted);
    EXPECT_EQ(bill(Order{"too long"}).value().size(), 11U);
    EXPECT_TRUE(log_.events.back().omitted);
    EXPECT_EQ(bill(Order{"too long"}).status(), Status::skipped);
}

TEST_F(Results, r5_4_a_result_that_no_longer_decodes_is_replayed_acked_and_never_rerun) {
    const auto bill = wrapped([this](const Order&) {
        ++runs_;
        return Fragile{"cannot decode"};
    });
    static_cast<void>(bill(Order{}));
    const auto again = bill(Order{});
    EXPECT_EQ(again.status(), Status::replayed);
    EXPECT_EQ(again.settlement().action, Action::ack);
    EXPECT_FALSE(again.has_value());
    EXPECT_THROW(static_cast<void>(again.value()), idem::ResultUnavailable);
    EXPECT_EQ(runs_, 1);
}

TEST_F(Results, r5_4_another_result_type_replays_without_a_value) {
    const auto text = wrapped([](const Order&) { return std::string("not a number"); });
    const auto number = wrapped([](const Order&) { return 7; });
    const auto nothing = wrapped([](const Order&) {});
    static_cast<void>(text(Order{"text"}));
    nothing(Order{"void"}).value();
    EXPECT_EQ(number(Order{"text"}).status(), Status::replayed);
    EXPECT_FALSE(number(Order{"text"}).has_value());
    EXPECT_FALSE(number(Order{"void"}).has_value());
    EXPECT_FALSE(text(Order{"void"}).has_value()) << "void is no empty string";
    EXPECT_EQ(number(Order{"void"}).settlement().action, Action::ack);
    EXPECT_TRUE(nothing(Order{"text"}).has_value());
}

TEST_F(Results, r5_4_empty_results_and_any_bytes_replay) {
    using namespace std::string_literals;
    for (const auto& text : {""s, "\0"s, "\1"s, "\xff\0"s}) {
        const Order order{"m-" + text};
        const auto bill = wrapped([&](const Order&) { return text; });
        EXPECT_EQ(bill(order).status(), Status::executed);
        EXPECT_EQ(bill(order).status(), Status::replayed);
        EXPECT_EQ(bill(order).value(), text);
    }
}

TEST_F(Results, r3_6_a_refusal_that_is_final_is_a_plain_value_and_replays) {
    const auto bill = wrapped([this](const Order&) {
        ++runs_;
        return std::string("card declined");
    });
    EXPECT_EQ(bill(Order{}).value(), "card declined");
    EXPECT_EQ(bill(Order{}).value(), "card declined");
    EXPECT_EQ(runs_, 1);
}

// ---- what is refused before anything is written

TEST_F(Results, r5_1_a_missing_or_too_long_id_is_invalid_and_asks_the_store_nothing) {
    const auto bill = wrapped([this](const Order&) { ++runs_; });
    for (const auto& id : {std::string(), std::string(1'025, 'x')}) {
        const auto outcome = bill(Order{id});
        EXPECT_EQ(outcome.status(), Status::invalid);
        EXPECT_EQ(outcome.settlement().action, Action::dead_letter);
        EXPECT_EQ(outcome.settlement().reason, idem::reason::invalid_key);
        EXPECT_NE(outcome.settlement().detail.find("id"), std::string::npos);
        EXPECT_EQ(log_.events.back().status, Status::invalid);
    }
    EXPECT_EQ(bill(Order{std::string(1'024, 'x')}).status(), Status::executed);
    EXPECT_EQ(runs_, 1);
    EXPECT_EQ(store_.script.count("claim"), 1U);
}

TEST_F(Results, r5_6_a_message_older_than_the_retention_is_too_old) {
    const auto now = std::chrono::floor<milliseconds>(std::chrono::system_clock::now());
    idem::Timestamp created = now - std::chrono::hours(2);
    const auto bill =
        keyed([&](const Order& order) { return Identity{.id = order.id, .created = created}; },
              {.retention = std::chrono::hours(1)});
    const auto outcome = bill(Order{});
    EXPECT_EQ(outcome.status(), Status::invalid);
    EXPECT_EQ(outcome.settlement().reason, idem::reason::too_old);
    EXPECT_EQ(outcome.settlement().action, Action::dead_letter);
    EXPECT_EQ(store_.script.calls(), "");
    created = now - std::chrono::minutes(50);
    EXPECT_EQ(bill(Order{}).status(), Status::executed);
    created = now + std::chrono::hours(24);
    EXPECT_EQ(bill(Order{"m-2"}).status(), Status::executed) << "a producer's clock ahead of ours";
    EXPECT_EQ(runs_, 2);
}

TEST_F(Results, r5_3_another_payload_is_conflict_and_does_not_run) {
    std::string payload = "first";
    const auto bill = keyed([&](const Order& order) {
        return Identity{.id = order.id, .fingerprint = idem::fingerprint_of(payload)};
    });
    EXPECT_EQ(bill(Order{}).status(), Status::executed);
    payload = "second";
    const auto conflict = bill(Order{});
    EXPECT_EQ(conflict.status(), Status::conflict);
    EXPECT_EQ(conflict.settlement().action, Action::dead_letter);
    payload = "first";
    EXPECT_EQ(bill(Order{}).value(), 1);
    EXPECT_EQ(runs_, 1);
}

TEST_F(Results, what_a_key_function_throws_comes_out_and_settles) {
    const struct {
        std::exception_ptr error;
        Action action;
    } rows[] = {{std::make_exception_ptr(std::runtime_error("no id")), Action::retry},
                {std::make_exception_ptr(idem::RetryLater(milliseconds{5})), Action::retry},
                {std::make_exception_ptr(idem::Unprocessable("no id")), Action::dead_letter}};
    for (const auto& row : rows) {
        const auto bill =
            keyed([&](const Order&) -> std::string { std::rethrow_exception(row.error); });
        EXPECT_ANY_THROW(static_cast<void>(bill(Order{})));
        EXPECT_EQ(bill.handle(Order{}).settlement().action, row.action);
    }
    EXPECT_EQ(runs_, 0);
    EXPECT_EQ(store_.script.calls(), "");
}

TEST_F(Results, facts_fill_what_the_key_function_left_open_and_no_more) {
    const auto old = std::chrono::floor<milliseconds>(std::chrono::system_clock::now()) -
                     std::chrono::hours(24 * 30);
    const Identity facts{
        .id = "of the broker", .fingerprint = idem::fingerprint_of("raw"), .created = old};
    const auto plain = keyed(&Order::id);
    EXPECT_EQ(plain.handle(Order{}, {}, facts).settlement().reason, idem::reason::too_old);

    Identity fresh{.id = "of the broker", .fingerprint = idem::fingerprint_of("raw")};
    EXPECT_EQ(plain.handle(Order{}, {}, fresh).status(), Status::executed);
    fresh.fingerprint = idem::fingerprint_of("changed");
    EXPECT_EQ(plain.handle(Order{}, {}, fresh).status(), Status::conflict)
        << "the id is the message's";

    const auto own = keyed([](const Order& order) {
        return Identity{.id = order.id, .fingerprint = idem::fingerprint_of("own")};
    });
    EXPECT_EQ(own.handle(Order{"m-2"}, {}, fresh).status(), Status::executed);
    fresh.fingerprint = idem::fingerprint_of("raw");
    EXPECT_EQ(own.handle(Order{"m-2"}, {}, fresh).status(), Status::replayed);
}

// ---- what the observer is told

TEST_F(Results, the_observer_is_told_of_every_call_once) {
    bool fails = true;
    const auto bill = wrapped(
        [&](const Order&) {
            if (fails) {
                throw std::runtime_error("no stock");
            }
        },
        {.retention = idem::seconds{1'000}});
    static_cast<void>(bill.handle(Order{}));
    EXPECT_THROW(static_cast<void>(bill(Order{})), std::runtime_error);
    fails = false;
    static_cast<void>(bill(Order{}));
    static_cast<void>(bill(Order{}));
    store_.script.forget_calls();
    store_.script.fail({"claim", 1, fault(Fault::unavailable)});
    static_cast<void>(bill.handle(Order{}));
    ASSERT_EQ(log_.events.size(), 5U);
    const auto& events = log_.events;
    EXPECT_EQ(events[0].status, Status::failed);
    EXPECT_TRUE(events[0].threw);
    EXPECT_FALSE(events[0].fault.has_value());
    EXPECT_EQ(events[0].attempts, 1U);
    EXPECT_EQ(events[0].scope, "billing");
    EXPECT_EQ(events[0].id, "m-1");
    EXPECT_EQ(events[0].retention, idem::seconds{1'000});
    EXPECT_EQ(events[1].attempts, 2U);
    EXPECT_EQ(events[2].status, Status::executed);
    EXPECT_FALSE(events[2].threw);
    EXPECT_FALSE(events[2].aged);
    EXPECT_GT(events[2].took, std::chrono::nanoseconds{0});
    EXPECT_EQ(events[3].status, Status::replayed);
    EXPECT_TRUE(events[3].aged) << "age of the record: evidence for the retention";
    EXPECT_EQ(events[4].status, Status::failed);
    EXPECT_EQ(events[4].fault, Fault::unavailable);
    EXPECT_FALSE(events[4].threw) << "the store, not the handler";
}

TEST_F(Results, the_observer_is_told_of_a_takeover) {
    static_cast<void>(store_.memory.claim({.key = {"billing", "m-1"}}));
    VirtualClock::advance(milliseconds{30'000});
    static_cast<void>(wrapped([](const Order&) {})(Order{}));
    EXPECT_TRUE(log_.events.at(0).takeover);
}

TEST_F(Results, a_nested_stores_failure_is_told_as_the_handlers) {
    const auto bill = wrapped(
        [](const Order&) { throw idem::StoreError(Fault::unavailable, "the other store"); });
    const auto outcome = bill.handle(Order{});
    EXPECT_TRUE(log_.events.at(0).threw);
    EXPECT_FALSE(log_.events.at(0).fault.has_value());
    EXPECT_EQ(outcome.settlement().reason, idem::reason::handler_failed);
}

TEST_F(Results, r3_1_leases_and_limits_reach_the_store) {
    PowerfulLeases other;
    const auto bill = idem::IdempotentConsumer{
        other,
        DistributedLock{.lease = milliseconds{12'345}},
        {.retention = idem::seconds{
             60}}}.wrap("billing", &Order::id, [&](const Order& order, idem::Lease& held) {
        EXPECT_LE(held.remaining(), milliseconds{12'345});
        EXPECT_GT(held.remaining(), milliseconds{10'000});
        const auto busy = other.memory.claim({.key = {"billing", order.id}});
        EXPECT_EQ(std::get<idem::InProgress>(busy).retry_after, milliseconds{12'345});
    });
    EXPECT_EQ(bill(Order{}).status(), Status::executed);
    VirtualClock::advance(std::chrono::seconds{61});
    EXPECT_EQ(other.memory.claim({.key = {"billing", "m-1"}}).index(), 0U) << "past its retention";
}

} // namespace
