// SPDX-License-Identifier: MIT
// RedisStreamSource where the server, or who set it up, fails.
#include "redis_group.hpp"

namespace idem::broker_tests {
namespace {

class RedisStreamFault : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RedisServer::missing_program()); }
    RedisServer server{{.own = true}};
};

template <class Call>
StoreError error_of(const Call& call) {
    try {
        call();
    } catch (const StoreError& error) {
        return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    return {Fault::lease_lost, "nothing"};
}

TEST_F(RedisStreamFault, a_key_of_another_type_is_rejected_by_its_name) {
    Group group(server);
    group.redis.run({"SET", group.stream, "text"});
    RedisStreamSource source(group.address, group.options("c1"));
    const auto error = error_of([&] { source.receive(0ms); });
    EXPECT_EQ(error.fault(), Fault::rejected);
    EXPECT_NE(std::string(error.what()).find(group.stream), std::string::npos) << error.what();
    EXPECT_EQ(group.redis.text({"GET", group.stream}), "text");

    Group other(server);
    other.add_numbered(1);
    other.redis.run({"SET", other.stream + ":dead", "text"});
    RedisStreamSource early(other.address, other.options("c1"));
    // Before the group is there nothing is pending; then the first look finds out.
    const auto found = error_of([&] {
        for (int i = 0; i < 2; ++i) {
            RedisStreamSource each(other.address, other.options("c1"));
            for (auto& delivery : each.receive(0ms)) {
                static_cast<void>(each.settle(delivery, settlement(Action::dead_letter)));
            }
        }
    });
    EXPECT_EQ(found.fault(), Fault::rejected);
    EXPECT_NE(std::string(found.what()).find(":dead"), std::string::npos) << found.what();
}

TEST_F(RedisStreamFault, credentials_and_permissions_are_rejected) {
    Group group(server);
    group.add_numbered(1);
    const auto wrong = error_of([&] {
        RedisStreamSource source("unix:eve:guess@" + server.socket().string(), group.options("c1"));
        source.receive(0ms);
    });
    EXPECT_EQ(wrong.fault(), Fault::rejected);
    group.redis.run({"ACL",
                     "SETUSER",
                     "reader",
                     "on",
                     ">pw",
                     "~*",
                     "+hello",
                     "+evalsha",
                     "+script",
                     "+xreadgroup",
                     "+xpending",
                     "+xrange",
                     "+type"});
    const auto denied = error_of([&] {
        RedisStreamSource source("unix:reader:pw@" + server.socket().string(), group.options("c1"));
        source.receive(0ms);
    });
    EXPECT_EQ(denied.fault(), Fault::rejected);
    EXPECT_NE(std::string(denied.what()).find("NOPERM"), std::string::npos) << denied.what();
}

TEST_F(RedisStreamFault, r9_15_no_call_outlives_its_deadline) {
    Group group(server);
    group.add_numbered(2);
    auto options = group.options("c1");
    options.deadline = 300ms;
    RedisStreamSource source(group.address, options);
    auto received = source.receive(0ms);
    ASSERT_EQ(received.size(), 2U);
    server.pause();
    const auto before = std::chrono::steady_clock::now();
    EXPECT_EQ(source.settle(received[0], settlement(Action::ack)), Settled::in_doubt);
    EXPECT_THROW(static_cast<void>(source.extend(received[1], 1s)), StoreError);
    EXPECT_THROW(static_cast<void>(source.receive(0ms)), StoreError);
    EXPECT_LT(std::chrono::steady_clock::now() - before, 20s);
    server.resume();
    EXPECT_EQ(source.settle(received[0], settlement(Action::ack)), Settled::lost);
    EXPECT_EQ(source.settle(received[1], settlement(Action::ack)), Settled::yes);
}

TEST_F(RedisStreamFault, after_a_cut_connection_what_is_in_hand_is_not_given_again) {
    Group group(server);
    const auto ids = group.add_numbered(2);
    RedisStreamSource source(group.address, group.options("c1"));
    auto received = source.receive(0ms, 1);
    ASSERT_EQ(received.size(), 1U);
    group.redis.run({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
    EXPECT_TRUE(source.extend(received[0], 1s));
    auto more = receive_some(source);
    ASSERT_EQ(more.size(), 1U);
    EXPECT_EQ(more[0].entry_id(), ids[1]);
    EXPECT_EQ(source.settle(received[0], settlement(Action::ack)), Settled::yes);
    EXPECT_EQ(source.settle(more[0], settlement(Action::ack)), Settled::yes);
    EXPECT_TRUE(source.receive(0ms).empty());
}

TEST_F(RedisStreamFault, a_delivery_whose_arrival_was_lost_comes_after_the_reconnection) {
    Group group(server);
    const auto id = group.add_numbered(1)[0];
    RedisStreamSource source(group.address, group.options("c1"));
    // As if the answer to XREADGROUP had not arrived: pending for us, and never in hand.
    group.redis.run({"XGROUP", "CREATE", group.stream, group.group, "0"});
    EXPECT_EQ(source.receive(0ms).size(), 1U);
    group.redis.run({"XADD", group.stream, "*", "message-id", "m", "payload", "x"});
    group.redis.run({"XREADGROUP", "GROUP", group.group, "c1", "STREAMS", group.stream, ">"});
    group.redis.run({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
    const auto received = receive_some(source);
    ASSERT_EQ(received.size(), 1U);
    EXPECT_NE(received[0].entry_id(), id);
    EXPECT_TRUE(received[0].redelivered());
}

TEST_F(RedisStreamFault, a_server_that_is_away_is_unavailable_and_found_again) {
    Group group(server);
    group.add_numbered(1);
    RedisStreamSource source(group.address, group.options("c1"));
    auto received = source.receive(0ms);
    server.kill();
    const auto error = error_of([&] { source.receive(0ms); });
    EXPECT_NE(error.fault(), Fault::rejected);
    const auto unsettled =
        error_of([&] { static_cast<void>(source.settle(received[0], settlement(Action::ack))); });
    EXPECT_EQ(unsettled.fault(), Fault::unavailable) << "nothing happened";
    server.start(); // empty: it kept nothing
    EXPECT_TRUE(source.receive(0ms).empty());
    EXPECT_EQ(source.settle(received[0], settlement(Action::ack)), Settled::lost);
    detail::RedisConnection connection(detail::parse_redis_address(group.address),
                                       std::chrono::steady_clock::now() + 30s);
    connection.append({"XADD", group.stream, "*", "message-id", "m", "payload", "x"});
    static_cast<void>(connection.read(std::chrono::steady_clock::now() + 30s));
    EXPECT_EQ(receive_some(source).size(), 1U);
}

TEST_F(RedisStreamFault, a_group_that_was_deleted_is_made_again) {
    Group group(server);
    group.add_numbered(2);
    RedisStreamSource source(group.address, group.options("c1"));
    auto received = source.receive(0ms);
    ASSERT_EQ(received.size(), 2U);
    group.redis.run({"XGROUP", "DESTROY", group.stream, group.group});
    EXPECT_FALSE(source.extend(received[0], 1s));
    EXPECT_EQ(source.settle(received[1], settlement(Action::ack)), Settled::lost);
    EXPECT_EQ(receive_some(source).size(), 2U) << "the store knows which were handled";
}

TEST_F(RedisStreamFault, in_a_full_server_acks_work_and_dead_letters_wait) {
    Group group(server);
    group.add_numbered(3);
    RedisStreamSource source(group.address, group.options("c1"));
    auto received = source.receive(0ms, 2);
    ASSERT_EQ(received.size(), 2U);
    group.redis.run({"CONFIG", "SET", "maxmemory", "1"});
    const auto error = error_of([&] {
        static_cast<void>(
            source.settle(received[0], settlement(Action::dead_letter, reason::dead)));
    });
    EXPECT_EQ(error.fault(), Fault::unavailable);
    EXPECT_TRUE(source.extend(received[0], 1s));
    EXPECT_EQ(source.settle(received[1], settlement(Action::ack)), Settled::yes);
    EXPECT_EQ(source.receive(0ms).size(), 1U) << "new entries can be taken";
    group.redis.run({"CONFIG", "SET", "maxmemory", "0"});
    EXPECT_EQ(source.settle(received[0], settlement(Action::dead_letter, reason::dead)),
              Settled::yes);
    EXPECT_EQ(group.dead().size(), 1U);
}

} // namespace
} // namespace idem::broker_tests
