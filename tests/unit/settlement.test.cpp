// SPDX-License-Identifier: MIT
// The settlement of every outcome (semantics.md §7): total, and nothing is acked by default.

#include <idem/detail/backoff.hpp>
#include <idem/outcome.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace {

using idem::Action;
using idem::Fault;
using idem::milliseconds;
using idem::Status;
using idem::StoreError;
using idem::Verdict;
namespace reason = idem::reason;

template <class E>
std::exception_ptr thrown(E error) {
    return std::make_exception_ptr(std::move(error));
}

TEST(Settlement, r7_every_status_has_one) {
    const struct {
        Status status;
        Action action;
        std::string_view reason;
    } rows[] = {
        {Status::executed, Action::ack, ""},
        {Status::replayed, Action::ack, ""},
        {Status::skipped, Action::ack, ""},
        {Status::failed, Action::retry, reason::handler_failed},
        {Status::in_progress, Action::retry, reason::in_progress},
        {Status::conflict, Action::dead_letter, reason::conflict},
        {Status::dead, Action::dead_letter, reason::dead},
        {Status::parked, Action::dead_letter, reason::parked},
        {Status::refused, Action::dead_letter, reason::token_unknown},
        {Status::invalid, Action::dead_letter, reason::invalid_key},
    };
    for (const auto& row : rows) {
        Verdict verdict;
        verdict.status = row.status;
        verdict.attempts = 3;
        verdict.detail = "why";
        const auto settlement = verdict.settlement();
        EXPECT_EQ(settlement.action, row.action) << to_string(row.status);
        EXPECT_EQ(settlement.reason, row.reason) << to_string(row.status);
        EXPECT_EQ(settlement.attempts, 3U);
        EXPECT_EQ(settlement.delay > milliseconds{0}, row.action == Action::retry)
            << to_string(row.status);
        EXPECT_NE(to_string(row.status), "?");
    }
}

TEST(Settlement, a_verdicts_own_reason_detail_and_delay_are_kept) {
    Verdict verdict;
    verdict.status = Status::refused;
    verdict.reason = reason::token_spent;
    verdict.detail = "by another message";
    EXPECT_EQ(verdict.settlement().reason, reason::token_spent);
    EXPECT_EQ(verdict.settlement().detail, "by another message");
    verdict.status = Status::in_progress;
    verdict.reason = {};
    verdict.retry_after = milliseconds{1'234};
    EXPECT_EQ(verdict.settlement().delay, milliseconds{1'234});
    verdict.status = Status::failed;
    verdict.reason = reason::version_unknown;
    EXPECT_EQ(verdict.settlement().reason, reason::version_unknown);
    EXPECT_EQ(verdict.settlement().delay, milliseconds{1'234});
}

struct Thrown {
    std::exception_ptr error;
    Action action;
    std::string_view reason, detail;
    milliseconds least;
};

const Thrown by_the_handler[] = {
    {thrown(std::runtime_error("no stock")),
     Action::retry,
     reason::handler_failed,
     "no stock",
     milliseconds{1}},
    {thrown(7), Action::retry, reason::handler_failed, "not a std::exception", milliseconds{1}},
    {thrown(idem::RetryLater(milliseconds{5'000})),
     Action::retry,
     reason::retry_later,
     "",
     milliseconds{5'000}},
    {thrown(idem::Unprocessable("no such customer")),
     Action::dead_letter,
     reason::unprocessable,
     "no such customer",
     milliseconds{0}},
    {thrown(idem::NotDone("connection refused")),
     Action::retry,
     reason::handler_failed,
     "connection refused",
     milliseconds{1}},
    {nullptr, Action::retry, reason::handler_failed, "", milliseconds{1}},
};

const Thrown by_the_store[] = {
    {thrown(StoreError(Fault::unavailable, "down")),
     Action::retry,
     reason::store_unavailable,
     "down",
     milliseconds{1}},
    {thrown(StoreError(Fault::in_doubt, "link")),
     Action::retry,
     reason::store_in_doubt,
     "link",
     milliseconds{1}},
    {thrown(StoreError(Fault::lease_lost, "late")),
     Action::retry,
     reason::lease_lost,
     "late",
     milliseconds{1}},
    {thrown(StoreError(Fault::rejected, "no table")),
     Action::stop,
     reason::store_rejected,
     "no table",
     milliseconds{0}},
};

void expect_row(const idem::Settlement& settlement, const Thrown& row) {
    EXPECT_EQ(settlement.action, row.action) << row.detail;
    EXPECT_EQ(settlement.reason, row.reason);
    EXPECT_EQ(settlement.detail, row.detail);
    EXPECT_GE(settlement.delay, row.least);
}

TEST(Settlement, r7_settlement_of_what_a_plain_call_threw) {
    for (const auto& row : by_the_handler) {
        expect_row(idem::settlement_of(row.error), row);
    }
    for (const auto& row : by_the_store) {
        expect_row(idem::settlement_of(row.error), row);
    }
}

TEST(Settlement, r7_of_a_failed_verdict_follows_what_was_thrown_and_carries_the_attempts) {
    for (const auto& row : by_the_handler) {
        Verdict verdict;
        verdict.status = Status::failed;
        verdict.error = row.error;
        verdict.attempts = 4;
        EXPECT_EQ(verdict.settlement().action, row.action) << row.detail;
        EXPECT_EQ(verdict.settlement().reason, row.reason);
        EXPECT_EQ(verdict.settlement().attempts, 4U);
    }
    const Fault faults[] = {
        Fault::unavailable, Fault::in_doubt, Fault::lease_lost, Fault::rejected};
    for (std::size_t at = 0; at < std::size(faults); ++at) {
        Verdict verdict;
        verdict.status = Status::failed;
        verdict.error = by_the_store[at].error;
        verdict.fault = faults[at];
        expect_row(verdict.settlement(), by_the_store[at]);
    }
}

TEST(Settlement, r3_9_a_store_error_of_a_nested_consumer_is_the_handlers_failure) {
    for (const auto& row : by_the_store) {
        Verdict verdict;
        verdict.status = Status::failed;
        verdict.error = row.error; // and no fault: this store did not fail
        EXPECT_EQ(verdict.settlement().action, Action::retry) << row.detail;
        EXPECT_EQ(verdict.settlement().reason, reason::handler_failed);
    }
}

TEST(RetryDelay, r7_1_what_a_handler_asked_for_is_exact_and_the_longest_lies_ahead) {
    const auto asked = [](milliseconds delay) {
        idem::detail::Jitter jitter;
        return idem::detail::retry_delay(
            idem::settlement_of(thrown(idem::RetryLater(delay))), 1, jitter);
    };
    EXPECT_EQ(asked(milliseconds{1'234}), milliseconds{1'234});
    EXPECT_EQ(asked(milliseconds{0}), milliseconds{1});
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::hours a_year{24 * 365};
    EXPECT_GE(now + asked(a_year), now + a_year);
    EXPECT_GE(now + asked(300 * a_year), now + a_year) << "a time to which 300 years are too many";
    EXPECT_GE(now + asked(milliseconds::max()), now + a_year);
}

} // namespace
