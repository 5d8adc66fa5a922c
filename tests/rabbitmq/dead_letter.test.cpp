// SPDX-License-Identifier: MIT
// Dead letters over RabbitMQ: what they carry, and that they are confirmed before the ack.
#include <array>

#include "queue.hpp"

namespace idem::rabbitmq_tests {
namespace {

class RabbitDeadLetter : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RabbitServer::missing()); }

    static Settlement died(unsigned attempts = 3) {
        return {Action::dead_letter, 0ms, reason::dead, "the cause", attempts};
    }
    static Settled settle_next(RabbitSource& source, const Settlement& how) {
        auto received = receive(source);
        return source.settle(received.at(0), how);
    }
    /// What settling the next as a dead letter throws.
    static Fault fault_of_next(RabbitSource& source) {
        auto received = receive(source);
        try {
            static_cast<void>(source.settle(received.at(0), died()));
        } catch (const StoreError& error) {
            return error.fault();
        }
        ADD_FAILURE() << "it was settled";
        return Fault::in_doubt;
    }
};

TEST_F(RabbitDeadLetter, r7_3_carries_the_reason_and_all_that_the_message_had) {
    for (const std::string type : {"classic", "quorum"}) {
        Queue queue(type);
        queue.add({.body = "body",
                   .message_id = "m",
                   .headers = {{"color", "blue"}},
                   .numbers = {{"size", 7}},
                   .expiration = "60000",
                   .user_id = "guest",
                   .correlation_id = "c",
                   .content_type = "text/plain",
                   .delivery_mode = 1});
        RabbitSource source(queue.address, queue.options());
        EXPECT_EQ(settle_next(source, died()), Settled::yes);
        EXPECT_EQ(queue.ready(), 0U);
        const auto letters = queue.dead();
        ASSERT_EQ(letters.size(), 1U);
        const auto& letter = letters[0];
        EXPECT_EQ(letter.body, "body");
        EXPECT_EQ(letter.message_id, "m");
        EXPECT_EQ(letter.correlation_id, "c");
        EXPECT_EQ(letter.content_type, "text/plain");
        EXPECT_EQ(letter.expiration, "") << "it would vanish";
        EXPECT_EQ(letter.user_id, "") << "the broker refuses another user's";
        EXPECT_EQ(letter.delivery_mode, 2) << "a confirm is to survive the broker";
        const std::map<std::string, std::string> headers{{"color", "blue"},
                                                         {"size", "7"},
                                                         {"idem-reason", "attempts used up"},
                                                         {"idem-detail", "the cause"},
                                                         {"idem-attempts", "3"},
                                                         {"idem-origin", queue.name},
                                                         {"idem-exchange", ""},
                                                         {"idem-routing-key", queue.name},
                                                         {"idem-expiration", "60000"},
                                                         {"idem-user-id", "guest"}};
        auto found = letter.headers;
        found.erase("x-delivery-count"); // of the dead-letter queue's own
        EXPECT_EQ(found, headers);
    }
}

TEST_F(RabbitDeadLetter, one_that_was_sent_back_and_dies_again_has_each_header_once) {
    Queue queue;
    queue.add({.body = "b",
               .message_id = "m",
               .headers = {{"idem-reason", "old"}, {"idem-attempts", "9"}, {"color", "blue"}}});
    RabbitSource source(queue.address, queue.options());
    EXPECT_EQ(settle_next(source, died(4)), Settled::yes);
    const auto letters = queue.dead();
    EXPECT_EQ(letters.at(0).headers.at("idem-reason"), reason::dead);
    EXPECT_EQ(letters.at(0).headers.at("idem-attempts"), "4");
    EXPECT_EQ(letters.at(0).headers.at("color"), "blue");
}

TEST_F(RabbitDeadLetter, x_death_stays_and_nobody_gets_a_carbon_copy) {
    Queue queue;
    Queue other;
    const auto waiting = queue.name + ".waiting";
    queue.rabbit.declare(waiting,
                         {{"x-message-ttl", "1"},
                          {"x-dead-letter-exchange", ""},
                          {"x-dead-letter-routing-key", queue.name}});
    std::array<amqp_field_value_t, 1> names{};
    names[0].kind = AMQP_FIELD_KIND_UTF8;
    names[0].value.bytes = detail::bytes_of(other.name);
    std::array<amqp_table_entry_t, 1> headers{};
    headers[0].key = amqp_cstring_bytes("CC");
    headers[0].value.kind = AMQP_FIELD_KIND_ARRAY;
    headers[0].value.value.array = {1, names.data()};
    amqp_basic_properties_t properties{};
    properties._flags = AMQP_BASIC_HEADERS_FLAG;
    properties.headers = {1, headers.data()};
    RabbitSession producer(queue.address); // whose confirm nobody reads
    amqp_basic_publish(producer.native(),
                       1,
                       amqp_empty_bytes,
                       detail::bytes_of(queue.name),
                       1,
                       0,
                       &properties,
                       amqp_cstring_bytes("copied"));
    queue.rabbit.publish(waiting, RabbitLetter{.body = "expired", .message_id = "m"});
    EXPECT_EQ(other.ready_becomes(1), 1U) << "the producer's own carbon copy";
    RabbitSource source(queue.address, queue.options());
    EXPECT_EQ(settle_next(source, died()), Settled::yes);
    EXPECT_EQ(settle_next(source, died()), Settled::yes);
    EXPECT_EQ(other.ready(), 1U);
    std::map<std::string, RabbitLetter> letters;
    for (auto& letter : queue.dead()) {
        letters.emplace(letter.body, std::move(letter));
    }
    EXPECT_EQ(letters.size(), 2U);
    EXPECT_EQ(letters.at("expired").headers.at("x-death"), "of kind A");
    EXPECT_FALSE(letters.at("copied").headers.contains("CC"));
}

TEST_F(RabbitDeadLetter, an_own_queue_of_any_kind_is_used_as_it_is) {
    Queue queue;
    const auto graves = queue.name + ".graves";
    queue.rabbit.declare(graves, {{"x-queue-type", "classic"}, {"x-max-length", "1000"}});
    auto options = queue.options();
    options.dead_letter_queue = graves;
    RabbitSource source(queue.address, options);
    queue.add_numbered(2);
    EXPECT_EQ(settle_next(source, died()), Settled::yes);
    EXPECT_EQ(settle_next(source, died()), Settled::yes);
    EXPECT_EQ(queue.rabbit.ready(graves), 2U);
}

TEST_F(RabbitDeadLetter, a_queue_that_was_deleted_is_made_again) {
    Queue queue;
    RabbitSource source(queue.address, queue.options());
    queue.add_numbered(2);
    EXPECT_EQ(settle_next(source, died()), Settled::yes);
    queue.rabbit.remove(queue.name + ".dead");
    EXPECT_EQ(settle_next(source, died()), Settled::yes);
    EXPECT_EQ(queue.dead().size(), 1U);
}

TEST_F(RabbitDeadLetter, r7_3_without_a_queue_for_it_nothing_is_acked) {
    Queue queue;
    queue.add_numbered(1);
    {
        auto options = queue.options();
        options.declare_queues = false;
        RabbitSource source(queue.address, options);
        EXPECT_EQ(fault_of_next(source), Fault::rejected) << "a human must declare it";
    }
    EXPECT_EQ(queue.ready_becomes(1), 1U);
}

TEST_F(RabbitDeadLetter, r7_3_a_queue_that_is_full_is_waited_for) {
    Queue queue;
    queue.rabbit.declare(
        queue.name + ".dead",
        {{"x-queue-type", "classic"}, {"x-max-length", "1"}, {"x-overflow", "reject-publish"}});
    queue.add_numbered(2);
    RabbitSource source(queue.address, queue.options());
    EXPECT_EQ(settle_next(source, died()), Settled::yes);
    auto received = receive(source);
    EXPECT_THROW(static_cast<void>(source.settle(received.at(0), died())), StoreError);
    EXPECT_EQ(queue.dead().size(), 1U); // and there is room
    EXPECT_EQ(source.settle(received.at(0), died()), Settled::yes) << "it was ours still";
    EXPECT_EQ(queue.dead().size(), 1U);
}

TEST_F(RabbitDeadLetter, r9_15_an_alarm_of_the_broker_holds_nothing_up_beyond_the_deadline) {
    IDEM_TEST_NEEDS(RabbitServer::missing_program());
    RabbitServer server({.own = true});
    Queue queue("quorum", server);
    queue.add_numbered(3);
    auto options = queue.options();
    options.deadline = 1s;
    RabbitSource source(queue.address, options);
    auto received = receive(source, 3);
    EXPECT_EQ(source.settle(received.at(0), died()), Settled::yes);
    server.control({"set_vm_memory_high_watermark", "absolute", "1000000"});
    const auto begin = std::chrono::steady_clock::now();
    // The first learns of the alarm from what it publishes, the second before it publishes.
    EXPECT_EQ(source.settle(received.at(1), died()), Settled::in_doubt);
    EXPECT_THROW(static_cast<void>(source.settle(received.at(2), died())), StoreError);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 30s);
    EXPECT_TRUE(source.extend(received.at(2), 1s)) << "the connection that consumes lives";
    server.control({"set_vm_memory_high_watermark", "0.9"});
    const auto until = std::chrono::steady_clock::now() + 60s;
    auto settled = Settled::in_doubt;
    while (settled == Settled::in_doubt && std::chrono::steady_clock::now() < until) {
        try {
            settled = source.settle(received.at(2), died());
            break;
        } catch (const StoreError&) { // not over yet
        }
    }
    EXPECT_EQ(settled, Settled::yes);
    auto again = receive(source); // what was in doubt
    EXPECT_EQ(source.settle(again.at(0), died()), Settled::yes);
    std::set<std::string> bodies;
    for (const auto& letter : queue.dead()) {
        bodies.insert(letter.body);
    }
    EXPECT_EQ(bodies, (std::set<std::string>{"body 0", "body 1", "body 2"}));
}

} // namespace
} // namespace idem::rabbitmq_tests
