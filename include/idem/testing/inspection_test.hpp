// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_INSPECTION_TEST_HPP
#define IDEM_TESTING_INSPECTION_TEST_HPP

// What the tests of inspectable_store.hpp share. The tests are in inspection_contract.hpp.

#include <idem/inspectable_store.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0::testing {

/// A harness whose store has a table of its own, and which returns once records of that retention
/// are past it. Without it the laws of prune are skipped.
template <class H>
concept RetentionHarness = requires(H& harness, seconds retention) {
    harness.let_retention_pass(retention);
};

/// Runs `work` while another owner has the key, who then completes it with `text`.
template <class H, class Work>
void while_in_progress(H& harness, const ClaimRequest& request, std::string_view text, Work work) {
    if constexpr (TransactionalHarness<H>) {
        auto owner = harness.store().begin();
        static_cast<void>(must_claim(owner.claim(request)));
        work();
        owner.complete(request, text);
        owner.commit();
    } else {
        const auto owner = must_claim(harness.store().claim(request));
        work();
        if (harness.store().complete(owner.ticket, text) != TicketState::valid) {
            throw std::runtime_error("complete() by the owner answered outdated");
        }
    }
}

template <class Harness>
class InspectionContract : public ContractTest<Harness> {
protected:
    using Store = typename Harness::Store;
    static_assert(InspectableStore<Store>);

    static constexpr Intervention by{"ada", "ticket 4711"};
    static constexpr Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    static constexpr Fingerprint other_print{.high = 3, .low = 4, .algorithm = 1};
    static constexpr seconds short_retention{1};
    static constexpr std::size_t all = 100'000;
    static constexpr unsigned max_attempts = 2;

    [[nodiscard]] Key key(std::string_view id = "m-1") const { return this->request(id).key; }
    [[nodiscard]] ClaimRequest limited(std::string_view id = "m-1",
                                       Fingerprint payload = {}) const {
        auto asked = this->request(id, payload);
        asked.max_attempts = max_attempts;
        return asked;
    }
    /// Fails the key until a claim of it answers Dead.
    void kill(const ClaimRequest& asked) {
        for (unsigned attempt = 0; attempt < max_attempts; ++attempt) {
            fail(this->harness(), asked);
        }
        if (const auto answer = look(this->harness(), asked).answer; answer != Answer::dead) {
            throw std::runtime_error(std::string("the key is not dead, but ") + to_string(answer));
        }
    }
    /// Throws: std::runtime_error where there is none.
    [[nodiscard]] Record record(std::string_view id = "m-1") {
        auto found = this->store().find(key(id));
        if (!found) {
            throw std::runtime_error("no record of " + std::string(id));
        }
        return std::move(*found);
    }
    /// Fails `id` until its last change is later than that of `earlier`.
    void change_later(std::string_view id, std::string_view earlier) {
        const auto past = record(earlier).changed;
        do {
            if constexpr (Harness::exact_expiry) {
                this->harness().let_lease_pass(milliseconds{1});
            }
            fail(this->harness(), this->request(id));
        } while (record(id).changed <= past);
    }
    /// The ids of this test's records, in the order of the list.
    [[nodiscard]] std::vector<std::string> ids(const std::vector<Record>& records) const {
        std::vector<std::string> found;
        for (const auto& one : records) {
            if (one.scope == this->scope()) {
                found.push_back(one.id);
            }
        }
        return found;
    }
    [[nodiscard]] std::vector<std::string> sorted_ids(State state) {
        auto found = ids(this->store().list(state, all));
        std::sort(found.begin(), found.end());
        return found;
    }
    static void expect_same(const Record& now, const Record& before) {
        EXPECT_EQ(now.state, before.state);
        EXPECT_TRUE(now.fingerprint == before.fingerprint);
        EXPECT_EQ(now.attempts, before.attempts);
        EXPECT_EQ(now.changed, before.changed);
        EXPECT_EQ(now.result, before.result);
        EXPECT_EQ(now.note, before.note);
    }
    static void expect_note_says_who_and_why(const Record& found) {
        EXPECT_NE(found.note.find(by.actor), std::string::npos) << found.note;
        EXPECT_NE(found.note.find(by.reason), std::string::npos) << found.note;
    }
    /// Each intervention with `who`; how many answered true.
    [[nodiscard]] unsigned intervene(const Key& which, const Intervention& who) {
        return (this->store().revive(which, who) ? 1U : 0U) +
               (this->store().force_complete(which, "forced", who) ? 1U : 0U) +
               (this->store().erase(which, who) ? 1U : 0U);
    }
};

TYPED_TEST_SUITE_P(InspectionContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(InspectionContract);

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_INSPECTION_TEST_HPP
