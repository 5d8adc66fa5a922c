// SPDX-License-Identifier: MIT
// Who owns an id, which keys are refused, and when two fingerprints conflict.

#include <idem/key.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace {

using idem::Fingerprint;
using idem::Id;

bool points_into(std::string_view view, const std::string& text) {
    return view.data() == text.data();
}

TEST(Id, borrows_lvalues_views_and_literals) {
    std::string text = "an id that is too long for the small string optimisation";
    const std::string& constant = text;
    EXPECT_TRUE(points_into(Id(text).view(), text));
    EXPECT_TRUE(points_into(Id(constant).view(), text));
    EXPECT_TRUE(points_into(Id(std::string_view(text)).view(), text));
    EXPECT_TRUE(points_into(Id(text.c_str()).view(), text));
    const char* literal = "literal";
    EXPECT_EQ(Id(literal).view().data(), literal);
    EXPECT_EQ(Id("literal").view(), "literal");
}

struct Reference { // a user's own type that converts
    std::string text;
    operator std::string_view() const { return text; } // NOLINT(google-explicit-constructor)
};

TEST(Id, owns_temporaries) {
    const std::string number = "order-7-which-is-too-long-for-the-small-string-optimisation";
    const Id sum("p:" + number);
    const Id moved = [&] {
        std::string local = number;
        return Id(std::move(local));
    }();
    const Id converted(Reference{number});
    EXPECT_EQ(sum.view(), "p:" + number);
    EXPECT_EQ(moved.view(), number);
    EXPECT_EQ(converted.view(), number);
}

TEST(Id, of_a_const_temporary_is_owned_too) {
    auto make = []() -> const std::string { // NOLINT(readability-const-return-type)
        return "a constant that is too long for the small string optimisation";
    };
    const Id id(make());
    EXPECT_EQ(id.view(), make());
}

TEST(Id, copies_and_moves_keep_their_text_small_and_large) {
    for (const std::string& text : {std::string("tiny"), std::string(200, 'x')}) {
        Id first(std::string{text});
        const Id copy = first;
        Id moved = std::move(first);
        EXPECT_EQ(copy.view(), text);
        EXPECT_EQ(moved.view(), text);
        moved = Id(7);
        EXPECT_EQ(moved.view(), "7");
        moved = copy;
        EXPECT_EQ(moved.view(), text);
    }
}

TEST(Id, writes_numbers_in_decimal) {
    EXPECT_EQ(Id(0).view(), "0");
    EXPECT_EQ(Id(-1).view(), "-1");
    EXPECT_EQ(Id(std::numeric_limits<std::int64_t>::min()).view(), "-9223372036854775808");
    EXPECT_EQ(Id(std::numeric_limits<std::uint64_t>::max()).view(), "18446744073709551615");
    EXPECT_EQ(Id(std::uint8_t{200}).view(), "200");
    EXPECT_EQ(Id(std::int8_t{-5}).view(), "-5");
}

TEST(Id, keeps_any_bytes) {
    const std::string bytes("a\0b\xff", 4);
    EXPECT_EQ(Id(bytes).view(), bytes);
    EXPECT_EQ(Id(std::string(bytes)).view(), bytes);
}

static_assert(!std::constructible_from<Id, double>, "0.1 + 0.2 is no id");
static_assert(!std::constructible_from<Id, bool>);

TEST(Key, problem_of_names_the_field_and_the_limit) {
    const std::string long_scope(129, 's');
    const std::string long_id(1'025, 'i');
    EXPECT_EQ(idem::problem_of({"billing", "m-1"}), "");
    EXPECT_EQ(idem::problem_of(
                  {std::string_view(long_scope).substr(1), std::string_view(long_id).substr(1)}),
              "");
    EXPECT_EQ(idem::problem_of({long_scope, "m-1"}), "idem: scope has 129 bytes; the limit is 128");
    EXPECT_EQ(idem::problem_of({"billing", long_id}), "idem: id has 1025 bytes; the limit is 1024");
    EXPECT_NE(idem::problem_of({"", "m-1"}).find("scope is empty"), std::string::npos);
    EXPECT_NE(idem::problem_of({"billing", ""}).find("id is empty"), std::string::npos);
    EXPECT_THROW(idem::require_valid({"billing", ""}), std::invalid_argument);
    EXPECT_NO_THROW(idem::require_valid({"billing", std::string_view("\0", 1)}));
}

TEST(Fingerprint, r5_3_conflicts_where_the_algorithm_is_the_same_and_the_digest_is_not) {
    const Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    EXPECT_FALSE(print.conflicts_with(print));
    EXPECT_TRUE(print.conflicts_with({.high = 9, .low = 2, .algorithm = 1}));
    EXPECT_TRUE(print.conflicts_with({.high = 1, .low = 9, .algorithm = 1}));
    EXPECT_FALSE(print.conflicts_with({.high = 9, .low = 9, .algorithm = 2}))
        << "another algorithm";
    EXPECT_FALSE(print.conflicts_with({})) << "no opinion";
    EXPECT_FALSE(Fingerprint{}.conflicts_with(print));
    EXPECT_FALSE(Fingerprint{}.conflicts_with({.high = 9})) << "no opinion on either side";
}

TEST(Fingerprint, of_a_payload_is_the_same_in_every_release) {
    const auto print = idem::fingerprint_of("a payload");
    EXPECT_EQ(print, idem::fingerprint_of(std::string("a payload")));
    EXPECT_EQ(print.algorithm, 1U);
    EXPECT_TRUE(print.conflicts_with(idem::fingerprint_of("a payloae")));
    EXPECT_TRUE(
        idem::fingerprint_of("").conflicts_with(idem::fingerprint_of(std::string_view("\0", 1))));
    // Written in records: a change of these numbers makes every stored fingerprint a conflict.
    EXPECT_EQ(idem::fingerprint_of("").high, 0x1cc9b05119bd23a4);
    EXPECT_EQ(idem::fingerprint_of("").low, 0xc5b25cd417b66235);
}

} // namespace
