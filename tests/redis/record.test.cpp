// SPDX-License-Identifier: MIT
// The bytes of a record and the names of keys, without a server.

#include <idem/detail/redis_record.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <string>
#include <vector>

namespace {

using namespace idem::detail;

RedisRecord full_record() {
    return {.state = RedisState::in_progress,
            .takeover = true,
            .nonce = std::string("0123456789\0bcdef", 16),
            .fingerprint = {.high = 0x0102030405060708,
                            .low = 0xfffefdfcfbfaf9f8,
                            .algorithm = 4'000'000'000},
            .grace = longest_redis_life,
            .attempts = 4'294'967'295,
            .fence = 0xf0e0d0c0b0a09080,
            .holder = std::string("holder\0\0\xff\xfe{}holr", 16),
            .text = std::string("text\0\xff", 6)};
}

void expect_equal(const RedisRecord& one, const RedisRecord& other) {
    EXPECT_EQ(one.state, other.state);
    EXPECT_EQ(one.takeover, other.takeover);
    EXPECT_EQ(one.nonce, other.nonce);
    EXPECT_EQ(one.fingerprint, other.fingerprint);
    EXPECT_EQ(one.grace, other.grace);
    EXPECT_EQ(one.attempts, other.attempts);
    EXPECT_EQ(one.fence, other.fence);
    EXPECT_EQ(one.holder, other.holder);
    EXPECT_EQ(one.text, other.text);
}

/// What a completed record still knows.
RedisRecord kept(RedisRecord record) {
    record.takeover = false;
    record.nonce.resize(6);
    record.grace = std::chrono::floor<std::chrono::seconds>(record.grace);
    record.attempts = 0;
    record.fence = 0;
    return record;
}

RedisRecord reread(const RedisRecord& record) {
    return unpack_redis_record(pack_redis_record(record)).value();
}

TEST(RedisRecord, every_field_at_its_extremes_survives_packing) {
    expect_equal(reread(full_record()), full_record());
    expect_equal(reread({}), {});
    for (const auto state : {RedisState::in_progress,
                             RedisState::free,
                             RedisState::completed,
                             RedisState::parked,
                             RedisState::dead,
                             RedisState::lapsed,
                             RedisState::issued}) {
        for (const auto& holder : {std::string(), std::string(16, '\0')}) {
            auto record = full_record();
            record.state = state;
            record.holder = holder;
            record.takeover = holder.empty();
            expect_equal(reread(record), state == RedisState::completed ? kept(record) : record);
        }
    }
}

TEST(RedisRecord, a_completed_one_keeps_what_a_duplicate_asks_for) {
    auto record = full_record();
    record.state = RedisState::completed;
    EXPECT_EQ(pack_redis_record(record).size(), 14U + 20 + 16 + 6);
    record.holder.clear();
    const auto marked = pack_redis_record(record);
    EXPECT_EQ(marked.substr(0, 4), "I1C4");
    EXPECT_EQ(marked.substr(4, 6), record.nonce.substr(0, 6));
    EXPECT_EQ(hexadecimal(marked.substr(10, 4)), "4189374b") << "seconds";
    EXPECT_EQ(hexadecimal(marked.substr(14, 20)), "ee6b28000102030405060708fffefdfcfbfaf9f8");
    EXPECT_EQ(marked.substr(34), record.text);
    record.fingerprint = {};
    expect_equal(reread(record), kept(record));
    EXPECT_EQ(pack_redis_record(record).substr(0, 4), "I1C0");
    EXPECT_EQ(pack_redis_record(record).size(), 14U + 6);
    const auto good = pack_redis_record(record);
    for (std::size_t size = 0; size < 14; ++size) {
        EXPECT_FALSE(unpack_redis_record(good.substr(0, size))) << size;
    }
    for (const char form : {'1', '4', '2', '3', '6', '8'}) {
        auto bad = good;
        bad[3] = form;
        EXPECT_FALSE(unpack_redis_record(bad)) << form << ": of another length, or none at all";
    }
}

TEST(RedisRecord, the_bytes_are_those_of_the_table) {
    const auto bytes = pack_redis_record(full_record());
    EXPECT_EQ(bytes.substr(0, 4), "I1P3");
    EXPECT_EQ(bytes.substr(4, 16), full_record().nonce);
    EXPECT_EQ(bytes.substr(20, 4), std::string("\xee\x6b\x28\x00", 4));
    EXPECT_EQ(hexadecimal(bytes.substr(24, 16)), "0102030405060708fffefdfcfbfaf9f8");
    EXPECT_EQ(hexadecimal(bytes.substr(40, 17)),
              "ffffffffffffffffff"
              "f0e0d0c0b0a09080");
    EXPECT_EQ(bytes.substr(57, 16), full_record().holder);
    EXPECT_EQ(bytes.substr(73), full_record().text);
    EXPECT_EQ(pack_redis_record({}).size(), 57U);
}

TEST(RedisRecord, what_is_no_record_is_not_read) {
    const auto good = pack_redis_record(full_record());
    for (std::size_t size = 0; size < 73; ++size) {
        EXPECT_FALSE(unpack_redis_record(good.substr(0, size))) << size;
    }
    for (const auto& [at, byte] : std::vector<std::pair<std::size_t, char>>{
             {0, 'J'}, {1, '2'}, {1, '0'}, {2, 'Z'}, {2, '\0'}, {3, '4'}, {3, '/'}}) {
        auto bad = good;
        bad[at] = byte;
        EXPECT_FALSE(unpack_redis_record(bad)) << at;
    }
    EXPECT_FALSE(unpack_redis_record("OK"));
}

TEST(RedisRecord, r5_5_a_newer_version_is_told_from_a_foreign_value) {
    auto newer = pack_redis_record({});
    newer[1] = '2';
    EXPECT_TRUE(is_newer_redis_record(newer));
    EXPECT_FALSE(is_newer_redis_record(pack_redis_record({})));
    for (const std::string foreign : {"", "I", "I2", "1", "locked", "{\"a\":1}", "In progress"}) {
        EXPECT_FALSE(is_newer_redis_record(foreign)) << foreign;
    }
}

TEST(RedisKey, no_two_keys_share_a_name) {
    const std::vector<std::string> texts{"a",
                                         "b",
                                         "ab",
                                         ":",
                                         "a:",
                                         ":a",
                                         "1:a",
                                         "a:1",
                                         "{",
                                         "}",
                                         "{}",
                                         "{a}",
                                         std::string("\0", 1),
                                         "\xff",
                                         "1",
                                         "11"};
    std::set<std::string> names;
    std::size_t count = 0;
    for (const std::string prefix : {"p", "p:", "p:1", ""}) {
        for (const auto& scope : texts) {
            for (const auto& id : texts) {
                names.insert(redis_key(prefix, {scope, id}));
                ++count;
            }
        }
    }
    EXPECT_EQ(names.size(), count);
}

TEST(RedisKey, r4_8_the_first_braces_are_the_librarys_own) {
    for (const std::string id : {"plain", "{user}", "}{", "{}", "{"}) {
        const auto name = redis_key("idem", {"{scope}", id});
        const auto open = name.find('{');
        EXPECT_EQ(open, std::string("idem:").size());
        EXPECT_EQ(name.find('}'), open + 7) << "six digits to hash";
        EXPECT_NE(name.find(id), std::string::npos) << "the id is whole";
    }
}

TEST(RedisKey, tags_spread) {
    std::set<std::string> tags;
    for (int id = 0; id < 1'000; ++id) {
        tags.insert(redis_key("idem", {"scope", std::to_string(id)}).substr(6, 6));
    }
    EXPECT_GT(tags.size(), 990U);
}

TEST(RedisKey, names_are_stable_across_releases) {
    EXPECT_EQ(redis_key("idem", {"billing", "order-1"}), "idem:{30a1c5}7:billing:order-1");
    EXPECT_EQ(hexadecimal(redis_holder_of("order-1")), "1fcc947c28438f968f59d52a050375ee");
}

TEST(Nonce, is_never_drawn_twice) {
    std::set<std::string> drawn;
    for (int i = 0; i < 10'000; ++i) {
        drawn.insert(draw_nonce());
    }
    EXPECT_EQ(drawn.size(), 10'000U);
    EXPECT_EQ(drawn.begin()->size(), 16U);
    EXPECT_EQ(fresh_token().size(), 32U);
}

} // namespace
