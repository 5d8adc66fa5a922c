// SPDX-License-Identifier: MIT
// Every shape of handler and key function that wrap() takes, and what is known of it at compile
// time.

#include <idem/consumer.hpp>
#include <idem/store/memory.hpp>
#include <idem/strategy/at_most_once.hpp>
#include <idem/strategy/dedup_table.hpp>
#include <idem/strategy/distributed_lock.hpp>
#include <idem/strategy/naturally_idempotent.hpp>
#include <idem/strategy/one_time_token.hpp>

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "strategy/scripted_table.hpp"

namespace {

using idem::Covers;
using idem::Guarantee;
using idem::Identity;
using idem::Lease;
using idem::Status;
using Tx = ScriptedTable::Transaction;

struct Message { // a base, as &Order::id names it
    std::string id;
};
struct Order : Message {
    int number = 0;
    [[nodiscard]] std::string business_id() const { return "order:" + id; }
};

std::string free_handler(const Order& order) {
    return "free " + order.id;
}
std::string free_key(const Order& order) {
    return order.id;
}

class HandlerShapes : public ::testing::Test {
protected:
    /// Handles the message twice, and gives the value back if it ran once.
    template <class Handler>
    auto once(const Handler& handler, const Order& order) {
        auto outcome = handler(order);
        EXPECT_EQ(outcome.status(), Status::executed);
        EXPECT_EQ(handler(order).status(), Status::replayed);
        return std::move(outcome).value();
    }

    idem::MemoryStore store_;
    ScriptedTable table_;
    idem::IdempotentConsumer<idem::MemoryStore, idem::DistributedLock> leased_{store_, {}};
    idem::IdempotentConsumer<ScriptedTable, idem::DedupTable> joined_{table_, {}};
    const Order order_{{"m-1"}, 7};
};

TEST_F(HandlerShapes, functions_lambdas_copies_and_references) {
    EXPECT_EQ(once(leased_.wrap("1", &free_key, &free_handler), order_), "free m-1");
    EXPECT_EQ(once(leased_.wrap("2", free_key, free_handler), order_), "free m-1");
    auto by_value = [](Order order) { return std::move(order.id); };
    EXPECT_EQ(once(leased_.wrap("3", &Order::id, by_value), order_), "m-1");
    EXPECT_EQ(once(leased_.wrap("4", &Order::id, [](const Order& o) noexcept { return o.number; }),
                   order_),
              7);
    EXPECT_EQ(
        once(leased_.wrap("5",
                          &Order::id,
                          [](const Order& o, Lease& held) { return o.id.size() + held.attempt(); }),
             order_),
        4U);
    EXPECT_EQ(
        once(leased_.wrap("6", &Order::id, [](const Order&, const Lease&) { return 1; }), order_),
        1);
}

TEST_F(HandlerShapes, the_message_is_the_handlers_and_not_the_base_that_an_inherited_member_names) {
    const auto bill = leased_.wrap("billing", &Order::id, [](const Order& o) { return o.number; });
    static_assert(std::is_same_v<std::remove_const_t<decltype(bill)>::message_type, Order>);
    EXPECT_EQ(once(bill, order_), 7);
}

TEST_F(HandlerShapes, keys_may_be_members_member_functions_numbers_and_identities) {
    EXPECT_EQ(once(leased_.wrap("1", &Order::number, [](const Order& o) { return o.id; }), order_),
              "m-1");
    EXPECT_EQ(
        once(leased_.wrap("2", &Order::business_id, [](const Order& o) { return o.id; }), order_),
        "m-1");
    EXPECT_EQ(once(leased_.wrap(
                       "3",
                       [](const Order& o) { return "p:" + o.id; },
                       [](const Order& o) { return o.id; }),
                   order_),
              "m-1");
    EXPECT_EQ(once(leased_.wrap(
                       "4",
                       [](const Order& o) -> std::string_view { return o.id; },
                       [](const Order& o) { return o.id; }),
                   order_),
              "m-1");
    EXPECT_EQ(once(leased_.wrap(
                       "5",
                       [](const Order& o) -> const std::string& { return o.id; },
                       [](const Order& o) { return o.id; }),
                   order_),
              "m-1");
    EXPECT_EQ(once(leased_.wrap(
                       "6",
                       [](const Order& o) { return Identity{.id = "p:" + o.id}; },
                       [](const Order& o) { return o.id; }),
                   order_),
              "m-1");
}

TEST_F(HandlerShapes, a_generic_handler_takes_its_message_from_the_key_function) {
    const auto bill = leased_.wrap(
        "billing",
        [](const Order& o) { return o.id; },
        [](const auto& order) { return order.number; });
    static_assert(std::is_same_v<std::remove_const_t<decltype(bill)>::message_type, Order>);
    EXPECT_EQ(once(bill, order_), 7);
}

TEST_F(HandlerShapes, a_named_message_serves_generic_handlers_and_keys) {
    const auto bill = leased_.wrap<Order>(
        "billing",
        [](const auto& order) { return order.id; },
        [](const auto& order) { return order.number; });
    EXPECT_EQ(once(bill, order_), 7);
}

TEST_F(HandlerShapes, a_generic_context_is_given_the_context) {
    const auto bill = joined_.wrap("billing", &Order::number, [](const Order& order, auto& tx) {
        tx.write(order.id);
        return order.number;
    });
    static_assert(decltype(bill)::takes_context);
    EXPECT_EQ(once(bill, order_), 7);
    EXPECT_EQ(table_.effects("m-1"), 1U);
}

TEST_F(HandlerShapes, move_only_handlers_keys_and_captures) {
    auto owned = std::make_unique<int>(35);
    const auto bill = leased_.wrap(
        "billing",
        [prefix = std::make_unique<std::string>("p:")](const Order& o) { return *prefix + o.id; },
        [owned = std::move(owned)](const Order& o) { return *owned + o.number; });
    EXPECT_EQ(once(bill, order_), 42);
}

template <class H>
concept CallableConst = requires(const H& handler, const Order& order) {
    handler(order);
};
template <class H>
concept Handles = requires(const H& handler, const Order& order) {
    handler.handle(order);
};

TEST_F(HandlerShapes, a_mutable_handler_has_no_const_call) {
    auto bill =
        leased_.wrap("billing", &Order::id, [runs = 0](const Order&) mutable { return ++runs; });
    using Bill = decltype(bill);
    static_assert(!Bill::shareable && !CallableConst<Bill> && !Handles<Bill>);
    EXPECT_EQ(bill(order_).value(), 1);
    EXPECT_EQ(bill(Order{{"m-2"}}).value(), 2);
    EXPECT_EQ(bill(order_).value(), 1) << "replayed";
}

TEST_F(HandlerShapes, void_handlers_have_a_value_that_says_done) {
    const auto bill = leased_.wrap("billing", &Order::id, [](const Order&) {});
    EXPECT_TRUE(bill(order_).has_value());
    EXPECT_TRUE(bill(order_).has_value());
    EXPECT_NO_THROW(bill(order_).value());
}

TEST_F(HandlerShapes, a_result_by_reference_is_kept_by_value) {
    std::string receipt = "receipt";
    const auto bill = leased_.wrap(
        "billing", &Order::id, [&](const Order&) -> const std::string& { return receipt; });
    static_assert(std::is_same_v<decltype(bill)::result_type, std::string>);
    const auto first = bill(order_);
    receipt = "changed";
    EXPECT_EQ(first.value(), "receipt");
    EXPECT_EQ(bill(order_).value(), "receipt");
}

TEST_F(HandlerShapes, a_wrapped_handler_moves_and_copies) {
    auto bill = leased_.wrap("billing", &Order::id, [](const Order& o) { return o.number; });
    auto copy = bill;
    const auto moved = std::move(bill);
    EXPECT_EQ(moved(order_).status(), Status::executed);
    EXPECT_EQ(copy(order_).status(), Status::replayed) << "one scope";
}

TEST_F(HandlerShapes, one_call_without_a_message_type) {
    int runs = 0;
    for (int delivery = 0; delivery < 2; ++delivery) {
        EXPECT_EQ(leased_("billing", order_.id, [&] { return ++runs; }).value(), 1);
        EXPECT_EQ(leased_("by number", 7, [&] { return 5; }).value(), 5);
        EXPECT_EQ(leased_("by identity",
                          Identity{.id = "p:" + order_.id},
                          [&](Lease& held) { return held.attempt(); })
                      .value(),
                  1U);
        auto charge = joined_("billing", "m-1", [](Tx& tx) { tx.write("charge"); });
        EXPECT_TRUE(charge.has_value());
    }
    EXPECT_EQ(table_.effects("charge"), 1U);
    EXPECT_EQ(leased_("a mutable one", 1, [runs = 0]() mutable { return ++runs; }).value(), 1);
}

TEST_F(HandlerShapes, two_scopes_of_one_message_never_share_a_record) {
    int billed = 0;
    int shipped = 0;
    const auto bill = leased_.wrap("billing", &Order::id, [&](const Order&) { ++billed; });
    const auto ship = leased_.wrap("shipping", &Order::id, [&](const Order&) { ++shipped; });
    EXPECT_EQ(bill(order_).status(), Status::executed);
    EXPECT_EQ(ship(order_).status(), Status::executed);
    EXPECT_EQ(billed + shipped, 2);
}

TEST_F(HandlerShapes, an_empty_or_too_long_scope_is_refused_by_wrap) {
    auto nothing = [](const Order&) {};
    EXPECT_THROW(static_cast<void>(leased_.wrap("", &Order::id, nothing)), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(leased_.wrap(std::string(129, 's'), &Order::id, nothing)),
                 std::invalid_argument);
}

// ---- what is promised

template <class Consumer, class Handler>
using Wrapped = decltype(std::declval<const Consumer&>().wrap(
    "s", std::declval<std::string Message::*>(), std::declval<Handler>()));

struct WithTx {
    void operator()(const Order&, Tx&) const {}
};
struct WithLease {
    void operator()(const Order&, Lease&) const {}
};
struct WithFence {
    void operator()(const Order&, idem::RowFence&) const {}
};
struct Alone {
    void operator()(const Order&) const {}
};

using Joined = idem::IdempotentConsumer<ScriptedTable, idem::DedupTable>;
using Leased = idem::IdempotentConsumer<idem::MemoryStore, idem::DistributedLock>;
using Token = idem::IdempotentConsumer<idem::MemoryStore, idem::OneTimeToken>;
using Natural = idem::IdempotentConsumer<idem::NoStore, idem::NaturallyIdempotent>;
using AtMost = idem::IdempotentConsumer<idem::MemoryStore, idem::AtMostOnce>;

static_assert(Wrapped<Joined, WithTx>::guarantee == Guarantee::effectively_once);
static_assert(Wrapped<Joined, Alone>::guarantee == Guarantee::at_least_once,
              "a handler that never takes the transaction writes elsewhere");
static_assert(Wrapped<Leased, WithLease>::guarantee == Guarantee::at_least_once);
static_assert(Wrapped<Leased, Alone>::guarantee == Guarantee::at_least_once);
static_assert(Wrapped<Token, WithLease>::guarantee == Guarantee::at_least_once);
static_assert(Wrapped<Natural, WithFence>::guarantee == Guarantee::effectively_once);
static_assert(Wrapped<Natural, Alone>::guarantee == Guarantee::at_least_once);
static_assert(Wrapped<AtMost, Alone>::guarantee == Guarantee::at_most_once);

struct PositionKey {
    static constexpr Covers covers = Covers::redelivered;
    std::string operator()(const Order& order) const { return order.id; }
};
static_assert(Wrapped<Joined, WithTx>::covers == Covers::produced_twice);
static_assert(decltype(std::declval<const Joined&>().wrap("s", PositionKey{}, WithTx{}))::covers ==
              Covers::redelivered);

struct Limited : idem::DedupTable {
    static constexpr Covers covers = Covers::redelivered;
};
static_assert(Wrapped<idem::IdempotentConsumer<ScriptedTable, Limited>, WithTx>::covers ==
              Covers::redelivered);

// A strategy of a user's own, in ten lines.
struct LogOnly {
    template <class S>
    using Context = idem::NoContext;
    static constexpr Guarantee guarantee(bool) noexcept { return Guarantee::at_least_once; }
    template <class S>
    idem::Verdict
    run(S&, const idem::Request& request, const idem::Work<idem::NoContext>& work) const {
        idem::NoContext none;
        idem::Verdict verdict;
        verdict.status = work.run(none) ? Status::executed : Status::failed;
        verdict.attempts = static_cast<unsigned>(request.key.id.size());
        return verdict;
    }
};
static_assert(idem::StrategyFor<LogOnly, idem::NoStore>);

TEST_F(HandlerShapes, a_strategy_of_a_users_own) {
    const idem::IdempotentConsumer consumer{idem::no_store, LogOnly{}};
    const auto bill = consumer.wrap("billing", &Order::id, [](const Order& o) { return o.number; });
    EXPECT_EQ(bill(order_).value(), 7);
    EXPECT_EQ(bill(order_).attempts(), 3U);
}

} // namespace
