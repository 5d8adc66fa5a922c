// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_BATCH_TRANSACTION_CONTRACT_HPP
#define IDEM_TESTING_BATCH_TRANSACTION_CONTRACT_HPP

// The laws of BatchTransaction: several messages in one transaction, each with a way back of its
// own.

#include <idem/strategy/strategy.hpp>
#include <idem/testing/harness.hpp>

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0::testing {

template <class Harness>
class BatchTransactionContract : public ContractTest<Harness> {
protected:
    using Transaction = typename Harness::Store::Transaction;

    [[nodiscard]] std::string effect(std::string_view id) const {
        return this->scope() + "/" + std::string(id);
    }
    [[nodiscard]] std::size_t effects(std::string_view id) {
        return static_cast<std::size_t>(this->harness().count_effects(effect(id)));
    }
    void write(Transaction& transaction, std::string_view id) {
        this->harness().write_effect(transaction, effect(id));
    }
    static std::vector<Claim<std::monostate>> claim(Transaction& transaction,
                                                    const std::vector<ClaimRequest>& asked) {
        return transaction.claim(std::span<const ClaimRequest>(asked));
    }
    static void complete(Transaction& transaction,
                         const std::vector<ClaimRequest>& asked,
                         const std::vector<std::string>& results) {
        transaction.complete(std::span<const ClaimRequest>(asked),
                             std::span<const std::string>(results));
    }
};

TYPED_TEST_SUITE_P(BatchTransactionContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BatchTransactionContract);

TYPED_TEST_P(BatchTransactionContract, r6_7_back_to_savepoint_undoes_one_handler_and_no_other) {
    const std::vector<ClaimRequest> asked{
        this->request("m-3"), this->request("m-1"), this->request("m-2")};
    {
        auto transaction = this->store().begin();
        const auto claims = this->claim(transaction, asked);
        ASSERT_EQ(claims.size(), 3U);
        for (std::size_t at = 0; at < asked.size(); ++at) {
            EXPECT_EQ(must_claim(claims[at]).attempt, 1U);
            transaction.savepoint();
            this->write(transaction, asked[at].key.id);
            if (asked[at].key.id == "m-1") {
                transaction.back_to_savepoint();
            }
        }
        this->complete(transaction, {asked[0], asked[2]}, {"three", std::string("\0two", 4)});
        transaction.commit();
    }
    EXPECT_EQ(this->effects("m-1"), 0U);
    EXPECT_EQ(this->effects("m-2"), 1U);
    EXPECT_EQ(this->effects("m-3"), 1U);
    const auto failed = look(this->harness(), this->request("m-1"));
    EXPECT_EQ(failed.answer, Answer::claimed)
        << "r1_2: a record without its effect loses a message";
    EXPECT_EQ(failed.attempt, 1U);
    EXPECT_EQ(look(this->harness(), this->request("m-2")).result, std::string("\0two", 4));
    EXPECT_EQ(look(this->harness(), this->request("m-3")).result, "three");
}

TYPED_TEST_P(BatchTransactionContract, the_first_and_the_last_handler_may_fail) {
    const std::vector<ClaimRequest> asked{
        this->request("m-1"), this->request("m-2"), this->request("m-3")};
    {
        auto transaction = this->store().begin();
        ASSERT_EQ(this->claim(transaction, asked).size(), 3U);
        for (const auto& request : asked) {
            transaction.savepoint();
            this->write(transaction, request.key.id);
            this->write(transaction, request.key.id);
            if (request.key.id != "m-2") {
                transaction.back_to_savepoint();
            }
        }
        this->complete(transaction, {asked[1]}, {"two"});
        transaction.commit();
    }
    EXPECT_EQ(this->effects("m-1"), 0U);
    EXPECT_EQ(this->effects("m-2"), 2U);
    EXPECT_EQ(this->effects("m-3"), 0U);
    EXPECT_EQ(look(this->harness(), this->request("m-1")).answer, Answer::claimed);
    EXPECT_EQ(look(this->harness(), this->request("m-2")).answer, Answer::completed);
    EXPECT_EQ(look(this->harness(), this->request("m-3")).answer, Answer::claimed);
}

TYPED_TEST_P(BatchTransactionContract, claims_answer_in_order_what_single_claims_would) {
    const Fingerprint print{.high = 1, .low = 2, .algorithm = 1};
    const Fingerprint other{.high = 3, .low = 4, .algorithm = 1};
    auto limited = this->request("dead");
    limited.max_attempts = 1;
    finish(this->harness(), this->request("done", print), std::string("\0done\xff", 6));
    finish(this->harness(), this->request("changed", print), "done");
    fail(this->harness(), limited);
    fail(this->harness(), this->request("failed once"));
    auto transaction = this->store().begin();
    const auto claims = this->claim(transaction,
                                    {this->request("z"),
                                     limited,
                                     this->request("done", print),
                                     this->request("changed", other),
                                     this->request("failed once"),
                                     this->request("a")});
    ASSERT_EQ(claims.size(), 6U);
    EXPECT_EQ(must_claim(claims[0]).attempt, 1U);
    EXPECT_EQ(must_be<Dead>(claims[1]).attempts, 1U);
    EXPECT_EQ(must_be<Completed>(claims[2]).result, std::string("\0done\xff", 6));
    EXPECT_EQ(answer_of(claims[3]), Answer::conflict);
    EXPECT_EQ(must_claim(claims[4]).attempt, 2U);
    EXPECT_EQ(must_claim(claims[5]).attempt, 1U);
}

TYPED_TEST_P(BatchTransactionContract, claims_hold_their_keys_until_the_end) {
    if constexpr (TypeParam::in_progress_occurs) {
        auto transaction = this->store().begin();
        ASSERT_EQ(this->claim(transaction, {this->request("m-1"), this->request("m-2")}).size(),
                  2U);
        EXPECT_EQ(look(this->harness(), this->request("m-2")).answer, Answer::in_progress);
        {
            auto other = this->store().begin();
            const auto claims = this->claim(other, {this->request("m-3"), this->request("m-1")});
            EXPECT_EQ(answer_of(claims.at(0)), Answer::claimed);
            EXPECT_EQ(answer_of(claims.at(1)), Answer::in_progress);
        }
        transaction.rollback();
        EXPECT_EQ(look(this->harness(), this->request("m-1")).answer, Answer::claimed);
    } else {
        GTEST_SKIP() << "begin() waits for the other transaction";
    }
}

TYPED_TEST_P(BatchTransactionContract, claims_write_nothing) {
    {
        auto transaction = this->store().begin();
        ASSERT_EQ(this->claim(transaction, {this->request("m-1"), this->request("m-2")}).size(),
                  2U);
        this->complete(transaction, {}, {});
        transaction.commit();
    }
    EXPECT_EQ(look(this->harness(), this->request("m-1")).attempt, 1U);
    EXPECT_EQ(look(this->harness(), this->request("m-2")).attempt, 1U);
}

TYPED_TEST_P(BatchTransactionContract, rollback_leaves_nothing_of_any_message) {
    {
        auto transaction = this->store().begin();
        const std::vector<ClaimRequest> asked{this->request("m-1"), this->request("m-2")};
        ASSERT_EQ(this->claim(transaction, asked).size(), 2U);
        for (const auto& request : asked) {
            transaction.savepoint();
            this->write(transaction, request.key.id);
        }
        this->complete(transaction, asked, {"one", "two"});
        transaction.rollback();
    }
    EXPECT_EQ(this->effects("m-1") + this->effects("m-2"), 0U);
    EXPECT_EQ(look(this->harness(), this->request("m-1")).answer, Answer::claimed);
    EXPECT_EQ(look(this->harness(), this->request("m-2")).answer, Answer::claimed);
}

TYPED_TEST_P(BatchTransactionContract, sixty_four_messages_fit_into_one_transaction) {
    std::vector<std::string> ids;
    for (int number = 0; number < 64; ++number) {
        ids.push_back("m-" + std::to_string(number));
    }
    std::vector<ClaimRequest> asked;
    for (const auto& id : ids) {
        asked.push_back(this->request(id));
    }
    {
        auto transaction = this->store().begin();
        ASSERT_EQ(this->claim(transaction, asked).size(), 64U);
        for (const auto& id : ids) {
            transaction.savepoint();
            this->write(transaction, id);
        }
        this->complete(transaction, asked, ids);
        transaction.commit();
    }
    for (const auto& id : ids) {
        EXPECT_EQ(this->effects(id), 1U);
        EXPECT_EQ(look(this->harness(), this->request(id)).result, id);
    }
}

REGISTER_TYPED_TEST_SUITE_P(BatchTransactionContract,
                            r6_7_back_to_savepoint_undoes_one_handler_and_no_other,
                            the_first_and_the_last_handler_may_fail,
                            claims_answer_in_order_what_single_claims_would,
                            claims_hold_their_keys_until_the_end,
                            claims_write_nothing,
                            rollback_leaves_nothing_of_any_message,
                            sixty_four_messages_fit_into_one_transaction);

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_BATCH_TRANSACTION_CONTRACT_HPP
