// SPDX-License-Identifier: MIT
// MemoryStore at its bound: it refuses rather than forgets, unless asked to (semantics.md §8).

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
using idem::testing::Answer;
using idem::testing::answer_of;
using idem::testing::must_claim;
using Store = idem::BasicMemoryStore<VirtualClock>;

idem::ClaimRequest request(std::string_view id, seconds retention = seconds{3'600}) {
    return {.key = {"billing", id}, .lease = milliseconds{30'000}, .retention = retention};
}

void complete(Store& store, std::string_view id, seconds retention = seconds{3'600}) {
    const auto mine = must_claim(store.claim(request(id, retention)));
    ASSERT_EQ(store.complete(mine.ticket, "done"), idem::TicketState::valid);
}

/// What a claim of a full store throws; empty where it threw nothing.
std::string refusal(Store& store, std::string_view id) {
    try {
        static_cast<void>(store.claim(request(id)));
    } catch (const idem::StoreError& error) {
        EXPECT_EQ(error.fault(), idem::Fault::unavailable);
        return error.what();
    }
    return {};
}

TEST(MemoryBound, r8_at_the_bound_a_claim_is_unavailable_and_names_the_option) {
    Store store({.max_records = 3});
    for (const char* id : {"m-1", "m-2", "m-3"}) {
        complete(store, id);
    }
    EXPECT_NE(refusal(store, "m-4").find("max_records"), std::string::npos);
    EXPECT_EQ(store.size(), 3U);
    EXPECT_EQ(store.evicted(), 0U);
    for (const char* id : {"m-1", "m-2", "m-3"}) {
        EXPECT_EQ(answer_of(store.claim(request(id))), Answer::completed)
            << "nothing was forgotten";
    }
}

TEST(MemoryBound, a_full_store_goes_on_with_the_keys_it_has) {
    Store store({.max_records = 2});
    const auto mine = must_claim(store.claim(request("m-1")));
    complete(store, "m-2");
    EXPECT_NE(refusal(store, "m-3"), "");
    EXPECT_EQ(answer_of(store.claim(request("m-1"))), Answer::in_progress);
    EXPECT_EQ(store.renew(mine.ticket, milliseconds{1'000}), idem::TicketState::valid);
    store.abandon(mine.ticket, "failed");
    EXPECT_EQ(must_claim(store.claim(request("m-1"))).attempt, 2U);
}

TEST(MemoryBound, records_past_their_retention_make_room) {
    Store store({.max_records = 2});
    complete(store, "m-1", seconds{10});
    complete(store, "m-2", seconds{3'600});
    EXPECT_NE(refusal(store, "m-3"), "");
    VirtualClock::advance(seconds{11});
    complete(store, "m-3");
    EXPECT_EQ(answer_of(store.claim(request("m-2"))), Answer::completed);
    EXPECT_EQ(store.size(), 2U);
}

TEST(MemoryBound, expiry_needs_no_sweep_and_leaves_nothing_behind) {
    Store store({.max_records = 1'000});
    for (int round = 0; round < 20; ++round) {
        for (int number = 0; number < 1'000; ++number) {
            complete(store, std::to_string(round) + "-" + std::to_string(number), seconds{10});
        }
        EXPECT_LE(store.size(), 1'000U);
        VirtualClock::advance(seconds{11});
    }
}

TEST(MemoryBound, r8_evict_oldest_forgets_the_completed_record_nearest_to_its_end_and_counts) {
    Store store({.max_records = 3, .evict_oldest = true});
    const auto open = must_claim(store.claim(request("open", seconds{1})));
    complete(store, "long", seconds{3'600});
    complete(store, "short", seconds{60});
    complete(store, "new");
    EXPECT_EQ(store.evicted(), 1U);
    EXPECT_EQ(store.size(), 3U);
    EXPECT_EQ(answer_of(store.claim(request("long"))), Answer::completed);
    EXPECT_EQ(answer_of(store.claim(request("new"))), Answer::completed);
    EXPECT_EQ(store.complete(open.ticket, "done"), idem::TicketState::valid);
}

TEST(MemoryBound, r8_a_record_in_progress_is_never_evicted) {
    Store store({.max_records = 2, .evict_oldest = true});
    static_cast<void>(must_claim(store.claim(request("m-1"))));
    static_cast<void>(must_claim(store.claim(request("m-2"))));
    EXPECT_NE(refusal(store, "m-3"), "");
    EXPECT_EQ(answer_of(store.claim(request("m-1"))), Answer::in_progress);
    EXPECT_EQ(answer_of(store.claim(request("m-2"))), Answer::in_progress);
    EXPECT_EQ(store.evicted(), 0U);
}

/// Completes keys with results of `size` bytes until the store refuses or `most` are done.
std::size_t complete_large(Store& store, std::size_t size, std::size_t most) {
    const std::string result(size, 'r');
    for (std::size_t number = 0; number < most; ++number) {
        try {
            const auto mine = must_claim(store.claim(request("large-" + std::to_string(number))));
            EXPECT_EQ(store.complete(mine.ticket, result), idem::TicketState::valid);
        } catch (const idem::StoreError& error) {
            EXPECT_EQ(error.fault(), idem::Fault::unavailable);
            EXPECT_NE(std::string(error.what()).find("max_bytes"), std::string::npos);
            return number;
        }
    }
    return most;
}

TEST(MemoryBound, r8_bytes_are_bounded_and_results_count) {
    constexpr std::size_t bound = 200'000, size = 1'000;
    for (const bool compact : {false, true}) {
        Store store({.max_bytes = bound, .compact = compact});
        const auto done = complete_large(store, size, 1'000);
        EXPECT_GT(done, bound / size / 2);
        EXPECT_LT(done, bound / size);
        EXPECT_LE(store.bytes(), bound + 2 * size) << "the last result is kept though it is over";
        EXPECT_EQ(answer_of(store.claim(request("large-0"))), Answer::completed);
        VirtualClock::advance(seconds{3'601});
        EXPECT_EQ(complete_large(store, size, 10), 10U) << "what ended made room";
    }
}

TEST(MemoryBound, r8_the_result_of_a_handler_that_ran_is_kept_over_the_bound) {
    Store store({.max_bytes = 40'000});
    const auto mine = must_claim(store.claim(request("m-1")));
    const std::string large(100'000, 'x');
    ASSERT_EQ(store.complete(mine.ticket, large), idem::TicketState::valid);
    EXPECT_EQ(idem::testing::must_be<idem::Completed>(store.claim(request("m-1"))).result, large);
    EXPECT_NE(refusal(store, "m-2").find("max_bytes"), std::string::npos);
}

TEST(MemoryBound, ids_count_against_the_bytes_of_a_store_that_keeps_them) {
    auto held = [](bool compact) {
        Store store({.max_bytes = 100'000, .compact = compact});
        std::size_t claimed = 0;
        while (claimed < 200 &&
               refusal(store, std::string(1'000, 'i') + std::to_string(claimed)).empty()) {
            ++claimed;
        }
        return claimed;
    };
    EXPECT_LT(held(false), 100U);
    EXPECT_EQ(held(true), 200U);
}

TEST(MemoryBound, r8_evict_oldest_makes_room_at_the_bound_of_bytes_too) {
    for (const bool compact : {false, true}) {
        Store store({.max_bytes = 200'000, .compact = compact, .evict_oldest = true});
        EXPECT_EQ(complete_large(store, 1'000, 1'000), 1'000U);
        EXPECT_LE(store.bytes(), 202'000U);
        EXPECT_GT(store.evicted(), 700U);
        EXPECT_EQ(store.size() + store.evicted(), 1'000U);
    }
}

TEST(MemoryBound, void_results_fill_the_bytes_with_slots_alone) {
    for (const bool evict : {false, true}) {
        Store store({.max_bytes = 300'000, .compact = true, .evict_oldest = evict});
        std::size_t done = 0;
        try {
            for (; done < 20'000; ++done) {
                const auto mine = must_claim(store.claim(request(std::to_string(done))));
                ASSERT_EQ(store.complete(mine.ticket, {}), idem::TicketState::valid);
            }
        } catch (const idem::StoreError&) { // NOLINT(bugprone-empty-catch): counted below
        }
        EXPECT_LE(store.bytes(), 303'000U) << "a directory may come on top";
        EXPECT_GT(store.size(), 300'000U / 100) << "100 bytes for a key at most";
        EXPECT_EQ(done, evict ? 20'000U : store.size());
    }
}

TEST(MemoryBound, bytes_are_given_back_by_all_that_ends) {
    for (const bool compact : {false, true}) {
        Store store({.max_records = 100, .compact = compact});
        complete(store, "first", seconds{1});
        VirtualClock::advance(seconds{2});
        complete(store, "second");
        const auto before = store.bytes();
        for (int round = 0; round < 50; ++round) {
            const idem::Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
            auto asked = request("m-1", seconds{1});
            asked.fingerprint = print;
            const auto mine = must_claim(store.claim(asked));
            ASSERT_EQ(store.complete(mine.ticket, std::string(500, 'x')), idem::TicketState::valid);
            EXPECT_GT(store.bytes(), before + 500);
            VirtualClock::advance(seconds{2});
            static_cast<void>(must_claim(store.claim(request("m-1", seconds{1}))));
            VirtualClock::advance(seconds{40});
            EXPECT_EQ(answer_of(store.claim({.key = {"billing", "m-1"}, .token = "unknown"})),
                      Answer::refused);
        }
        static_cast<void>(must_claim(store.claim(request("m-2", seconds{1}))));
        EXPECT_LT(store.bytes(), before + 500);
    }
}

TEST(MemoryBound, r4_3_the_fence_grows_across_eviction) {
    Store store({.max_records = 1, .evict_oldest = true});
    const auto first = must_claim(store.claim(request("m-1")));
    ASSERT_EQ(store.complete(first.ticket, "done"), idem::TicketState::valid);
    complete(store, "m-2");
    const auto again = must_claim(store.claim(request("m-1")));
    EXPECT_GT(again.fence, first.fence);
    EXPECT_EQ(store.complete(first.ticket, "late"), idem::TicketState::outdated);
}

TEST(MemoryBound, r4_3_the_fence_grows_from_one_store_to_the_next) {
    std::uint64_t fence = 0;
    for (int process = 0; process < 3; ++process) {
        Store store;
        const auto mine = must_claim(store.claim(request("m-1")));
        EXPECT_GT(mine.fence, fence);
        fence = mine.fence;
    }
}

TEST(MemoryBound, issued_tokens_are_counted_too) {
    Store store({.max_records = 1});
    static_cast<void>(store.issue("payment", seconds{60}, {}));
    EXPECT_THROW(static_cast<void>(store.issue("payment", seconds{60}, {})), idem::StoreError);
}

TEST(MemoryBound, a_large_store_holds_what_it_says) {
    // Many shards: the bound is one for all of them, whatever the keys hash to.
    constexpr std::size_t bound = 70'000;
    Store store({.max_records = bound});
    std::size_t claimed = 0;
    try {
        for (; claimed < bound; ++claimed) {
            static_cast<void>(store.claim(request("m-" + std::to_string(claimed))));
        }
    } catch (const idem::StoreError&) { // NOLINT(bugprone-empty-catch): counted below
    }
    EXPECT_EQ(claimed, bound);
    EXPECT_EQ(store.size(), claimed);
    EXPECT_NE(refusal(store, "one more"), "");
}

TEST(MemoryBound, a_large_store_makes_room_wherever_something_is_past_its_retention) {
    constexpr std::size_t bound = 70'000;
    for (const bool evict : {false, true}) {
        Store store({.max_records = bound, .evict_oldest = evict});
        for (std::size_t number = 0; number < bound; ++number) {
            complete(store, "m-" + std::to_string(number), seconds{number == 0 ? 1 : 3'600});
        }
        VirtualClock::advance(seconds{2});
        complete(store, "one more");
        EXPECT_EQ(store.size(), bound);
        EXPECT_EQ(store.evicted(), 0U) << "expired first";
        if (evict) {
            complete(store, "and another");
            EXPECT_EQ(store.evicted(), 1U);
            EXPECT_EQ(store.size(), bound);
        } else {
            EXPECT_NE(refusal(store, "and another"), "");
        }
    }
}

TEST(MemoryBound, threads_that_claim_at_the_bound_never_pass_it) {
    Store store({.max_records = 100});
    std::atomic<unsigned> claimed{0};
    std::atomic<unsigned> full{0};
    idem::testing::in_parallel(8, [&](unsigned thread) {
        for (int number = 0; number < 50; ++number) {
            try {
                const auto id = std::to_string(thread) + "-" + std::to_string(number);
                static_cast<void>(must_claim(store.claim(request(id))));
                ++claimed;
            } catch (const idem::StoreError&) {
                ++full;
            }
        }
    });
    EXPECT_EQ(claimed, 100U);
    EXPECT_EQ(full, 300U);
    EXPECT_EQ(store.size(), 100U);
}

TEST(MemoryBound, threads_at_the_bound_of_many_shards_evict_without_passing_it) {
    constexpr std::size_t bound = 65'536;
    Store store({.max_records = bound, .evict_oldest = true});
    for (std::size_t number = 0; number < bound; ++number) {
        complete(store, "m-" + std::to_string(number));
    }
    std::atomic<unsigned> completed{0};
    std::atomic<unsigned> full{0};
    idem::testing::in_parallel(8, [&](unsigned thread) {
        for (int number = 0; number < 200; ++number) {
            try {
                complete(store, std::to_string(thread) + "-" + std::to_string(number));
                ++completed;
            } catch (const idem::StoreError&) { // every other shard was busy: allowed, and rare
                ++full;
            }
        }
    });
    EXPECT_EQ(completed + full, 1'600U);
    EXPECT_EQ(store.evicted(), completed);
    EXPECT_EQ(store.size(), bound);
}

TEST(MemoryBound, threads_that_come_and_go_with_expiry_agree) {
    Store store({.max_records = 4'000});
    std::atomic<unsigned> wrong{0};
    idem::testing::in_parallel(8, [&](unsigned thread) {
        for (int number = 0; number < 400; ++number) {
            const auto id = std::to_string((static_cast<int>(thread) * 37 + number) % 500);
            const auto claim = store.claim(request(id, seconds{1}));
            if (const auto* mine = std::get_if<0>(&claim)) {
                if (number % 3 == 0) {
                    store.abandon(mine->ticket, "failed");
                } else {
                    wrong += store.complete(mine->ticket, id) == idem::TicketState::outdated;
                }
            } else if (const auto* done = std::get_if<idem::Completed>(&claim)) {
                wrong += done->result != id;
            }
            if (thread == 0 && number % 50 == 0) {
                VirtualClock::advance(milliseconds{700});
            }
        }
    });
    EXPECT_EQ(wrong, 0U);
}

} // namespace
