// SPDX-License-Identifier: MIT
// MemoryStore's table while it grows, and while slots are used again.

#include <idem/store/memory.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <string_view>
#include <vector>

#include "strategy/virtual_clock.hpp"

namespace {

using idem::milliseconds;
using idem::seconds;
using idem::TicketState;
using idem::testing::Answer;
using idem::testing::answer_of;
using idem::testing::must_claim;
using Store = idem::BasicMemoryStore<VirtualClock>;

idem::ClaimRequest request(std::string_view id, seconds retention = seconds{3'600}) {
    return {.key = {"billing", id}, .lease = milliseconds{1'000}, .retention = retention};
}

class MemoryGrowth : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(TextAndCompact, MemoryGrowth, testing::Bool());

TEST_P(MemoryGrowth, of_four_threads_that_claim_the_same_keys_one_claims_each) {
    Store store({.compact = GetParam()});
    constexpr unsigned keys = 60'000;
    std::vector<std::atomic<unsigned char>> claims(keys);
    std::atomic<unsigned> wrong{0};
    idem::testing::in_parallel(4, [&](unsigned thread) {
        for (unsigned number = 0; number < keys; ++number) {
            const auto key = thread % 2 == 0 ? number : keys - 1 - number;
            const auto id = std::to_string(key);
            const auto claim = store.claim(request(id));
            if (const auto* mine = std::get_if<0>(&claim)) {
                ++claims[key];
                wrong += store.complete(mine->ticket, id) == TicketState::outdated;
            } else if (const auto* done = std::get_if<idem::Completed>(&claim)) {
                wrong += done->result != id;
            } else {
                wrong += !std::holds_alternative<idem::InProgress>(claim);
            }
        }
    });
    for (unsigned key = 0; key < keys; ++key) {
        ASSERT_EQ(claims[key], 1U) << "key " << key;
    }
    EXPECT_EQ(wrong, 0U);
    EXPECT_EQ(store.size(), keys);
}

TEST_P(MemoryGrowth, batches_of_four_threads_claim_each_key_once) {
    Store store({.compact = GetParam()});
    constexpr unsigned keys = 20'000;
    std::atomic<unsigned> claimed{0};
    idem::testing::in_parallel(4, [&](unsigned thread) {
        std::vector<std::string> ids;
        std::vector<idem::ClaimRequest> asked;
        for (unsigned from = 0; from < keys; from += 50) {
            ids.clear();
            asked.clear();
            for (unsigned at = from; at < from + 50; ++at) {
                ids.push_back(std::to_string((at + thread * keys / 4) % keys));
            }
            for (const auto& id : ids) {
                asked.push_back(request(id));
            }
            for (const auto& claim : store.claim(std::span<const idem::ClaimRequest>(asked))) {
                claimed += answer_of(claim) == Answer::claimed;
            }
        }
    });
    EXPECT_EQ(claimed, keys);
    EXPECT_EQ(store.size(), keys);
}

TEST_P(MemoryGrowth, tickets_stay_good_while_the_table_moves_their_records) {
    Store store({.compact = GetParam()});
    std::vector<Store::Ticket> tickets;
    for (int number = 0; number < 30'000; ++number) {
        tickets.push_back(must_claim(store.claim(request(std::to_string(number)))).ticket);
    }
    for (const auto& ticket : tickets) {
        ASSERT_EQ(store.renew(ticket, milliseconds{5'000}), TicketState::valid);
        ASSERT_EQ(store.complete(ticket, "done"), TicketState::valid);
    }
}

TEST_P(MemoryGrowth, a_million_short_lived_keys_leave_little_behind) {
    Store store({.compact = GetParam()});
    std::size_t most_bytes = 0, most_records = 0;
    for (int number = 0; number < 1'000'000; ++number) {
        const auto mine = must_claim(store.claim(request(std::to_string(number), seconds{10})));
        ASSERT_EQ(store.complete(mine.ticket, {}), TicketState::valid);
        VirtualClock::advance(milliseconds{1}); // so 10,000 live at a time
        if (number % 10'000 == 0) {
            most_bytes = std::max(most_bytes, store.bytes());
            most_records = std::max(most_records, store.size());
        }
    }
    EXPECT_LT(most_records, 30'000U);
    EXPECT_LT(most_bytes, 30'000U * (GetParam() ? 100 : 200));
}

TEST_P(MemoryGrowth, r9_4_a_ticket_of_a_record_that_is_gone_changes_no_other_in_its_slot) {
    Store store({.max_records = 200, .compact = GetParam()});
    std::vector<Store::Ticket> old;
    for (int number = 0; number < 200; ++number) {
        old.push_back(
            must_claim(store.claim(request("old-" + std::to_string(number), seconds{1}))).ticket);
    }
    VirtualClock::advance(seconds{10});
    std::vector<Store::Ticket> held;
    for (int number = 0; number < 200; ++number) {
        const auto id = number % 2 == 0 ? "old-" + std::to_string(number) : std::to_string(number);
        const auto mine = must_claim(store.claim(request(id)));
        EXPECT_EQ(mine.attempt, 1U);
        held.push_back(mine.ticket);
    }
    for (const auto& ticket : old) {
        EXPECT_EQ(store.complete(ticket, "late"), TicketState::outdated);
        EXPECT_EQ(store.renew(ticket, milliseconds{1}), TicketState::outdated);
        EXPECT_EQ(store.park(ticket, "late"), TicketState::outdated);
        store.abandon(ticket, "late");
        store.refund(ticket);
    }
    for (const auto& ticket : held) {
        EXPECT_EQ(store.complete(ticket, "mine"), TicketState::valid);
    }
}

TEST_P(MemoryGrowth, a_retention_of_years_is_kept_and_ends) {
    Store store({.compact = GetParam()});
    constexpr seconds years = std::chrono::hours{24 * 365 * 3};
    const auto mine = must_claim(store.claim(request("m-1", years)));
    ASSERT_EQ(store.complete(mine.ticket, "done"), TicketState::valid);
    VirtualClock::advance(years - seconds{1});
    EXPECT_EQ(answer_of(store.claim(request("m-1"))), Answer::completed);
    VirtualClock::advance(seconds{3'602});
    EXPECT_EQ(must_claim(store.claim(request("m-1"))).attempt, 1U);
}

TEST_P(MemoryGrowth, attempts_are_counted_however_many) {
    Store store({.compact = GetParam()});
    auto asked = request("m-1");
    asked.max_attempts = 300;
    for (unsigned attempt = 1; attempt <= 300; ++attempt) {
        auto mine = must_claim(store.claim(asked));
        ASSERT_EQ(mine.attempt, attempt);
        store.refund(mine.ticket);
        mine = must_claim(store.claim(asked));
        ASSERT_EQ(mine.attempt, attempt);
        store.abandon(mine.ticket, "failed");
    }
    EXPECT_EQ(idem::testing::must_be<idem::Dead>(store.claim(asked)).attempts, 300U);
}

} // namespace
