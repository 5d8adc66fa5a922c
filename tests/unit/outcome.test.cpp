// SPDX-License-Identifier: MIT
// What an outcome holds, and that one in the user's own transaction cannot be acked before COMMIT.

#include <idem/outcome.hpp>

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

using idem::Outcome;
using idem::Status;
using idem::Uncommitted;
using idem::Verdict;

Verdict with(Status status) {
    Verdict verdict;
    verdict.status = status;
    return verdict;
}
Verdict failed() {
    Verdict verdict = with(Status::failed);
    verdict.error = std::make_exception_ptr(std::out_of_range("no stock"));
    return verdict;
}

TEST(Outcome, gives_its_value_and_moves_it_out) {
    Outcome<std::unique_ptr<int>> outcome(with(Status::executed), std::make_unique<int>(7));
    EXPECT_TRUE(outcome.has_value());
    EXPECT_EQ(*outcome.value(), 7);
    EXPECT_EQ(*std::move(outcome).value(), 7);
}

TEST(Outcome, without_a_value_rethrows_the_error) {
    const Outcome<int> outcome(failed());
    EXPECT_FALSE(outcome.has_value());
    EXPECT_NE(outcome.error(), nullptr);
    EXPECT_THROW(static_cast<void>(outcome.value()), std::out_of_range);
}

TEST(Outcome, r5_4_without_value_or_error_throws_result_unavailable_naming_the_status) {
    try {
        static_cast<void>(Outcome<std::string>(with(Status::skipped)).value());
        FAIL() << "no throw";
    } catch (const idem::ResultUnavailable& error) {
        EXPECT_NE(std::string(error.what()).find("skipped"), std::string::npos) << error.what();
    }
}

TEST(Outcome, of_void_has_a_value_or_throws) {
    const Outcome<void> done(with(Status::replayed), std::true_type{});
    EXPECT_TRUE(done.has_value());
    EXPECT_NO_THROW(done.value());
    EXPECT_THROW(Outcome<void>(with(Status::in_progress)).value(), idem::ResultUnavailable);
    EXPECT_THROW(Outcome<void>(failed()).value(), std::out_of_range);
}

TEST(Outcome, retry_after_is_the_settlements_delay) {
    auto verdict = with(Status::in_progress);
    verdict.retry_after = idem::milliseconds{700};
    verdict.attempts = 2;
    const Outcome<int> outcome(verdict);
    EXPECT_EQ(outcome.retry_after(), idem::milliseconds{700});
    EXPECT_EQ(outcome.attempts(), 2U);
}

template <class T>
concept Settles = requires(T outcome) {
    outcome.settlement();
};
template <class T>
concept LvalueCommits = requires(T& outcome) {
    outcome.committed();
};

static_assert(Settles<Outcome<int>> && !Settles<Uncommitted<int>>,
              "r1_6: no settlement before the user's own COMMIT");
static_assert(!LvalueCommits<Uncommitted<int>>, "committed() uses the outcome up");

TEST(Uncommitted, r1_6_committed_gives_the_outcome) {
    Uncommitted<int> open(Outcome<int>(with(Status::executed), 7));
    EXPECT_EQ(open.status(), Status::executed);
    EXPECT_EQ(open.value(), 7);
    const auto outcome = std::move(open).committed();
    EXPECT_EQ(outcome.settlement().action, idem::Action::ack);
    EXPECT_EQ(outcome.value(), 7);
}

TEST(Uncommitted, r1_6_rolled_back_is_retry_and_holds_no_value) {
    for (const auto status : {Status::executed, Status::replayed, Status::in_progress}) {
        Uncommitted<int> open(Outcome<int>(with(status), 7));
        const auto outcome = std::move(open).rolled_back();
        EXPECT_EQ(outcome.status(), Status::failed);
        EXPECT_EQ(outcome.settlement().action, idem::Action::retry);
        EXPECT_FALSE(outcome.has_value());
    }
}

} // namespace
