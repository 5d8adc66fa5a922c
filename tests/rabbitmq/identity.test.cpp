// SPDX-License-Identifier: MIT
// What makes two deliveries of RabbitMQ the same message (semantics.md 5.1).
#include <idem/broker/rabbitmq_settlement.hpp>

#include <array>
#include <iterator>

#include "queue.hpp"

namespace idem::rabbitmq_tests {
namespace {

/// The identity as RabbitSource's delivery gives it, and as a user's own envelope does: the same.
struct Read {
    std::string id;
    Fingerprint fingerprint;
    std::optional<Timestamp> created;
    bool redelivered = false, has_position = false;
};
Read read(const Identity& identity) {
    return {.id = std::string(identity.id.view()),
            .fingerprint = identity.fingerprint,
            .created = identity.created,
            .redelivered = identity.redelivered,
            .has_position = identity.position.has_value()};
}

class RabbitIdentity : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RabbitServer::missing()); }

    static Read identity_of(const RabbitLetter& letter) {
        Queue queue("classic");
        queue.add(letter);
        queue.add(letter);
        Read by_source;
        {
            RabbitSource source(queue.address, {.queue = queue.name, .prefetch = 1});
            auto received = receive(source);
            by_source = read(received.at(0).identity());
            EXPECT_EQ(source.settle(received[0], settlement(Action::ack)), Settled::yes);
        }
        RabbitSession own(queue.address);
        amqp_basic_consume(own.native(),
                           1,
                           detail::bytes_of(queue.name),
                           amqp_empty_bytes,
                           0,
                           1,
                           0,
                           amqp_empty_table);
        amqp_envelope_t envelope;
        timeval time{.tv_sec = 30, .tv_usec = 0};
        EXPECT_EQ(amqp_consume_message(own.native(), &envelope, &time, 0).reply_type,
                  AMQP_RESPONSE_NORMAL);
        const RabbitMessage message(envelope);
        const auto by_envelope = read(message.identity());
        EXPECT_EQ(message.payload(), letter.body);
        amqp_destroy_envelope(&envelope);
        EXPECT_EQ(by_envelope.id, by_source.id);
        EXPECT_EQ(by_envelope.fingerprint, by_source.fingerprint);
        EXPECT_EQ(by_envelope.created, by_source.created);
        return by_source;
    }
};

TEST_F(RabbitIdentity, r5_1_the_idempotency_key_comes_first) {
    EXPECT_EQ(identity_of({.body = "b",
                           .message_id = "property",
                           .headers = {{"idempotency-key", "key"},
                                       {"message-id", "header"},
                                       {"cloudEvents:source", "s"},
                                       {"cloudEvents:id", "i"}}})
                  .id,
              "key");
}

TEST_F(RabbitIdentity, r5_1_then_the_property_message_id_then_the_header) {
    EXPECT_EQ(
        identity_of({.body = "b", .message_id = "property", .headers = {{"message-id", "header"}}})
            .id,
        "property");
    EXPECT_EQ(identity_of({.body = "b",
                           .headers = {{"message-id", "header"},
                                       {"cloudEvents:source", "s"},
                                       {"cloudEvents:id", "i"}}})
                  .id,
              "header");
}

TEST_F(RabbitIdentity, r5_1_then_source_and_id_of_a_cloud_event_never_joined_plainly) {
    const auto event = [](const std::string& source, const std::string& id) {
        return identity_of({.body = "b",
                            .headers = {{"cloudEvents:source", source}, {"cloudEvents:id", id}}})
            .id;
    };
    EXPECT_NE(event("a", "bc"), event("ab", "c"));
    EXPECT_NE(event("1:", "x"), event("1", ":x"));
    EXPECT_EQ(event("a", "bc"),
              identity_of({.body = "b", .headers = {{"ce-source", "a"}, {"ce-id", "bc"}}}).id);
    EXPECT_EQ(identity_of({.body = "b", .headers = {{"cloudEvents:id", "i"}}}).id, "")
        << "an id is unique within its source only";
}

TEST_F(RabbitIdentity, a_number_is_an_id_like_its_text) {
    EXPECT_EQ(identity_of({.body = "b", .numbers = {{"idempotency-key", 42}}}).id, "42");
}

TEST_F(RabbitIdentity, r5_1_without_an_id_it_is_empty_and_entity_ids_are_none) {
    const auto identity =
        identity_of({.body = "b", .headers = {{"id", "order 7"}}, .correlation_id = "c"});
    EXPECT_EQ(identity.id, "");
    EXPECT_FALSE(identity.has_position) << "a queue promises no order";
}

TEST_F(RabbitIdentity, r5_3_the_fingerprint_is_of_the_raw_payload) {
    EXPECT_EQ(identity_of({.body = "one", .message_id = "m"}).fingerprint, fingerprint_of("one"));
    EXPECT_EQ(identity_of({.body = "", .message_id = "m"}).fingerprint, fingerprint_of(""));
}

TEST_F(RabbitIdentity, r5_6_the_creation_time_is_the_header_s_as_text_or_number) {
    const Timestamp time{milliseconds{1'700'000'000'123}};
    EXPECT_EQ(identity_of({.body = "b", .headers = {{"idem-created", "1700000000123"}}}).created,
              time);
    EXPECT_EQ(identity_of({.body = "b", .numbers = {{"idem-created", 1'700'000'000'123}}}).created,
              time);
    EXPECT_EQ(identity_of({.body = "b", .headers = {{"idem-created", "soon"}}}).created,
              std::nullopt);
    EXPECT_EQ(identity_of({.body = "b"}).created, std::nullopt);
}

TEST_F(RabbitIdentity, r3_3_the_count_and_the_flag_are_hints) {
    for (const std::string type : {"classic", "quorum"}) {
        Queue queue(type);
        queue.add({.body = "b", .message_id = "m"});
        for (unsigned round = 0; round < 4; ++round) { // each time given back by the broker
            const auto letter = queue.rabbit.get(queue.name);
            ASSERT_TRUE(letter);
            queue.rabbit.give_back(*letter);
            queue.rabbit.flush();
        }
        RabbitSource source(queue.address, queue.options());
        const auto received = receive(source);
        EXPECT_TRUE(received.at(0).identity().redelivered);
        EXPECT_EQ(received.at(0).count(), type == "quorum" ? 5U : 2U);
    }
}

/// What malformed bytes are read as: nothing, and no further than they go.
TEST(RabbitTable, what_is_cut_off_is_absent) {
    std::string bytes;
    detail::append_amqp_short(bytes, "name");
    bytes += 'S';
    detail::append_amqp_long(bytes, "value");
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        const std::string cut = bytes.substr(0, size); // of its own, for the sanitizer to see
        EXPECT_FALSE(detail::RabbitTable(cut).next()) << size;
    }
    const auto whole = detail::RabbitTable(bytes).next();
    ASSERT_TRUE(whole);
    EXPECT_EQ(whole->read().text, "value");
    EXPECT_EQ(whole->all, bytes);
}

TEST(RabbitTable, every_kind_of_field_is_passed_over) {
    std::string bytes;
    const auto add = [&](char kind, const std::string& value) {
        detail::append_amqp_short(bytes, std::string(1, kind));
        bytes += kind;
        bytes += value;
    };
    const std::string four("\0\0\0\2xy", 6);
    for (const auto& [kind, value] :
         std::vector<std::pair<char, std::string>>{{'t', "1"},
                                                   {'b', "\xff"},
                                                   {'B', "\xff"},
                                                   {'s', "\xff\xfe"},
                                                   {'u', "\xff\xfe"},
                                                   {'I', "\xff\xff\xff\xfd"},
                                                   {'i', "\xff\xff\xff\xfd"},
                                                   {'f', "1234"},
                                                   {'l', "\xff\xff\xff\xff\xff\xff\xff\xfc"},
                                                   {'d', "12345678"},
                                                   {'D', "12345"},
                                                   {'T', std::string(7, '\0') + '\5'},
                                                   {'V', ""},
                                                   {'S', four},
                                                   {'x', four},
                                                   {'A', four},
                                                   {'F', four}}) {
        add(kind, value);
    }
    std::map<char, detail::RabbitValue> values;
    detail::RabbitTable table(bytes);
    std::size_t size = 0;
    while (const auto field = table.next()) {
        values[field->kind] = field->read();
        size += field->all.size();
    }
    EXPECT_EQ(size, bytes.size());
    EXPECT_EQ(values.size(), 17U);
    EXPECT_EQ(values['b'].number, -1);
    EXPECT_EQ(values['B'].number, 255);
    EXPECT_EQ(values['s'].number, -2);
    EXPECT_EQ(values['u'].number, 65'534);
    EXPECT_EQ(values['I'].number, -3);
    EXPECT_EQ(values['i'].number, 4'294'967'293);
    EXPECT_EQ(values['l'].number, -4);
    EXPECT_EQ(values['T'].number, 5);
    EXPECT_EQ(values['S'].text, "xy");
    EXPECT_EQ(values['x'].text, "xy");
    EXPECT_FALSE(values['A'].text || values['A'].number);
}

} // namespace
} // namespace idem::rabbitmq_tests
