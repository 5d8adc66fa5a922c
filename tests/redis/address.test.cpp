// SPDX-License-Identifier: MIT
// How a server is named, and what a malformed name says.

#include <idem/detail/redis_address.hpp>
#include <idem/store/redis_lock.hpp>

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

namespace {

using idem::detail::parse_redis_address;

using Parts = std::tuple<std::string, int, std::string, std::string, std::string, unsigned>;

Parts parts(const std::string& text) {
    const auto address = parse_redis_address(text);
    return {address.path.empty() ? address.host : "",
            address.path.empty() ? int{address.port} : 0,
            address.path,
            address.user,
            address.password,
            address.database};
}

TEST(RedisAddress, the_usual_forms_are_read) {
    const std::vector<std::pair<std::string, Parts>> forms{
        {"redis://localhost", {"localhost", 6379, "", "", "", 0}},
        {"redis://localhost/", {"localhost", 6379, "", "", "", 0}},
        {"redis://host:7000/3", {"host", 7000, "", "", "", 3}},
        {"redis://host?db=3", {"host", 6379, "", "", "", 3}},
        {"redis://bob:pw@host:1/2", {"host", 1, "", "bob", "pw", 2}},
        {"redis://:pw@host", {"host", 6379, "", "", "pw", 0}},
        {"redis://b%40b:p%3a%2f%40@host", {"host", 6379, "", "b@b", "p:/@", 0}},
        {"redis://[::1]:7000/1", {"::1", 7000, "", "", "", 1}},
        {"redis://[::1]", {"::1", 6379, "", "", "", 0}},
        {"127.0.0.1:6380", {"127.0.0.1", 6380, "", "", "", 0}},
        {"redis.internal", {"redis.internal", 6379, "", "", "", 0}},
        {"unix:/run/redis.sock", {"", 0, "/run/redis.sock", "", "", 0}},
        {"unix:///run/redis.sock?db=4", {"", 0, "/run/redis.sock", "", "", 4}},
        {"unix:bob:pw@/run/r%20s", {"", 0, "/run/r s", "bob", "pw", 0}},
        {"/run/redis.sock", {"", 0, "/run/redis.sock", "", "", 0}},
    };
    for (const auto& [text, expected] : forms) {
        EXPECT_EQ(parts(text), expected) << text;
    }
}

TEST(RedisAddress, a_malformed_one_says_what_is_wrong_and_never_the_password) {
    const std::vector<std::pair<std::string, std::string>> wrong{
        {"", "empty"},
        {std::string("ho\0st", 5), "NUL"},
        {"redis://", "host is empty"},
        {"redis://:7000", "host is empty"},
        {"redis://u:secret@:1", "host is empty"},
        {"redis://u:secret@host:seven", "port must be a number"},
        {"redis://u:secret@host:65536", "port must be a number"},
        {"redis://u:secret@host:", "port must be a number"},
        {"redis://u:secret@host/zero", "database must be a number"},
        {"redis://u:secret@host/-1", "database must be a number"},
        {"redis://u:secret@host?timeout=3", "db=n"},
        {"redis://u:secret%zz@host", "% in the password"},
        {"redis://u:secret%4@host", "% in the password"},
        {"redis://onlyuser@host", "user needs a password"},
        {"redis://[::1", "without ]"},
        {"redis://[::1]7000", "may follow the ]"},
        {"rediss://u:secret@host", "TLS"},
        {"http://u:secret@host", "unknown scheme"},
        {"unix:run/redis.sock", "begin with /"},
        {"unix:", "begin with /"},
    };
    for (const auto& [text, expected] : wrong) {
        try {
            static_cast<void>(parse_redis_address(text));
            ADD_FAILURE() << text << " was read";
        } catch (const std::invalid_argument& error) {
            const std::string what = error.what();
            EXPECT_NE(what.find(expected), std::string::npos) << what;
            EXPECT_EQ(what.find("secret"), std::string::npos) << what;
        }
    }
}

TEST(RedisLockStore, a_wrong_address_or_option_is_refused_at_construction) {
    EXPECT_THROW(idem::RedisLockStore("redis://host:x"), std::invalid_argument);
    EXPECT_THROW(idem::RedisLockStore("host", {.prefix = "a{b"}), std::invalid_argument);
    EXPECT_THROW(idem::RedisLockStore("host", {.prefix = "}"}), std::invalid_argument);
    EXPECT_THROW(idem::RedisLockStore("host", {.connections = 0}), std::invalid_argument);
    EXPECT_THROW(idem::RedisLockStore("host", {.deadline = idem::milliseconds{0}}),
                 std::invalid_argument);
    EXPECT_NO_THROW(idem::RedisLockStore("nowhere.invalid")) << "connects at its first call";
}

} // namespace
