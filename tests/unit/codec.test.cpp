// SPDX-License-Identifier: MIT
// Results become bytes and come back; what cannot be read back is said so.

#include <idem/codec.hpp>
#include <idem/outcome.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>

namespace {

using idem::Codec;

template <class T>
T there_and_back(const T& value) {
    return Codec<T>::decode(Codec<T>::encode(value));
}

/// The shape of std::expected, which is not on the floor.
template <class T, class E>
class Expected {
public:
    using value_type = T;
    Expected(T value) : held_(std::move(value)) {} // NOLINT(google-explicit-constructor)
    static Expected failure(E error) {
        Expected failed{T{}};
        failed.held_.template emplace<1>(std::move(error));
        return failed;
    }
    [[nodiscard]] bool has_value() const { return held_.index() == 0; }
    [[nodiscard]] const T& operator*() const { return std::get<0>(held_); }
    [[nodiscard]] const E& error() const { return std::get<1>(held_); }

private:
    std::variant<T, E> held_;
};

struct NoCodec {};
struct HalfCodec {};

} // namespace

template <>
struct idem::Codec<HalfCodec> {
    static std::string encode(const HalfCodec&) { return {}; }
};

namespace {

TEST(Codec, strings_come_back_byte_for_byte) {
    for (const auto& text : {std::string(), std::string("\0", 1), std::string("\1\xff\0x", 4)}) {
        EXPECT_EQ(there_and_back(text), text);
    }
}

TEST(Codec, numbers_come_back_to_the_same_value) {
    EXPECT_EQ(there_and_back(std::numeric_limits<std::int64_t>::min()),
              std::numeric_limits<std::int64_t>::min());
    EXPECT_EQ(there_and_back(std::numeric_limits<std::uint64_t>::max()),
              std::numeric_limits<std::uint64_t>::max());
    EXPECT_EQ(there_and_back(std::int8_t{-128}), -128);
    EXPECT_EQ(there_and_back(std::uint16_t{65'535}), 65'535);
    for (const double number :
         {0.1, -0.0, 1e308, 5e-324, std::numeric_limits<double>::infinity()}) {
        EXPECT_EQ(there_and_back(number), number);
        EXPECT_EQ(std::signbit(there_and_back(number)), std::signbit(number));
    }
    EXPECT_TRUE(std::isnan(there_and_back(std::numeric_limits<double>::quiet_NaN())));
    EXPECT_EQ(there_and_back(std::numeric_limits<float>::denorm_min()),
              std::numeric_limits<float>::denorm_min());
    EXPECT_EQ(there_and_back(std::numeric_limits<long double>::max()),
              std::numeric_limits<long double>::max());
}

TEST(Codec, characters_and_bools_come_back) {
    for (int byte = -128; byte < 128; ++byte) {
        EXPECT_EQ(there_and_back(static_cast<signed char>(byte)), byte);
        EXPECT_EQ(there_and_back(static_cast<char>(byte)), static_cast<char>(byte));
    }
    EXPECT_TRUE(there_and_back(true));
    EXPECT_FALSE(there_and_back(false));
}

TEST(Codec, what_is_no_such_number_is_refused) {
    for (const char* bytes : {"", " 7", "7 ", "seven", "7x", "0x7", "1e2"}) {
        EXPECT_THROW(Codec<int>::decode(bytes), std::invalid_argument) << '"' << bytes << '"';
    }
    EXPECT_THROW(Codec<std::uint8_t>::decode("256"), std::invalid_argument) << "out of range";
    EXPECT_THROW(Codec<unsigned>::decode("-1"), std::invalid_argument);
    EXPECT_THROW(Codec<bool>::decode(""), std::invalid_argument);
    EXPECT_THROW(Codec<bool>::decode("true"), std::invalid_argument);
}

TEST(Codec, an_expected_like_success_is_kept_as_its_value) {
    using Result = Expected<int, std::string>;
    static_assert(idem::FailureValued<Result> && idem::Storable<Result>);
    EXPECT_EQ(Codec<Result>::encode(Result(42)), Codec<int>::encode(42));
    EXPECT_EQ(*Codec<Result>::decode("42"), 42);
    EXPECT_THROW(Codec<Result>::decode("none"), std::invalid_argument);
}

static_assert(idem::Storable<void> && idem::Storable<std::string> && idem::Storable<long>);
static_assert(!idem::Storable<NoCodec> && !idem::Storable<HalfCodec>);
static_assert(!idem::Storable<const char*> && !idem::Storable<std::string_view>);
static_assert(!idem::FailureValued<std::optional<int>>, "an empty optional is no failure");
static_assert(!idem::FailureValued<std::string> && !idem::FailureValued<int>);

TEST(StoredResult, void_a_value_an_empty_value_and_an_omitted_one_are_told_apart) {
    using namespace std::string_literals;
    EXPECT_EQ(idem::stored_result(""), "\1"s);
    EXPECT_EQ(idem::stored_result("abc"), "\1abc"s);
    EXPECT_EQ(idem::stored_result("\0"s), "\1\0"s);
    EXPECT_EQ(idem::omitted_result(), "\0"s);
    EXPECT_TRUE(idem::is_omitted(idem::omitted_result()));
    EXPECT_FALSE(idem::is_omitted("")) << "void";
    EXPECT_FALSE(idem::is_omitted(idem::stored_result("")));
    EXPECT_FALSE(idem::is_omitted(idem::stored_result("\0"s)));
    EXPECT_FALSE(idem::is_omitted("\0x"s));
}

} // namespace
