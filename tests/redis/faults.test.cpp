// SPDX-License-Identifier: MIT
// What a Redis store says when the server hangs, is gone, is full, refuses, or holds what is not
// ours.

#include <idem/store/redis_lock.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "support/needs.hpp"
#include "support/redis_server.hpp"

namespace {

using namespace idem;
using testing_support::RedisServer;
using testing_support::RedisSession;

constexpr milliseconds short_deadline{300};

/// What a call threw.
struct Thrown {
    std::optional<Fault> fault{};
    std::string what{};
    [[nodiscard]] bool says(const std::string& text) const {
        return what.find(text) != std::string::npos;
    }
};
template <class Call>
Thrown thrown_by(const Call& call) {
    try {
        static_cast<void>(call());
        return {};
    } catch (const StoreError& error) {
        return {error.fault(), error.what()};
    }
}

class RedisFaults : public ::testing::Test {
protected:
    void SetUp() override { IDEM_TEST_NEEDS(RedisServer::missing_program()); }

    RedisServer& start(std::vector<std::string> arguments = {}, bool tcp = false) {
        server_.emplace(
            RedisServer::Options{.own = true, .tcp = tcp, .arguments = std::move(arguments)});
        return *server_;
    }
    [[nodiscard]] RedisLockStore& store() {
        if (!store_) {
            store_.emplace(server_->address());
        }
        return *store_;
    }
    [[nodiscard]] static ClaimRequest request(std::string_view id = "m") {
        return {.key = {"faults", id}};
    }
    [[nodiscard]] RedisLockStore::Ticket won(std::string_view id = "m") {
        return std::get<0>(store().claim(request(id))).ticket;
    }
    [[nodiscard]] RedisSession session() { return RedisSession(server_->address()); }
    [[nodiscard]] static std::string key(std::string_view id = "m") {
        return detail::redis_key("idem", request(id).key);
    }

    std::optional<RedisServer> server_;
    std::optional<RedisLockStore> store_;
};

TEST_F(RedisFaults, r2_4_a_server_that_hangs_during_complete_is_in_doubt_within_the_deadline) {
    start();
    RedisLockStore hasty(server_->address(), {.deadline = short_deadline});
    const auto mine = std::get<0>(hasty.claim(request())).ticket;
    server_->pause();
    const auto begin = std::chrono::steady_clock::now();
    const auto thrown = thrown_by([&] { return hasty.complete(mine, "done"); });
    const auto took = std::chrono::steady_clock::now() - begin;
    server_->resume();
    EXPECT_EQ(thrown.fault, Fault::in_doubt) << thrown.what;
    EXPECT_GE(took, short_deadline);
    EXPECT_LT(took, short_deadline + seconds{10}) << "a bound for a slow machine";
    EXPECT_EQ(store().complete(mine, "done"), TicketState::valid) << "2.3: repeated, harmless";
    EXPECT_EQ(std::get<Completed>(store().claim(request())).result, "done");
}

TEST_F(RedisFaults, r2_4_a_server_that_hangs_during_claim_is_in_doubt_and_abandon_never_throws) {
    start();
    RedisLockStore hasty(server_->address(), {.deadline = short_deadline});
    const auto mine = std::get<0>(hasty.claim(request("held"))).ticket;
    server_->pause();
    const auto thrown = thrown_by([&] { return hasty.claim(request()); });
    hasty.abandon(mine, "why");
    hasty.refund(mine);
    server_->resume();
    EXPECT_EQ(thrown.fault, Fault::in_doubt) << thrown.what;
}

TEST_F(RedisFaults, r2_4_a_server_that_accepts_and_says_nothing_is_unavailable) {
    start();
    RedisLockStore hasty(server_->address(), {.deadline = short_deadline});
    server_->pause();
    const auto thrown = thrown_by([&] { return hasty.claim(request()); });
    server_->resume();
    EXPECT_EQ(thrown.fault, Fault::unavailable) << "only the greeting was sent: " << thrown.what;
}

TEST_F(RedisFaults, a_server_that_is_not_there_is_unavailable_and_named) {
    const auto port = std::to_string(testing_support::free_port());
    RedisLockStore by_port("redis://u:secret@127.0.0.1:" + port);
    const auto refused = thrown_by([&] { return by_port.claim(request()); });
    EXPECT_EQ(refused.fault, Fault::unavailable);
    EXPECT_TRUE(refused.says("127.0.0.1:" + port)) << refused.what;
    EXPECT_FALSE(refused.says("secret")) << refused.what;
    RedisLockStore by_path("unix:/nowhere/redis.sock");
    EXPECT_EQ(thrown_by([&] { return by_path.claim(request()); }).fault, Fault::unavailable);
    RedisLockStore long_path("unix:/" + std::string(200, 'x'));
    EXPECT_TRUE(thrown_by([&] { return long_path.claim(request()); }).says("107 bytes"));
}

TEST_F(RedisFaults, a_restart_between_two_calls_is_not_noticed) {
    start({"--appendonly", "yes", "--appendfsync", "always"});
    const auto mine = won();
    EXPECT_EQ(store().renew(mine, seconds{60}), TicketState::valid);
    server_->restart(); // connections and scripts are gone, records are not
    EXPECT_EQ(store().renew(mine, seconds{60}), TicketState::valid);
    EXPECT_EQ(store().complete(mine, "done"), TicketState::valid);
    EXPECT_EQ(std::get<Completed>(store().claim(request())).result, "done");
}

TEST_F(RedisFaults, a_server_that_lost_its_records_says_outdated_and_lets_it_run_again) {
    start();
    const auto mine = won();
    server_->restart();
    EXPECT_EQ(store().complete(mine, "done"), TicketState::outdated) << "said in durability";
    EXPECT_EQ(store().claim(request()).index(), 0U);
}

TEST_F(RedisFaults, r4_8_out_of_memory_refuses_claims_and_lets_owners_finish) {
    start();
    const auto completed = won("completed");
    const auto abandoned = won("abandoned"), refunded = won("refunded"), parked = won("parked");
    const std::vector<RedisLockStore::Ticket> both{won("one"), won("two")};
    session().run({"CONFIG", "SET", "maxmemory", "1"}); // the policy is noeviction
    const auto thrown = thrown_by([&] { return store().claim(request()); });
    EXPECT_EQ(thrown.fault, Fault::unavailable);
    EXPECT_TRUE(thrown.says("maxmemory")) << thrown.what;
    EXPECT_EQ(store().renew(completed, seconds{60}), TicketState::valid);
    EXPECT_EQ(store().complete(completed, "done"), TicketState::valid);
    store().abandon(abandoned, "failed");
    store().refund(refunded);
    EXPECT_EQ(store().park(parked, "unknown"), TicketState::valid);
    EXPECT_EQ(store().complete(std::span(both), std::vector<std::string>{"one", "two"}),
              std::vector(2, TicketState::valid));
    const auto again = thrown_by([&] { return store().claim(request("abandoned")); });
    EXPECT_EQ(again.fault, Fault::unavailable) << "a claim may make a record larger";
    EXPECT_EQ(session().number({"EXISTS", key()}), 0) << "unavailable: nothing happened";
    session().run({"CONFIG", "SET", "maxmemory", "0"});
    EXPECT_EQ(std::get<0>(store().claim(request("refunded"))).attempt, 1U);
    EXPECT_TRUE(std::holds_alternative<Parked>(store().claim(request("parked"))));
    EXPECT_EQ(std::get<Completed>(store().claim(request("two"))).result, "two");
    EXPECT_EQ(std::get<Completed>(store().claim(request("completed"))).result, "done");
    EXPECT_EQ(std::get<0>(store().claim(request("abandoned"))).attempt, 2U);
    EXPECT_EQ(store().claim(request()).index(), 0U);
}

TEST_F(RedisFaults, a_key_of_another_type_is_rejected_by_name_and_left_as_it_is) {
    start();
    session().run({"RPUSH", key(), "theirs"});
    const auto claimed = thrown_by([&] { return store().claim(request()); });
    EXPECT_EQ(claimed.fault, Fault::rejected);
    EXPECT_TRUE(claimed.says(key())) << claimed.what;
    EXPECT_EQ(session().text({"LINDEX", key(), "0"}), "theirs");

    const auto mine = won("taken");
    session().run({"DEL", key("taken")});
    session().run({"SADD", key("taken"), "theirs"});
    const auto completed = thrown_by([&] { return store().complete(mine, "done"); });
    EXPECT_EQ(completed.fault, Fault::rejected);
    EXPECT_TRUE(completed.says(key("taken"))) << completed.what;
    EXPECT_EQ(session().number({"SCARD", key("taken")}), 1);
}

TEST_F(RedisFaults, a_foreign_value_is_rejected_by_name_and_left_as_it_is) {
    start();
    for (const std::string theirs : {"",
                                     "1",
                                     "locked",
                                     "I1",
                                     "I1P too short",
                                     "I1Z0",
                                     "I1C0 cut",
                                     "I1C4 without all of its mark",
                                     "I1C9 of a form that there is not, as long as it may be"}) {
        session().run({"SET", key(), theirs});
        const auto thrown = thrown_by([&] { return store().claim(request()); });
        EXPECT_EQ(thrown.fault, Fault::rejected) << theirs;
        EXPECT_TRUE(thrown.says(key())) << thrown.what;
        EXPECT_EQ(session().text({"GET", key()}), theirs);
    }
    const auto mine = won("taken");
    session().run({"SET", key("taken"), "theirs"});
    EXPECT_EQ(store().complete(mine, "done"), TicketState::outdated);
    EXPECT_EQ(session().text({"GET", key("taken")}), "theirs");
}

TEST_F(RedisFaults, r5_5_a_record_of_a_newer_format_is_unavailable_and_left_as_it_is) {
    start();
    session().run({"SET", key(), "I2 and what tomorrow adds"});
    const auto thrown = thrown_by([&] { return store().claim(request()); });
    EXPECT_EQ(thrown.fault, Fault::unavailable);
    EXPECT_TRUE(thrown.says("newer release")) << thrown.what;
    EXPECT_EQ(session().text({"GET", key()}), "I2 and what tomorrow adds");
}

TEST_F(RedisFaults, a_batch_with_one_bad_key_throws_and_gives_the_others_back_uncharged) {
    start();
    session().run({"SET", key("bad"), "theirs"});
    const std::vector<ClaimRequest> asked{request("a"), request("bad"), request("b")};
    const auto thrown =
        thrown_by([&] { return store().claim(std::span<const ClaimRequest>(asked)); });
    EXPECT_EQ(thrown.fault, Fault::rejected);
    for (const auto* id : {"a", "b"}) {
        EXPECT_EQ(std::get<0>(store().claim(request(id))).attempt, 1U) << id;
    }
}

TEST_F(RedisFaults, a_batch_completion_with_one_bad_key_completes_the_others_and_throws) {
    start();
    const std::vector<RedisLockStore::Ticket> tickets{won("a"), won("bad"), won("b")};
    session().run({"DEL", key("bad")});
    session().run({"RPUSH", key("bad"), "theirs"});
    const auto thrown = thrown_by([&] {
        return store().complete(std::span(tickets), std::vector<std::string>{"A", "?", "B"});
    });
    EXPECT_EQ(thrown.fault, Fault::rejected);
    EXPECT_TRUE(thrown.says(key("bad"))) << thrown.what;
    EXPECT_EQ(std::get<Completed>(store().claim(request("a"))).result, "A");
    EXPECT_EQ(std::get<Completed>(store().claim(request("b"))).result, "B");
    EXPECT_EQ(session().text({"LINDEX", key("bad"), "0"}), "theirs");
}

TEST_F(RedisFaults, a_batch_of_many_calls_answers_each_in_its_place) {
    start();
    std::vector<RedisLockStore::Ticket> tickets;
    std::vector<std::string> results;
    for (int number = 0; number < 100; ++number) {
        results.push_back(std::to_string(number));
        tickets.push_back(won(results.back()));
        if (number % 3 == 0) { // somebody else's by now
            session().run({"SET", key(results.back()), "theirs"});
        }
    }
    const auto states = store().complete(std::span(tickets), std::span(results));
    ASSERT_EQ(states.size(), 100U);
    for (std::size_t number = 0; number < 100; ++number) {
        EXPECT_EQ(states[number], number % 3 == 0 ? TicketState::outdated : TicketState::valid);
        if (number % 3 != 0) {
            EXPECT_EQ(std::get<Completed>(store().claim(request(results[number]))).result,
                      results[number]);
        }
    }
}

TEST_F(RedisFaults, credentials_that_are_missing_or_wrong_are_rejected_without_being_shown) {
    start({"--requirepass", "right"});
    const auto path = server_->socket().string();
    RedisLockStore without("unix:" + path);
    EXPECT_EQ(thrown_by([&] { return without.claim(request()); }).fault, Fault::rejected);
    for (const std::string who : {":wrong", "nobody:right", "default:wrong"}) {
        RedisLockStore wrong(std::string("unix:").append(who).append("@").append(path));
        const auto thrown = thrown_by([&] { return wrong.claim(request()); });
        EXPECT_EQ(thrown.fault, Fault::rejected) << who;
        EXPECT_FALSE(thrown.says(":wrong") || thrown.says("right")) << thrown.what;
    }
    RedisLockStore right("unix:default:right@" + path);
    EXPECT_EQ(right.claim(request()).index(), 0U);
}

TEST_F(RedisFaults, a_user_without_the_rights_is_rejected_and_the_rights_needed_are_few) {
    start();
    session().run({"ACL", "SETUSER", "narrow", "on", ">pw", "~other*", "+@all"});
    session().run({"ACL", "SETUSER", "mute", "on", ">pw", "~idem:*", "+set", "+pexpiretime"});
    session().run({"ACL",
                   "SETUSER",
                   "enough",
                   "on",
                   ">pw",
                   "~idem:*",
                   "+set",
                   "+get",
                   "+setrange",
                   "+pexpire",
                   "+pexpiretime",
                   "+pttl",
                   "+time",
                   "+evalsha",
                   "+script|load",
                   "+info"});
    const auto path = server_->socket().string();
    RedisLockStore narrow("unix:narrow:pw@" + path);
    EXPECT_EQ(thrown_by([&] { return narrow.claim(request()); }).fault, Fault::rejected);

    RedisLockStore mute("unix:mute:pw@" + path);
    const auto mine = std::get<0>(mute.claim(request())).ticket;
    EXPECT_EQ(thrown_by([&] { return mute.complete(mine, "done"); }).fault, Fault::rejected);

    RedisLockStore enough("unix:enough:pw@" + path);
    EXPECT_EQ(enough.claim(request()).index(), 2U);
    EXPECT_EQ(enough.renew(mine, seconds{30}), TicketState::valid);
    EXPECT_EQ(enough.complete(mine, "done"), TicketState::valid);
    EXPECT_EQ(enough.claim(request()).index(), 1U);
    EXPECT_NO_THROW(enough.verify());
}

TEST_F(RedisFaults, a_cluster_is_rejected_clearly) {
    start({"--cluster-enabled",
           "yes",
           "--cluster-port",
           std::to_string(testing_support::free_port())},
          true);
    const auto thrown = thrown_by([&] { return store().claim(request()); });
    EXPECT_EQ(thrown.fault, Fault::rejected);
    EXPECT_TRUE(thrown.says("cluster mode, which is not supported")) << thrown.what;
}

TEST_F(RedisFaults, a_replica_is_unavailable_and_its_connections_are_not_kept) {
    start();
    const auto mine = won();
    session().run({"REPLICAOF", "127.0.0.1", "1"});
    const auto thrown = thrown_by([&] { return store().claim(request("other")); });
    EXPECT_EQ(thrown.fault, Fault::unavailable);
    EXPECT_TRUE(thrown.says("replica")) << thrown.what;
    EXPECT_EQ(thrown_by([&] { return store().complete(mine, "done"); }).fault, Fault::unavailable);
    const auto connected = [&] {
        return detail::redis_info_field(session().text({"INFO", "clients"}), "connected_clients") ==
               "1";
    };
    for (int look = 0; look < 5'000 && !connected(); ++look) {
        std::this_thread::sleep_for(milliseconds{1});
    }
    EXPECT_TRUE(connected()) << "nothing but this look is connected";
    session().run({"REPLICAOF", "NO", "ONE"});
    EXPECT_EQ(store().complete(mine, "done"), TicketState::valid);
}

TEST_F(RedisFaults, a_server_at_its_limit_of_clients_is_unavailable) {
    start();
    auto only = session();
    only.run({"CONFIG", "SET", "maxclients", "1"});
    const auto thrown = thrown_by([&] { return store().claim(request()); });
    EXPECT_EQ(thrown.fault, Fault::unavailable) << thrown.what;
    only.run({"CONFIG", "SET", "maxclients", "100"});
    EXPECT_EQ(store().claim(request()).index(), 0U);
}

TEST_F(RedisFaults, bad_requests_are_refused_naming_field_and_limit_before_anything_is_written) {
    start();
    const auto refused = [&](const ClaimRequest& asked, const std::string& field) {
        try {
            static_cast<void>(store().claim(asked));
            ADD_FAILURE() << field;
        } catch (const std::invalid_argument& error) {
            EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << error.what();
        }
    };
    const std::string long_id(1'025, 'x');
    refused({.key = {"s", ""}}, "id is empty");
    refused({.key = {"s", long_id}}, "the limit is 1024");
    refused({.key = {"s", "m"}, .lease = milliseconds{0}}, "lease");
    refused({.key = {"s", "m"}, .retention = seconds{0}}, "retention");
    refused({.key = {"s", "m"}, .retention = seconds{2'000'000'000}}, "1099511627775 ms");
    refused({.key = {"s", "m"}, .token = long_id}, "token has 1025 bytes; the limit is 1024");
    EXPECT_EQ(session().number({"DBSIZE"}), 0);
}

TEST_F(RedisFaults, databases_are_told_apart) {
    start();
    RedisLockStore third(server_->address() + "?db=3");
    EXPECT_EQ(store().claim(request()).index(), 0U);
    EXPECT_EQ(third.claim(request()).index(), 0U);
    RedisLockStore none(server_->address() + "?db=99");
    EXPECT_EQ(thrown_by([&] { return none.claim(request()); }).fault, Fault::rejected);
}

TEST_F(RedisFaults, tcp_serves_as_well) {
    start({}, true);
    RedisLockStore by_tcp(server_->tcp_address() + "/0");
    const auto mine = std::get<0>(by_tcp.claim(request())).ticket;
    EXPECT_EQ(by_tcp.complete(mine, "done"), TicketState::valid);
    RedisLockStore by_name("localhost:" + std::to_string(server_->port()));
    EXPECT_EQ(by_name.claim(request()).index(), 1U);
}

TEST_F(RedisFaults, verify_accepts_a_fit_server_and_names_all_that_is_wrong_with_another) {
    start();
    EXPECT_NO_THROW(store().verify());
    session().run({"CONFIG", "SET", "maxmemory-policy", "allkeys-lru"});
    session().run({"REPLICAOF", "127.0.0.1", "1"});
    const auto thrown = thrown_by([&] { return store().verify(), 0; });
    EXPECT_EQ(thrown.fault, Fault::rejected);
    EXPECT_TRUE(thrown.says("maxmemory_policy is allkeys-lru")) << thrown.what;
    EXPECT_TRUE(thrown.says("role is slave")) << thrown.what;
}

TEST_F(RedisFaults, verify_refuses_a_server_whose_snapshots_fail) {
    start();
    const auto dump = server_->log().parent_path() / "dump.rdb";
    std::filesystem::create_directories(dump / "is a directory, and not empty");
    session().run({"BGSAVE"});
    const auto status = [&] {
        return detail::redis_info_field(session().text({"INFO", "persistence"}),
                                        "rdb_last_bgsave_status") == "err";
    };
    for (int look = 0; look < 20'000 && !status(); ++look) {
        std::this_thread::sleep_for(milliseconds{1});
    }
    const auto thrown = thrown_by([&] { return store().verify(), 0; });
    EXPECT_EQ(thrown.fault, Fault::rejected);
    EXPECT_TRUE(thrown.says("rdb_last_bgsave_status is err")) << thrown.what;
}

TEST(RedisHealth, an_old_version_and_a_cluster_are_problems) {
    const auto problems = detail::problems_of_redis("# Server\r\nredis_version:6.2.14\r\n"
                                                    "cluster_enabled:1\r\nrole:master\r\n"
                                                    "maxmemory_policy:noeviction\r\n");
    ASSERT_EQ(problems.size(), 2U);
    EXPECT_NE(problems[0].find("7.0 or later"), std::string::npos);
    EXPECT_NE(problems[1].find("Cluster is not supported"), std::string::npos);
    EXPECT_TRUE(detail::problems_of_redis("redis_version:10.0.1\r\ncluster_enabled:0\r\n").empty());
}

TEST_F(RedisFaults, a_store_made_before_a_fork_is_refused_in_the_child) {
    start();
    const auto mine = won();
    const pid_t child = ::fork();
    if (child == 0) {
        int code = 1;
        try {
            static_cast<void>(store().claim(request()));
        } catch (const std::logic_error&) {
            store().abandon(mine, "noexcept");
            code = 0;
        } catch (...) {
            code = 2;
        }
        ::_exit(code);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(store().complete(mine, "done"), TicketState::valid);
}

} // namespace
