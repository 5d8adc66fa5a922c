// SPDX-License-Identifier: MIT
// MemoryStore against a map that keeps everything: thousands of operations in any order, with the
// text of keys and compact, singly and in batches.

#include <idem/store/memory.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "strategy/virtual_clock.hpp"

namespace {

using idem::ClaimRequest;
using idem::Fingerprint;
using idem::milliseconds;
using idem::seconds;
using idem::TicketState;
using idem::testing::Answer;
using Store = idem::BasicMemoryStore<VirtualClock>;
using Time = VirtualClock::time_point;

/// The rules of dedup_store.hpp, as plainly as they can be written.
class Model {
public:
    enum class State { free, in_progress, completed, parked };
    struct Record {
        State state = State::free;
        Fingerprint fingerprint{};
        unsigned attempts = 0;
        int claim = 0; // its number
        seconds retention{0};
        Time lease_until{}, changed{}, end{};
        std::string result{}, holder{};
    };
    struct Answered {
        Answer answer;
        unsigned attempt = 0;
        bool takeover = false;
        std::string result{};
        milliseconds time{0}; // until the lease ends, or the age
        bool operator==(const Answered&) const = default;
    };

    Answered claim(const ClaimRequest& asked, int number) {
        const auto now = VirtualClock::now();
        const bool by_token = !asked.token.empty();
        const auto key = std::pair(std::string(asked.key.scope),
                                   std::string(by_token ? asked.token : asked.key.id));
        if (const auto at = records_.find(key); at != records_.end() && at->second.end <= now) {
            records_.erase(at);
        }
        const auto at = records_.find(key);
        if (at == records_.end() && by_token && !asked.token_may_be_new) {
            return {Answer::refused};
        }
        if (at != records_.end()) {
            if (auto no = refusal(at->second, asked, now)) {
                return *no;
            }
        }
        auto& record = records_[key];
        const bool takeover = record.state == State::in_progress;
        record.state = State::in_progress;
        record.claim = number;
        record.attempts += 1;
        record.retention = asked.retention;
        record.lease_until = now + asked.lease;
        record.end = record.lease_until + asked.retention;
        if (record.fingerprint.algorithm == 0) {
            record.fingerprint = asked.fingerprint;
        }
        if (by_token) {
            record.holder = asked.key.id;
        }
        return {Answer::claimed, record.attempts, takeover};
    }
    TicketState complete(int number, const std::string& result) {
        auto* record = of(number);
        if (record != nullptr && record->state == State::completed) {
            return record->result == result ? TicketState::valid : TicketState::outdated;
        }
        return change(record, State::completed, [&](Record& its) { its.result = result; });
    }
    TicketState renew(int number, milliseconds lease) {
        auto* record = of(number);
        if (record == nullptr || record->state != State::in_progress) {
            return TicketState::outdated;
        }
        record->lease_until = VirtualClock::now() + lease;
        record->end = record->lease_until + record->retention;
        return TicketState::valid;
    }
    void give_back(int number, bool refund) {
        static_cast<void>(
            change(of(number), State::free, [&](Record& its) { its.attempts -= refund ? 1 : 0; }));
    }
    TicketState park(int number) {
        return change(of(number), State::parked, [](Record&) {});
    }

private:
    static std::optional<Answered>
    refusal(const Record& record, const ClaimRequest& asked, Time now) {
        if (!asked.token.empty() && record.holder != asked.key.id) {
            return Answered{Answer::refused};
        }
        if (record.state == State::in_progress && record.lease_until > now) {
            return Answered{.answer = Answer::in_progress,
                            .time = std::chrono::ceil<milliseconds>(record.lease_until - now)};
        }
        if (asked.fingerprint.conflicts_with(record.fingerprint)) {
            return Answered{Answer::conflict};
        }
        if (record.state == State::completed) {
            return Answered{.answer = Answer::completed,
                            .result = record.result,
                            .time = std::chrono::floor<milliseconds>(now - record.changed)};
        }
        if (record.state == State::parked) {
            return Answered{Answer::parked};
        }
        if (asked.max_attempts > 0 && record.attempts >= asked.max_attempts) {
            return Answered{Answer::dead, record.attempts};
        }
        return {};
    }
    Record* of(int number) {
        for (auto& [key, record] : records_) {
            if (record.claim == number) {
                return record.end <= VirtualClock::now() ? nullptr : &record;
            }
        }
        return nullptr;
    }
    template <class Also>
    TicketState change(Record* record, State state, const Also& also) {
        if (record == nullptr || record->state != State::in_progress) {
            return TicketState::outdated;
        }
        also(*record);
        record->state = state;
        record->changed = VirtualClock::now();
        record->end = record->changed + record->retention;
        return TicketState::valid;
    }

    std::map<std::pair<std::string, std::string>, Record> records_;
};

Model::Answered answered(const idem::Claim<Store::Ticket>& claim) {
    const auto saw = idem::testing::seen(claim);
    milliseconds time{0};
    if (const auto* busy = std::get_if<idem::InProgress>(&claim)) {
        time = busy->retry_after;
    } else if (const auto* done = std::get_if<idem::Completed>(&claim)) {
        time = done->age.value_or(milliseconds{-1});
    }
    return {saw.answer, saw.attempt, saw.takeover, saw.result, time};
}

class MemoryModel : public testing::TestWithParam<std::tuple<bool, unsigned>> {
protected:
    int number_up_to(int most) { return std::uniform_int_distribution(0, most)(random_); }
    std::string some_id() { return "m-" + std::to_string(number_up_to(40)); }
    std::string some_result() {
        const std::string samples[] = {"", std::string(1, '\0'), "\1", "\1value", "x"};
        const auto pick = number_up_to(5);
        return pick < 5 ? samples[pick] : std::string(300, 'r');
    }
    /// Views into `texts`.
    ClaimRequest some_request(std::vector<std::string>& texts) {
        ClaimRequest asked;
        texts.push_back(some_id());
        asked.key = {number_up_to(3) == 0 ? "shipping" : "billing", texts.back()};
        asked.lease = milliseconds{1 + number_up_to(3'000)};
        asked.retention = seconds{number_up_to(5)};
        asked.max_attempts = number_up_to(2) == 0 ? 3U : 0U;
        if (const auto print = number_up_to(6); print < 3) {
            asked.fingerprint = {.high = 1, .low = print == 0 ? 2U : 1U, .algorithm = 1};
        }
        if (number_up_to(4) == 0) {
            texts.push_back("token-" + std::to_string(number_up_to(10)));
            asked.token = texts.back();
            asked.token_may_be_new = number_up_to(1) == 0;
        }
        return asked;
    }
    std::mt19937 random_{std::get<1>(GetParam())};
};
INSTANTIATE_TEST_SUITE_P(TextAndCompact,
                         MemoryModel,
                         testing::Combine(testing::Bool(), testing::Values(1U, 2U, 3U)));

TEST_P(MemoryModel, answers_as_a_map_that_keeps_everything) {
    Store store({.compact = std::get<0>(GetParam())});
    Model model;
    std::vector<Store::Ticket> tickets{{}};
    std::vector<std::uint64_t> fences{0};
    for (int step = 0; step < 20'000; ++step) {
        const auto ticket =
            std::max(0, static_cast<int>(tickets.size()) - 1 - number_up_to(number_up_to(60)));
        const auto& held = tickets[static_cast<std::size_t>(ticket)];
        switch (number_up_to(9)) {
        case 0:
        case 1:
        case 2:
        case 3: {
            std::vector<std::string> texts;
            texts.reserve(2);
            const auto asked = some_request(texts);
            const auto claim = store.claim(asked);
            ASSERT_EQ(answered(claim), model.claim(asked, static_cast<int>(tickets.size())))
                << "step " << step;
            if (const auto* mine = std::get_if<0>(&claim)) {
                ASSERT_GT(mine->fence, 0U);
                tickets.push_back(mine->ticket);
            }
            break;
        }
        case 4:
        case 5: {
            const auto result = some_result();
            ASSERT_EQ(store.complete(held, result), model.complete(ticket, result))
                << "step " << step;
            break;
        }
        case 6:
            store.abandon(held, "failed");
            model.give_back(ticket, false);
            break;
        case 7:
            store.refund(held);
            model.give_back(ticket, true);
            break;
        case 8: {
            const milliseconds lease{1 + number_up_to(3'000)};
            ASSERT_EQ(store.renew(held, lease), model.renew(ticket, lease)) << "step " << step;
            break;
        }
        default:
            if (number_up_to(20) == 0) {
                ASSERT_EQ(store.park(held, "unknown"), model.park(ticket)) << "step " << step;
            }
            VirtualClock::advance(milliseconds{number_up_to(700)});
        }
    }
}

TEST_P(MemoryModel, a_batch_answers_and_leaves_what_single_calls_do) {
    const bool compact = std::get<0>(GetParam());
    Store batched({.compact = compact}), single({.compact = compact});
    for (int round = 0; round < 300; ++round) {
        std::vector<std::string> texts;
        texts.reserve(400);
        std::vector<ClaimRequest> asked;
        std::map<std::pair<std::string_view, std::string_view>, int> seen;
        for (int i = number_up_to(100); i > 0; --i) {
            const auto one = some_request(texts);
            if (seen.try_emplace({one.key.scope, one.token.empty() ? one.key.id : one.token})
                    .second) {
                asked.push_back(one);
            }
        }
        const auto claims = batched.claim(std::span<const ClaimRequest>(asked));
        ASSERT_EQ(claims.size(), asked.size());
        std::vector<Store::Ticket> tickets, others;
        std::vector<std::string> results;
        for (std::size_t i = 0; i < asked.size(); ++i) {
            const auto other = single.claim(asked[i]);
            ASSERT_EQ(answered(claims[i]), answered(other));
            if (const auto* mine = std::get_if<0>(&claims[i]); mine != nullptr && i % 5 != 0) {
                tickets.push_back(mine->ticket);
                others.push_back(std::get<0>(other).ticket);
                results.push_back(some_result());
            }
        }
        VirtualClock::advance(milliseconds{number_up_to(4'000)});
        const auto states = batched.complete(std::span<const Store::Ticket>(tickets),
                                             std::span<const std::string>(results));
        ASSERT_EQ(states.size(), tickets.size());
        for (std::size_t i = 0; i < others.size(); ++i) {
            ASSERT_EQ(states[i], single.complete(others[i], results[i]));
        }
    }
}

TEST(MemoryBatch, what_was_claimed_before_the_bound_is_given_back_uncharged) {
    Store store({.max_records = 5});
    std::vector<std::string> ids;
    for (int number = 0; number < 8; ++number) {
        ids.push_back(std::to_string(number));
    }
    std::vector<ClaimRequest> asked;
    for (const auto& id : ids) {
        asked.push_back({.key = {"billing", id}});
    }
    EXPECT_THROW(static_cast<void>(store.claim(std::span<const ClaimRequest>(asked))),
                 idem::StoreError);
    for (int number = 0; number < 5; ++number) {
        const auto mine =
            idem::testing::must_claim(store.claim(asked[static_cast<std::size_t>(number)]));
        EXPECT_EQ(mine.attempt, 1U);
        EXPECT_FALSE(mine.takeover);
    }
}

TEST(MemoryBatch, a_key_past_the_limits_is_refused_before_anything_is_claimed) {
    Store store;
    const std::string long_id(idem::max_id + 1, 'x');
    const std::vector<ClaimRequest> asked{{.key = {"billing", "m-1"}},
                                          {.key = {"billing", long_id}}};
    EXPECT_THROW(static_cast<void>(store.claim(std::span<const ClaimRequest>(asked))),
                 std::invalid_argument);
    EXPECT_EQ(store.size(), 0U);
}

} // namespace
