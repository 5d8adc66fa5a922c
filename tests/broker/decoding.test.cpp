// SPDX-License-Identifier: MIT
// From a delivery to the message that a wrapped handler takes.
#include <idem/idem.hpp>

#include "scripted_source.hpp"

namespace idem::broker_tests {
namespace {

struct Order {
    std::string id;
    int cents = 0;
};

/// A delivery as an adapter makes it.
struct Full {
    std::string key, body;
    std::optional<Timestamp> created{};
    std::optional<Position> at{};
    bool redelivered = false;

    [[nodiscard]] std::string_view payload() const { return body; }
    [[nodiscard]] std::optional<std::string_view> header(std::string_view) const { return {}; }
    [[nodiscard]] Identity identity() const {
        return {.id = Id(std::string_view(key)),
                .fingerprint = fingerprint_of(body),
                .created = created,
                .position = at,
                .redelivered = redelivered};
    }
};
static_assert(KeyedDelivery<Full> && KeyedDelivery<Delivery>);

/// `id cents`; the words throw.
Order parse(const Full& delivery) {
    const auto text = delivery.body;
    if (text == "later") {
        throw RetryLater(7s);
    }
    if (text == "never") {
        throw Unprocessable("an old format");
    }
    const auto space = text.find(' ');
    if (space == std::string::npos) {
        throw std::invalid_argument("no space in it");
    }
    return {text.substr(0, space), std::stoi(text.substr(space))};
}

struct Billing {
    MemoryStore store;
    IdempotentConsumer<MemoryStore, DistributedLock> consumer{store, DistributedLock{}};
    std::vector<std::string> billed;
};

TEST(Decoding, what_does_not_decode_is_dead_lettered_with_what_the_decoder_said) {
    Billing b;
    const auto handler =
        decoding(parse, b.consumer.wrap("billing", &Order::id, [&](const Order& order) {
            b.billed.push_back(order.id);
        }));
    const auto outcome = handler.handle(Full{.key = "a", .body = "nonsense"}, {});
    EXPECT_EQ(outcome.status(), Status::invalid);
    const auto told = outcome.settlement();
    EXPECT_EQ(told.action, Action::dead_letter);
    EXPECT_EQ(told.reason, reason::undecodable);
    EXPECT_EQ(told.detail, "no space in it");
    EXPECT_TRUE(b.billed.empty());
}

TEST(Decoding, r3_5_a_decoder_may_ask_for_later_or_refuse) {
    Billing b;
    const auto handler =
        decoding(parse, b.consumer.wrap("billing", &Order::id, [&](const Order&) {}));
    const auto later = handler.handle(Full{.key = "a", .body = "later"}, {}).settlement();
    EXPECT_EQ(later.action, Action::retry);
    EXPECT_EQ(later.delay, 7s);
    const auto never = handler.handle(Full{.key = "a", .body = "never"}, {}).settlement();
    EXPECT_EQ(never.action, Action::dead_letter);
    EXPECT_EQ(never.reason, reason::unprocessable);
    EXPECT_EQ(never.detail, "an old format");
}

TEST(Decoding, the_raw_payload_s_fingerprint_survives) {
    Billing b;
    const auto handler =
        decoding(parse, b.consumer.wrap("billing", &Order::id, [&](const Order& order) {
            b.billed.push_back(order.id);
        }));
    EXPECT_EQ(handler.handle(Full{.key = "a", .body = "o1 100"}, {}).status(), Status::executed);
    EXPECT_EQ(handler.handle(Full{.key = "b", .body = "o1 100"}, {}).status(), Status::replayed);
    EXPECT_EQ(handler.handle(Full{.key = "c", .body = "o1 101"}, {}).status(), Status::conflict);
    EXPECT_EQ(b.billed, Ids{"o1"});
}

TEST(Decoding, r5_6_the_creation_time_survives) {
    Billing b;
    const auto handler =
        decoding(parse, b.consumer.wrap("billing", &Order::id, [&](const Order&) {}));
    const auto outcome =
        handler.handle(Full{.key = "a", .body = "o1 1", .created = Timestamp(1s)}, {});
    EXPECT_EQ(outcome.status(), Status::invalid);
    EXPECT_EQ(outcome.settlement().reason, reason::too_old);
}

TEST(Decoding, a_handler_class_that_takes_no_facts_is_called_without) {
    struct Plain {
        [[nodiscard]] Outcome<void> handle(const Order& order,
                                           const std::stop_token&) const noexcept {
            return Outcome<void>(verdict(order.cents == 5 ? Status::executed : Status::conflict));
        }
    };
    const auto handler = decoding(parse, Plain{});
    EXPECT_EQ(handler.handle(Full{.key = "a", .body = "o1 5"}, {}).status(), Status::executed);
}

TEST(Decoding, a_batch_leaves_out_what_does_not_decode) {
    Billing b;
    const auto handler =
        decoding(parse, b.consumer.wrap("billing", &Order::id, [&](const Order& order) {
            b.billed.push_back(order.id);
        }));
    const std::vector<Full> deliveries{{.key = "a", .body = "o1 1"},
                                       {.key = "b", .body = "nonsense"},
                                       {.key = "c", .body = "o2 2"},
                                       {.key = "d", .body = "o1 3"}};
    const auto outcomes = handler.batch(std::span<const Full>(deliveries), {});
    ASSERT_EQ(outcomes.size(), 4U);
    EXPECT_EQ(outcomes[0].status(), Status::executed);
    EXPECT_EQ(outcomes[1].settlement().reason, reason::undecodable);
    EXPECT_EQ(outcomes[2].status(), Status::executed);
    EXPECT_EQ(outcomes[3].status(), Status::conflict) << "the facts of a batch are lost";
    EXPECT_EQ(b.billed, (Ids{"o1", "o2"}));
}

TEST(Decoding, r6_9_in_a_batch_nothing_of_a_partition_passes_one_whose_decoder_asked_for_later) {
    Billing b;
    const auto handler =
        decoding(parse, b.consumer.wrap("billing", &Order::id, [&](const Order& order) {
            b.billed.push_back(order.id);
        }));
    std::vector<Full> deliveries{{.key = "a", .body = "later", .at = Position{"p", 1}},
                                 {.key = "b", .body = "o2 2", .at = Position{"p", 2}},
                                 {.key = "c", .body = "o3 3", .at = Position{"q", 1}}};
    const auto outcomes = handler.batch(std::span<const Full>(deliveries), {});
    ASSERT_EQ(outcomes.size(), 3U);
    EXPECT_EQ(outcomes[0].settlement().delay, 7s);
    EXPECT_EQ(outcomes[1].settlement().action, Action::retry);
    EXPECT_EQ(outcomes[2].status(), Status::executed);
    EXPECT_EQ(b.billed, Ids{"o3"});
    deliveries[0].body = "o1 1";
    for (const auto& outcome : handler.batch(std::span<const Full>(deliveries), {})) {
        EXPECT_EQ(outcome.settlement().action, Action::ack);
    }
    EXPECT_EQ(b.billed, (Ids{"o3", "o1", "o2"}));
}

TEST(Decoding, a_batch_goes_on_behind_what_does_not_decode_at_all) {
    Billing b;
    const auto handler =
        decoding(parse, b.consumer.wrap("billing", &Order::id, [&](const Order& order) {
            b.billed.push_back(order.id);
        }));
    const std::vector<Full> deliveries{{.key = "a", .body = "never", .at = Position{"p", 1}},
                                       {.key = "b", .body = "o2 2", .at = Position{"p", 2}}};
    const auto outcomes = handler.batch(std::span<const Full>(deliveries), {});
    ASSERT_EQ(outcomes.size(), 2U);
    EXPECT_EQ(outcomes[0].settlement().action, Action::dead_letter);
    EXPECT_EQ(outcomes[1].status(), Status::executed);
    EXPECT_EQ(b.billed, Ids{"o2"});
}

TEST(Decoding, r6_9_in_a_batch_nothing_of_a_partition_passes_one_whose_key_function_threw) {
    Billing b;
    bool away = true;
    const auto handler = b.consumer.wrap(
        "billing",
        [&](const Full& delivery) {
            if (away && delivery.key == "a") {
                throw std::runtime_error("the registry of schemas is away");
            }
            return delivery.identity();
        },
        [&](const Full& delivery) { b.billed.push_back(delivery.key); });
    const std::vector<Full> deliveries{{.key = "a", .body = "x", .at = Position{"p", 1}},
                                       {.key = "b", .body = "x", .at = Position{"p", 2}},
                                       {.key = "c", .body = "x", .at = Position{"q", 1}}};
    const auto outcomes = handler.batch(std::span<const Full>(deliveries), {});
    ASSERT_EQ(outcomes.size(), 3U);
    EXPECT_EQ(outcomes[0].settlement().action, Action::retry);
    EXPECT_EQ(outcomes[1].settlement().action, Action::retry);
    EXPECT_EQ(outcomes[2].status(), Status::executed);
    EXPECT_EQ(b.billed, Ids{"c"});
    away = false;
    for (const auto& outcome : handler.batch(std::span<const Full>(deliveries), {})) {
        EXPECT_EQ(outcome.settlement().action, Action::ack);
    }
    EXPECT_EQ(b.billed, (Ids{"c", "a", "b"}));
}

TEST(Decoding, what_a_batch_handler_behind_it_left_unanswered_comes_again) {
    struct Short {
        [[nodiscard]] Outcome<void> handle(const std::string&,
                                           const std::stop_token&) const noexcept {
            return Outcome<void>(verdict(Status::executed));
        }
        [[nodiscard]] std::vector<Outcome<void>> batch(std::span<const std::string> texts,
                                                       const std::stop_token& token,
                                                       std::span<const Identity>) const {
            std::vector<Outcome<void>> outcomes;
            if (!texts.empty()) {
                outcomes.push_back(handle(texts[0], token));
            }
            return outcomes;
        }
    };
    ScriptedSource source;
    RunLimit limit;
    source.put(Ids{"0", "bad", "1", "2"});
    source.on_settle = [&, settled = 0](Delivery&, const Settlement&) mutable {
        if (++settled == 4) {
            limit.stop.request_stop();
        }
        return Settled::yes;
    };
    const auto handler = decoding(
        [](const Delivery& delivery) {
            if (delivery.id == "bad") {
                throw std::invalid_argument("bad");
            }
            return delivery.id;
        },
        Short{});
    static_assert(BatchDeliveryHandler<decltype(handler), ScriptedSource>);
    run_virtually(source, handler, limit.stop.get_token(), {.batch = 4});
    auto acks = source.ids("ack");
    std::sort(acks.begin(), acks.end());
    EXPECT_EQ(acks, (Ids{"0", "1", "2"}));
    EXPECT_EQ(source.ids("dead_letter"), Ids{"bad"});
}

TEST(DeliveryId, r5_1_is_the_id_that_the_producer_gave) {
    Billing b;
    const auto handler = b.consumer.wrap(
        "billing", delivery_id, [&](const Full& delivery) { b.billed.push_back(delivery.key); });
    static_assert(decltype(handler)::covers == Covers::produced_twice);
    EXPECT_EQ(handler.handle(Full{.key = "a", .body = "x"}, {}).status(), Status::executed);
    EXPECT_EQ(handler.handle(Full{.key = "a", .body = "x"}, {}).status(), Status::replayed);
    EXPECT_EQ(handler.handle(Full{.key = "a", .body = "y"}, {}).status(), Status::conflict);
    const auto nameless = handler.handle(Full{.key = "", .body = "x"}, {});
    EXPECT_EQ(nameless.status(), Status::invalid);
    EXPECT_EQ(nameless.settlement().reason, reason::invalid_key);
    EXPECT_EQ(b.billed, Ids{"a"});
}

TEST(DeliveryPosition, r5_2_covers_redeliveries_only) {
    Billing b;
    const auto handler = b.consumer.wrap("billing", delivery_position, [&](const Full& delivery) {
        b.billed.push_back(delivery.body);
    });
    static_assert(decltype(handler)::covers == Covers::redelivered);
    const Position first{"orders/3", 17}, resent{"orders/3", 18};
    EXPECT_EQ(handler.handle(Full{.key = "a", .body = "x", .at = first}, {}).status(),
              Status::executed);
    EXPECT_EQ(handler.handle(Full{.key = "a", .body = "x", .at = first}, {}).status(),
              Status::replayed);
    EXPECT_EQ(handler.handle(Full{.key = "a", .body = "x", .at = resent}, {}).status(),
              Status::executed);
    EXPECT_EQ(handler.handle(Full{.key = "a", .body = "x"}, {}).status(), Status::invalid);
    EXPECT_EQ(b.billed, (Ids{"x", "x"}));
}

TEST(Run, r7_a_duplicate_of_what_is_at_work_is_never_acked_before_it) {
    Billing b;
    ScriptedSource source;
    std::stop_source stop;
    Events events;
    source.put(Delivery{.id = "a", .body = "x"});
    source.put(Delivery{.id = "a", .body = "x"});
    int polls = 0;
    source.on_receive = [&] { // the duplicate was refused several times
        if (events.count("started") == 1 && ++polls == 500) {
            EXPECT_TRUE(source.calls("ack").empty());
            events.add("finish");
        }
    };
    int acked = 0;
    source.on_settle = [&](Delivery&, const Settlement& settlement) {
        EXPECT_EQ(settlement.action, Action::ack);
        EXPECT_EQ(events.count("done"), 1);
        if (++acked == 2) {
            stop.request_stop();
        }
        return Settled::yes;
    };
    const auto handler = b.consumer.wrap("billing", delivery_id, [&](const Delivery&) {
        events.add("started");
        EXPECT_TRUE(events.wait("finish"));
        events.add("done");
    });
    run_virtually(source, handler, stop.get_token(), {.concurrency = 2});
    EXPECT_EQ(events.count("started"), 1);
    EXPECT_EQ(acked, 2);
}

} // namespace
} // namespace idem::broker_tests
