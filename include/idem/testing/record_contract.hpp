// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_RECORD_CONTRACT_HPP
#define IDEM_TESTING_RECORD_CONTRACT_HPP

// What a record keeps, whether claimed by lease or in a transaction: key, result, fingerprint,
// attempts.

#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0::testing {

template <class Harness>
class RecordContract : public ContractTest<Harness> {
protected:
    /// What claim() throws for a key past the limits; empty where it throws nothing of the kind.
    std::string refusal(const Key& key) {
        try {
            static_cast<void>(look(this->harness(), {.key = key}));
        } catch (const std::invalid_argument& refused) {
            return refused.what();
        }
        return {};
    }
};

TYPED_TEST_SUITE_P(RecordContract);

TYPED_TEST_P(RecordContract, a_key_that_nobody_claimed_is_claimed_as_attempt_1) {
    const auto first = look(this->harness(), this->request());
    EXPECT_EQ(first.answer, Answer::claimed);
    EXPECT_EQ(first.attempt, 1U);
    EXPECT_FALSE(first.takeover);
}

TYPED_TEST_P(RecordContract, a_completed_key_answers_the_bytes_given_to_complete) {
    unsigned number = 0;
    for (const auto& bytes : byte_samples()) {
        const auto id = "m-" + std::to_string(++number);
        finish(this->harness(), this->request(id), bytes);
        for (int again = 0; again < 2; ++again) {
            const auto answer = look(this->harness(), this->request(id));
            ASSERT_EQ(answer.answer, Answer::completed) << "sample " << number;
            ASSERT_TRUE(answer.result == bytes) << "sample " << number << " came back changed, of "
                                                << answer.result.size() << " bytes";
        }
    }
}

TYPED_TEST_P(RecordContract, any_bytes_in_scope_and_id_and_no_two_keys_are_joined) {
    using namespace std::string_literals;
    const std::vector<std::pair<std::string, std::string>> keys{
        {"a:b", "c"},         {"a", "b:c"},          {"a", ":b:c"},     {"a:", "b:c"},
        {"ab", "c"},          {"a", "bc"},           {"a/b", "c"},      {"a", "b/c"},
        {"a|b", "c"},         {"a", "b|c"},          {"a\0b"s, "c"},    {"a", "\0bc"s},
        {"a\0"s, "bc"},       {"a", "b\0c"s},        {"a", "bc\0"s},    {"a", "bc "},
        {"a", " bc"},         {"A", "bc"},           {"a", "BC"},       {"1:a", "bc"},
        {"{a}", "bc"},        {"a", "{bc}"},         {"a", "{"},        {"a", "*"},
        {"a", "b?"},          {"a\nb", "c"},         {"a", "b\r\n"},    {"a'b", "c"},
        {"a", "b'--"},        {"a", "\\x6263"},      {"a", "\\"},       {"a", "%s"},
        {"\xff\xfe", "\xc3"}, {"\xff", "\xfe\xc3"},  {"a", "\xc3\xa9"}, {"a", "e\xcc\x81"},
        {"a", "\xc3\x28"},    {"a", "\xef\xbf\xbd"},
    };
    for (std::size_t at = 0; at < keys.size(); ++at) {
        const auto scope = this->scope() + keys[at].first;
        finish(this->harness(), {.key = {scope, keys[at].second}}, "result " + std::to_string(at));
    }
    for (std::size_t at = 0; at < keys.size(); ++at) {
        const auto scope = this->scope() + keys[at].first;
        const auto answer = look(this->harness(), {.key = {scope, keys[at].second}});
        ASSERT_EQ(answer.answer, Answer::completed) << "key " << at;
        ASSERT_EQ(answer.result, "result " + std::to_string(at));
    }
}

TYPED_TEST_P(RecordContract, scopes_never_interact) {
    const auto other_scope = this->scope() + "-shipping";
    const Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    const Fingerprint other_print{.high = 3, .low = 4, .algorithm = 1};
    finish(this->harness(), this->request("m-1", print), "billed");
    const auto other =
        look(this->harness(), {.key = {other_scope, "m-1"}, .fingerprint = other_print});
    EXPECT_EQ(other.answer, Answer::claimed);
    EXPECT_EQ(other.attempt, 1U);
}

TYPED_TEST_P(RecordContract, keys_up_to_the_limits_are_told_apart_by_their_last_byte) {
    const std::string scope = this->scope() + std::string(max_scope - this->scope().size(), '\xff');
    const std::string id(max_id, '\xff');
    const std::string other_id = std::string(max_id - 1, '\xff') + '\xfe';
    const std::string other_scope = scope.substr(0, max_scope - 1) + '\xfe';
    finish(this->harness(), {.key = {scope, id}}, "first");
    EXPECT_EQ(look(this->harness(), {.key = {scope, other_id}}).answer, Answer::claimed);
    EXPECT_EQ(look(this->harness(), {.key = {other_scope, id}}).answer, Answer::claimed);
    EXPECT_EQ(look(this->harness(), {.key = {scope, id}}).result, "first");
}

TYPED_TEST_P(RecordContract, keys_past_the_limits_are_refused_naming_field_and_limit) {
    const std::string long_id(max_id + 1, 'x');
    const std::string long_scope(max_scope + 1, 'x');
    EXPECT_NE(this->refusal({this->scope(), long_id}).find("id"), std::string::npos);
    EXPECT_NE(this->refusal({this->scope(), long_id}).find("1024"), std::string::npos);
    EXPECT_NE(this->refusal({long_scope, "m-1"}).find("scope"), std::string::npos);
    EXPECT_NE(this->refusal({long_scope, "m-1"}).find("128"), std::string::npos);
    EXPECT_NE(this->refusal({this->scope(), ""}).find("id"), std::string::npos);
    EXPECT_NE(this->refusal({"", "m-1"}).find("scope"), std::string::npos);
    EXPECT_EQ(look(this->harness(), this->request()).attempt, 1U) << "the store is as it was";
}

TYPED_TEST_P(RecordContract, r5_3_another_fingerprint_than_the_completed_one_is_conflict) {
    const Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    finish(this->harness(), this->request("m-1", print), "done");
    for (const Fingerprint other : {Fingerprint{.high = 9, .low = 2, .algorithm = 1},
                                    Fingerprint{.high = 1, .low = 9, .algorithm = 1}}) {
        EXPECT_EQ(look(this->harness(), this->request("m-1", other)).answer, Answer::conflict);
    }
    const auto same = look(this->harness(), this->request("m-1", print));
    EXPECT_EQ(same.answer, Answer::completed) << "a conflict changes nothing";
    EXPECT_EQ(same.result, "done");
}

TYPED_TEST_P(RecordContract, r5_3_no_fingerprint_and_another_algorithm_never_conflict) {
    const Fingerprint print{.high = ~std::uint64_t{0}, .low = 1ULL << 63U, .algorithm = 1};
    const Fingerprint of_tomorrow{.high = 7, .low = 7, .algorithm = 4'000'000'000};
    finish(this->harness(), this->request("with", print), "a");
    finish(this->harness(), this->request("without"), "b");
    finish(this->harness(), this->request("newer", of_tomorrow), "c");
    for (const Fingerprint asked : {Fingerprint{}, print, of_tomorrow}) {
        EXPECT_EQ(look(this->harness(), this->request("with", asked)).answer, Answer::completed);
        EXPECT_EQ(look(this->harness(), this->request("without", asked)).answer, Answer::completed);
        EXPECT_EQ(look(this->harness(), this->request("newer", asked)).answer, Answer::completed);
    }
}

TYPED_TEST_P(RecordContract, r5_3_the_fingerprint_survives_a_failed_attempt) {
    const Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    const Fingerprint other{.high = 3, .low = 4, .algorithm = 1};
    fail(this->harness(), this->request("m-1", print));
    EXPECT_EQ(look(this->harness(), this->request("m-1", other)).answer, Answer::conflict);
    EXPECT_EQ(look(this->harness(), this->request("m-1", print)).answer, Answer::claimed);
}

TYPED_TEST_P(RecordContract, a_failed_attempt_is_counted) {
    fail(this->harness(), this->request());
    fail(this->harness(), this->request());
    const auto third = look(this->harness(), this->request());
    EXPECT_EQ(third.answer, Answer::claimed);
    EXPECT_EQ(third.attempt, 3U);
    EXPECT_FALSE(third.takeover) << "a failure is no unknown outcome";
}

TYPED_TEST_P(RecordContract, r3_4_attempts_at_max_attempts_are_dead_and_stay_so) {
    auto asked = this->request();
    asked.max_attempts = 2;
    fail(this->harness(), asked);
    fail(this->harness(), asked);
    for (int again = 0; again < 3; ++again) {
        const auto answer = look(this->harness(), asked);
        ASSERT_EQ(answer.answer, Answer::dead);
        EXPECT_EQ(answer.attempt, 2U);
    }
    auto neighbour = this->request("m-2");
    neighbour.max_attempts = 2;
    EXPECT_EQ(look(this->harness(), neighbour).answer, Answer::claimed);
}

TYPED_TEST_P(RecordContract, max_attempts_0_is_no_limit) {
    for (unsigned attempt = 1; attempt <= 20; ++attempt) {
        fail(this->harness(), this->request());
    }
    EXPECT_EQ(look(this->harness(), this->request()).attempt, 21U);
}

TYPED_TEST_P(RecordContract, a_completed_key_is_completed_however_many_attempts_it_took) {
    auto asked = this->request();
    asked.max_attempts = 2;
    fail(this->harness(), asked);
    finish(this->harness(), asked, "on the last attempt");
    EXPECT_EQ(look(this->harness(), asked).result, "on the last attempt");
}

TYPED_TEST_P(RecordContract, records_outlive_a_restart) {
    if constexpr (TypeParam::survives_restart) {
        finish(this->harness(), this->request("done"), std::string("\0kept\xff", 6));
        fail(this->harness(), this->request("failed"));
        this->harness().restart();
        EXPECT_EQ(look(this->harness(), this->request("done")).result,
                  std::string("\0kept\xff", 6));
        EXPECT_EQ(look(this->harness(), this->request("failed")).attempt, 2U);
    } else {
        GTEST_SKIP() << "this store is lost with its process";
    }
}

REGISTER_TYPED_TEST_SUITE_P(RecordContract,
                            a_key_that_nobody_claimed_is_claimed_as_attempt_1,
                            a_completed_key_answers_the_bytes_given_to_complete,
                            any_bytes_in_scope_and_id_and_no_two_keys_are_joined,
                            scopes_never_interact,
                            keys_up_to_the_limits_are_told_apart_by_their_last_byte,
                            keys_past_the_limits_are_refused_naming_field_and_limit,
                            r5_3_another_fingerprint_than_the_completed_one_is_conflict,
                            r5_3_no_fingerprint_and_another_algorithm_never_conflict,
                            r5_3_the_fingerprint_survives_a_failed_attempt,
                            a_failed_attempt_is_counted,
                            r3_4_attempts_at_max_attempts_are_dead_and_stay_so,
                            max_attempts_0_is_no_limit,
                            a_completed_key_is_completed_however_many_attempts_it_took,
                            records_outlive_a_restart);

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_RECORD_CONTRACT_HPP
