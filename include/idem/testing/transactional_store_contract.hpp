// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_TRANSACTIONAL_STORE_CONTRACT_HPP
#define IDEM_TESTING_TRANSACTIONAL_STORE_CONTRACT_HPP

// The laws of TransactionalStore, PeekingStore, and of a store that has both modes. Effects are
// counted, never believed.

#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace idem::inline v0::testing {

template <class Harness>
class TransactionalStoreContract : public ContractTest<Harness> {
protected:
    /// The test's own name for an effect: no other test counts it.
    [[nodiscard]] std::string effect(std::string_view id = "m-1") const {
        return this->scope() + "/" + std::string(id);
    }
    [[nodiscard]] std::size_t effects(std::string_view id = "m-1") {
        return static_cast<std::size_t>(this->harness().count_effects(effect(id)));
    }
    /// What DedupTable does, once: true where this call, or another, has completed the message.
    bool handle(const ClaimRequest& asked, std::atomic<unsigned>& executed) {
        auto transaction = this->store().begin();
        try {
            const auto answer = seen(transaction.claim(asked));
            if (answer.answer != Answer::claimed) {
                transaction.rollback();
                return answer.answer == Answer::completed;
            }
            this->harness().write_effect(transaction, effect(asked.key.id));
            transaction.complete(asked, "done");
            transaction.commit();
        } catch (const std::exception&) {
            const bool again = transaction.conflicted();
            transaction.rollback();
            if (!again) {
                throw;
            }
            return false;
        }
        ++executed;
        return true;
    }
};

TYPED_TEST_SUITE_P(TransactionalStoreContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TransactionalStoreContract);

TYPED_TEST_P(TransactionalStoreContract, r1_2_commit_makes_record_and_effect_visible_together) {
    auto transaction = this->store().begin();
    const auto mine = must_claim(transaction.claim(this->request()));
    EXPECT_EQ(mine.attempt, 1U);
    EXPECT_FALSE(mine.takeover);
    this->harness().write_effect(transaction, this->effect());
    EXPECT_EQ(this->effects(), 0U);
    transaction.complete(this->request(), "done");
    EXPECT_EQ(this->effects(), 0U);
    EXPECT_FALSE(transaction.conflicted());
    transaction.commit();
    EXPECT_EQ(this->effects(), 1U);
    const auto again = look(this->harness(), this->request());
    EXPECT_EQ(again.answer, Answer::completed);
    EXPECT_EQ(again.result, "done");
}

TYPED_TEST_P(TransactionalStoreContract, r1_2_rollback_leaves_nothing) {
    {
        auto transaction = this->store().begin();
        static_cast<void>(must_claim(transaction.claim(this->request())));
        this->harness().write_effect(transaction, this->effect());
        transaction.complete(this->request(), "done");
        transaction.rollback();
    }
    EXPECT_EQ(this->effects(), 0U);
    const auto again = look(this->harness(), this->request());
    EXPECT_EQ(again.answer, Answer::claimed);
    EXPECT_EQ(again.attempt, 1U) << "a rollback alone is no attempt";
}

TYPED_TEST_P(TransactionalStoreContract, the_destructor_rolls_back) {
    {
        auto transaction = this->store().begin();
        static_cast<void>(must_claim(transaction.claim(this->request())));
        this->harness().write_effect(transaction, this->effect());
        transaction.complete(this->request(), "done");
    }
    EXPECT_EQ(this->effects(), 0U);
    EXPECT_EQ(look(this->harness(), this->request()).answer, Answer::claimed);
}

TYPED_TEST_P(TransactionalStoreContract, rollback_gives_the_connection_back_any_number_of_times) {
    for (int round = 0; round < 50; ++round) {
        auto transaction = this->store().begin();
        static_cast<void>(must_claim(transaction.claim(this->request())));
        transaction.rollback();
        transaction.rollback();
        this->store().record_failure(this->request(), "failed");
    }
    EXPECT_EQ(look(this->harness(), this->request()).attempt, 51U);
}

TYPED_TEST_P(TransactionalStoreContract, a_moved_transaction_goes_on) {
    auto transaction = this->store().begin();
    static_cast<void>(must_claim(transaction.claim(this->request())));
    std::optional<typename TypeParam::Store::Transaction> moved(std::move(transaction));
    this->harness().write_effect(*moved, this->effect());
    moved->complete(this->request(), "done");
    moved->commit();
    moved.reset();
    EXPECT_EQ(this->effects(), 1U);
    EXPECT_EQ(look(this->harness(), this->request()).answer, Answer::completed);
}

TYPED_TEST_P(TransactionalStoreContract, a_key_held_by_an_open_transaction_is_in_progress) {
    if constexpr (TypeParam::in_progress_occurs) {
        auto owner = this->store().begin();
        static_cast<void>(must_claim(owner.claim(this->request())));
        auto other = this->store().begin();
        EXPECT_EQ(answer_of(other.claim(this->request())), Answer::in_progress);
        EXPECT_FALSE(other.conflicted());
        static_cast<void>(must_claim(other.claim(this->request("m-2"))));
        this->harness().write_effect(other, this->effect("m-2"));
        other.complete(this->request("m-2"), "done");
        other.commit();
        EXPECT_EQ(this->effects("m-2"), 1U) << "r1_1: the claim left the transaction as it was";
        owner.rollback();
        EXPECT_EQ(look(this->harness(), this->request()).answer, Answer::claimed);
    } else {
        GTEST_SKIP() << "begin() waits for the other transaction";
    }
}

TYPED_TEST_P(TransactionalStoreContract,
             a_claim_that_found_nothing_to_do_leaves_the_transaction_usable) {
    const Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    const Fingerprint other{.high = 3, .low = 4, .algorithm = 1};
    auto limited = this->request("dead");
    limited.max_attempts = 1;
    finish(this->harness(), this->request("done", print), "done");
    fail(this->harness(), limited);
    auto transaction = this->store().begin();
    EXPECT_EQ(answer_of(transaction.claim(this->request("done", print))), Answer::completed);
    EXPECT_EQ(answer_of(transaction.claim(limited)), Answer::dead);
    EXPECT_EQ(answer_of(transaction.claim(this->request("done", other))), Answer::conflict);
    static_cast<void>(must_claim(transaction.claim(this->request())));
    this->harness().write_effect(transaction, this->effect());
    transaction.complete(this->request(), "done");
    transaction.commit();
    EXPECT_EQ(this->effects(), 1U);
}

TYPED_TEST_P(TransactionalStoreContract, r4_6_a_nested_claim_of_the_same_key_is_a_logic_error) {
    if constexpr (TypeParam::refuses_nested_claim) {
        auto transaction = this->store().begin();
        static_cast<void>(must_claim(transaction.claim(this->request())));
        EXPECT_THROW(static_cast<void>(transaction.claim(this->request())), std::logic_error);
    } else {
        GTEST_SKIP() << "this store answers it";
    }
}

TYPED_TEST_P(TransactionalStoreContract, r3_2_record_failure_never_touches_a_completed_record) {
    auto asked = this->request();
    asked.max_attempts = 1;
    finish(this->harness(), asked, "done");
    this->store().record_failure(asked, "late");
    this->store().record_failure(asked, "later");
    EXPECT_EQ(look(this->harness(), asked).result, "done");
}

TYPED_TEST_P(TransactionalStoreContract, r3_3_record_failure_before_the_first_claim_is_counted) {
    this->store().record_failure(this->request(), "a suspect delivery");
    EXPECT_EQ(look(this->harness(), this->request()).attempt, 2U);
}

TYPED_TEST_P(TransactionalStoreContract, of_concurrent_consumers_of_one_key_one_takes_effect) {
    std::atomic<unsigned> executed{0};
    in_parallel(16, [&](unsigned) {
        while (!this->handle(this->request(), executed)) {
            std::this_thread::yield();
        }
    });
    EXPECT_EQ(executed, 1U);
    EXPECT_EQ(this->effects(), 1U);
}

TYPED_TEST_P(TransactionalStoreContract, concurrent_consumers_of_many_keys_take_effect_once_each) {
    std::atomic<unsigned> executed{0};
    in_parallel(8, [&](unsigned thread) {
        for (unsigned number = 0; number < 12; ++number) {
            const auto id = "m-" + std::to_string((number + thread) % 12);
            while (!this->handle(this->request(id), executed)) {
                std::this_thread::yield();
            }
        }
    });
    EXPECT_EQ(executed, 12U);
    for (unsigned number = 0; number < 12; ++number) {
        EXPECT_EQ(this->effects("m-" + std::to_string(number)), 1U);
    }
}

REGISTER_TYPED_TEST_SUITE_P(TransactionalStoreContract,
                            r1_2_commit_makes_record_and_effect_visible_together,
                            r1_2_rollback_leaves_nothing,
                            the_destructor_rolls_back,
                            rollback_gives_the_connection_back_any_number_of_times,
                            a_moved_transaction_goes_on,
                            a_key_held_by_an_open_transaction_is_in_progress,
                            a_claim_that_found_nothing_to_do_leaves_the_transaction_usable,
                            r4_6_a_nested_claim_of_the_same_key_is_a_logic_error,
                            r3_2_record_failure_never_touches_a_completed_record,
                            r3_3_record_failure_before_the_first_claim_is_counted,
                            of_concurrent_consumers_of_one_key_one_takes_effect,
                            concurrent_consumers_of_many_keys_take_effect_once_each);

template <class Harness>
class PeekingStoreContract : public ContractTest<Harness> {};
TYPED_TEST_SUITE_P(PeekingStoreContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(PeekingStoreContract);

TYPED_TEST_P(PeekingStoreContract, r3_3_peek_answers_what_claim_would_and_writes_nothing) {
    const Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    const Fingerprint other{.high = 3, .low = 4, .algorithm = 1};
    auto limited = this->request("dead");
    limited.max_attempts = 1;
    finish(this->harness(), this->request("done", print), std::string("\0done\xff", 6));
    fail(this->harness(), limited);
    for (int again = 0; again < 2; ++again) {
        EXPECT_EQ(seen(this->store().peek(this->request("done", print))).result,
                  std::string("\0done\xff", 6));
        EXPECT_EQ(answer_of(this->store().peek(this->request("done", other))), Answer::conflict);
        EXPECT_EQ(must_be<Dead>(this->store().peek(limited)).attempts, 1U);
        EXPECT_EQ(answer_of(this->store().peek(this->request("free"))), Answer::claimed);
    }
    EXPECT_EQ(look(this->harness(), this->request("free")).attempt, 1U);
}

TYPED_TEST_P(PeekingStoreContract, peek_does_not_wait_for_an_open_transaction) {
    auto owner = this->store().begin();
    static_cast<void>(must_claim(owner.claim(this->request())));
    const auto answer = answer_of(this->store().peek(this->request()));
    EXPECT_TRUE(answer == Answer::claimed || answer == Answer::in_progress) << answer;
    owner.complete(this->request(), "done");
    owner.commit();
    EXPECT_EQ(answer_of(this->store().peek(this->request())), Answer::completed);
}

REGISTER_TYPED_TEST_SUITE_P(PeekingStoreContract,
                            r3_3_peek_answers_what_claim_would_and_writes_nothing,
                            peek_does_not_wait_for_an_open_transaction);

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_TRANSACTIONAL_STORE_CONTRACT_HPP
