// SPDX-License-Identifier: MIT
// NaturallyIdempotent: the handler's own row decides (semantics.md 6.2).

#include <idem/consumer.hpp>
#include <idem/strategy/naturally_idempotent.hpp>

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>

#include "strategy/came_out.hpp"

namespace {

using idem::Action;
using idem::Fingerprint;
using idem::Identity;
using idem::RowFence;
using idem::Status;

struct Update {
    std::string id = "m-1";
    std::optional<std::uint64_t> version = 5;
};

constexpr Fingerprint print{.high = 1, .low = 2, .algorithm = 1},
    other_print{.high = 3, .low = 4, .algorithm = 1};

class NaturallyIdempotent : public ::testing::Test {
protected:
    /// Handles one update; `statement` is what the handler's statement came to.
    static auto handle(std::function<void(RowFence&)> statement, const Update& update = {}) {
        const auto apply =
            idem::IdempotentConsumer{idem::no_store, idem::NaturallyIdempotent{}}.wrap(
                "profile",
                [](const Update& message) {
                    return Identity{
                        .id = message.id, .fingerprint = print, .version = message.version};
                },
                [&](const Update&, RowFence& fence) { statement(fence); });
        return apply.handle(update);
    }
};

TEST_F(NaturallyIdempotent, an_untouched_fence_and_rows_that_changed_are_executed) {
    EXPECT_EQ(handle([](RowFence&) {}).status(), Status::executed);
    EXPECT_EQ(handle([](RowFence& fence) { fence.rows(1); }).status(), Status::executed);
    EXPECT_EQ(handle([](RowFence& fence) { fence.rows(7); }).status(), Status::executed);
}

TEST_F(NaturallyIdempotent, r6_2_no_rows_is_a_duplicate) {
    const auto outcome = handle([](RowFence& fence) { fence.rows(0); });
    EXPECT_EQ(outcome.status(), Status::skipped);
    EXPECT_EQ(outcome.settlement().action, Action::ack);
}

TEST_F(NaturallyIdempotent, r6_2_the_row_that_refused_decides) {
    const struct {
        std::optional<std::uint64_t> version;
        Fingerprint fingerprint;
        Status status;
        Action action;
    } rows[] = {
        {6, {}, Status::skipped, Action::ack},                   // newer: ours is stale
        {6, other_print, Status::skipped, Action::ack},          // whatever its payload
        {5, {}, Status::skipped, Action::ack},                   // equal, no opinion
        {5, print, Status::skipped, Action::ack},                // a duplicate
        {5, other_print, Status::conflict, Action::dead_letter}, // equal, another payload
        {std::nullopt, {}, Status::failed, Action::retry},       // it overtook its create
        {4, {}, Status::failed, Action::retry},          // which came between statement and look
        {4, other_print, Status::failed, Action::retry}, // whatever its payload
    };
    for (const auto& row : rows) {
        const auto outcome = handle([&](RowFence& fence) {
            fence.rows(0);
            fence.found(row.version, row.fingerprint);
        });
        EXPECT_EQ(outcome.status(), row.status);
        EXPECT_EQ(outcome.settlement().action, row.action);
    }
}

TEST_F(NaturallyIdempotent, r6_2_no_rows_and_no_row_says_why_it_is_retried) {
    const auto outcome = handle([](RowFence& fence) {
        fence.rows(0);
        fence.found({});
    });
    EXPECT_EQ(outcome.settlement().reason, idem::reason::version_unknown);
    EXPECT_FALSE(outcome.has_value());
}

TEST_F(NaturallyIdempotent, the_version_is_the_messages_and_without_one_it_is_unprocessable) {
    std::uint64_t version = 0;
    EXPECT_EQ(handle([&](RowFence& fence) { version = fence.version(); }).status(),
              Status::executed);
    EXPECT_EQ(version, 5U);
    const auto outcome =
        handle([](RowFence& fence) { static_cast<void>(fence.version()); }, {.version = {}});
    EXPECT_EQ(outcome.settlement().action, Action::dead_letter);
}

TEST_F(NaturallyIdempotent, exceptions_are_the_handlers) {
    EXPECT_EQ(handle([](RowFence&) { throw std::runtime_error("down"); }).settlement().action,
              Action::retry);
    EXPECT_EQ(handle([](RowFence&) { throw idem::Unprocessable("no"); }).settlement().action,
              Action::dead_letter);
}

TEST_F(NaturallyIdempotent, without_a_context_the_handler_runs_for_every_delivery) {
    int runs = 0;
    const auto apply = idem::IdempotentConsumer{idem::no_store, idem::NaturallyIdempotent{}}.wrap(
        "profile", &Update::id, [&](const Update&) { return ++runs; });
    EXPECT_EQ(apply(Update{}).value(), 1);
    EXPECT_EQ(apply(Update{}).value(), 2);
}

} // namespace
