// SPDX-License-Identifier: MIT
// NaturallyIdempotent in its three forms (semantics.md 6.2), on a real server, effects counted.

#include "../../examples/natural.hpp"

#include <idem/consumer.hpp>
#include <idem/strategy/naturally_idempotent.hpp>
#include <idem/testing/harness.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "postgres_test.hpp"

namespace idem::postgres_test {

using Kind = ProductChanged::Kind;

class Natural : public ::testing::Test {
protected:
    void SetUp() override {
        IDEM_TEST_NEEDS(PostgresServer::missing());
        conninfo_ = shared_postgres().create_database();
        database_.emplace(conninfo_);
        create_tables(*database_);
    }
    [[nodiscard]] Database& database() { return *database_; }
    [[nodiscard]] const std::string& conninfo() const { return conninfo_; }

    static auto changes_to(Database& database) {
        return IdempotentConsumer{no_store, NaturallyIdempotent{}}.wrap(
            "products", identity_of, [&](const ProductChanged& change, RowFence& fence) {
                apply(database, change, fence);
            });
    }
    static auto payments_to(Database& database) {
        return IdempotentConsumer{no_store, NaturallyIdempotent{}}.wrap(
            "payments", &Payment::message_id, [&](const Payment& payment, RowFence& fence) {
                book(database, payment, fence);
            });
    }
    Outcome<void> change(const ProductChanged& message) {
        return changes_to(database()).handle(message);
    }
    Outcome<void> pay(const Payment& message) { return payments_to(database()).handle(message); }
    std::string value(const char* sql) {
        return database().execute(sql).first_row.at(0).value_or("NULL");
    }
    /// Price and version of p-1, as text.
    std::string product() {
        return value("SELECT concat_ws(' v', coalesce(cents::text, 'removed'), version::text) "
                     "FROM product WHERE id = 'p-1'");
    }

private:
    std::string conninfo_;
    std::optional<Database> database_;
};

// ---- (a)

TEST_F(Natural, r6_2_a_set_that_runs_again_comes_to_the_same_and_keeps_no_record) {
    database().execute("INSERT INTO invoice VALUES ('i-1', false), ('i-2', false)");
    int runs = 0;
    const auto paid = IdempotentConsumer{no_store, NaturallyIdempotent{}}.wrap(
        "invoices", &InvoicePaid::message_id, [&](const InvoicePaid& message) {
            ++runs;
            mark_paid(database(), message);
        });
    static_assert(decltype(paid)::guarantee == Guarantee::at_least_once);
    for (int delivery = 0; delivery < 3; ++delivery) {
        EXPECT_EQ(paid.handle(InvoicePaid{"m-1", "i-1"}).status(), Status::executed);
        EXPECT_EQ(value("SELECT count(*) FROM invoice WHERE paid"), "1");
    }
    EXPECT_EQ(runs, 3);
    EXPECT_EQ(value("SELECT count(*) FROM invoice"), "2");
    EXPECT_EQ(value("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'idem%'"), "0");
}

// ---- (b)

TEST_F(Natural, r6_2_b_the_version_decides_and_each_change_takes_effect_once) {
    EXPECT_EQ(change({"p-1", 1, Kind::created, 100}).status(), Status::executed);
    EXPECT_EQ(change({"p-1", 1, Kind::created, 100}).status(), Status::skipped);
    EXPECT_EQ(change({"p-1", 3, Kind::repriced, 130}).status(), Status::executed);
    const auto stale = change({"p-1", 2, Kind::repriced, 120});
    EXPECT_EQ(stale.status(), Status::skipped);
    EXPECT_EQ(stale.settlement().action, Action::ack);
    EXPECT_EQ(change({"p-1", 3, Kind::repriced, 130}).status(), Status::skipped);
    EXPECT_EQ(change({"p-1", 1, Kind::created, 100}).status(), Status::skipped);
    EXPECT_EQ(product(), "130 v3");
    EXPECT_EQ(value("SELECT count(*) FROM product"), "1");
}

TEST_F(Natural, r6_2_b_an_equal_version_with_another_payload_is_a_conflict) {
    EXPECT_EQ(change({"p-1", 1, Kind::created, 100}).status(), Status::executed);
    EXPECT_EQ(change({"p-1", 2, Kind::repriced, 120}).status(), Status::executed);
    for (const ProductChanged& other :
         {ProductChanged{"p-1", 2, Kind::repriced, 999}, ProductChanged{"p-1", 2, Kind::removed}}) {
        const auto outcome = change(other);
        EXPECT_EQ(outcome.status(), Status::conflict);
        EXPECT_EQ(outcome.settlement().action, Action::dead_letter);
    }
    EXPECT_EQ(product(), "120 v2");
}

TEST_F(Natural, r6_2_b_an_update_that_overtook_its_create_is_retried_and_not_lost) {
    for (int delivery = 0; delivery < 2; ++delivery) {
        const auto early = change({"p-1", 2, Kind::repriced, 120});
        EXPECT_EQ(early.status(), Status::failed);
        EXPECT_EQ(early.settlement().action, Action::retry);
    }
    EXPECT_EQ(value("SELECT count(*) FROM product"), "0");
    EXPECT_EQ(change({"p-1", 1, Kind::created, 100}).status(), Status::executed);
    EXPECT_EQ(change({"p-1", 2, Kind::repriced, 120}).status(), Status::executed);
    EXPECT_EQ(product(), "120 v2");
}

TEST_F(Natural, r6_2_b_a_create_between_statement_and_look_is_no_reason_to_skip) {
    const ProductChanged update{"p-1", 2, Kind::repriced, 120};
    Database other(conninfo());
    int runs = 0;
    const auto racing = IdempotentConsumer{no_store, NaturallyIdempotent{}}.wrap(
        "products", identity_of, [&](const ProductChanged& message, RowFence& fence) {
            apply(database(), message, fence);
            if (++runs == 1) { // the look came after the create, the statement before it
                EXPECT_EQ(changes_to(other).handle({"p-1", 1, Kind::created, 100}).status(),
                          Status::executed);
                fence.found(1, payload_of({"p-1", 1, Kind::created, 100}));
            }
        });
    EXPECT_EQ(racing.handle(update).settlement().action, Action::retry);
    EXPECT_EQ(racing.handle(update).status(), Status::executed);
    EXPECT_EQ(product(), "120 v2");
}

TEST_F(Natural, r6_2_b_a_removal_leaves_a_tombstone_that_no_late_change_undoes) {
    EXPECT_EQ(change({"p-1", 1, Kind::created, 100}).status(), Status::executed);
    EXPECT_EQ(change({"p-1", 3, Kind::removed}).status(), Status::executed);
    for (const ProductChanged& late : {ProductChanged{"p-1", 2, Kind::repriced, 120},
                                       ProductChanged{"p-1", 1, Kind::created, 100},
                                       ProductChanged{"p-1", 3, Kind::removed}}) {
        EXPECT_EQ(change(late).status(), Status::skipped);
        EXPECT_EQ(product(), "removed v3");
    }
}

TEST_F(Natural, r6_2_b_every_order_of_delivery_ends_in_the_newest_state) {
    const std::array<ProductChanged, 4> all{{{"p-1", 1, Kind::created, 100},
                                             {"p-1", 2, Kind::repriced, 120},
                                             {"p-1", 3, Kind::repriced, 130},
                                             {"p-1", 4, Kind::repriced, 140}}};
    std::array<std::size_t, 4> order{0, 1, 2, 3};
    unsigned orders = 0;
    do {
        database().execute("DELETE FROM product");
        std::vector<std::size_t> queue(order.begin(), order.end());
        unsigned deliveries = 0;
        for (std::size_t at = 0; at < queue.size(); ++at) {
            ASSERT_LT(++deliveries, 20U);
            if (change(all[queue[at]]).settlement().action == Action::retry) {
                queue.push_back(queue[at]);
            }
        }
        ASSERT_EQ(product(), "140 v4") << "order number " << orders;
        ++orders;
    } while (std::next_permutation(order.begin(), order.end()));
    EXPECT_EQ(orders, 24U);
}

TEST_F(Natural, a_message_without_a_version_is_dead_lettered) {
    const auto versionless = IdempotentConsumer{no_store, NaturallyIdempotent{}}.wrap(
        "products",
        &ProductChanged::product_id,
        [&](const ProductChanged& message, RowFence& fence) { apply(database(), message, fence); });
    EXPECT_EQ(versionless.handle({"p-1", 1, Kind::created, 100}).settlement().action,
              Action::dead_letter);
    EXPECT_EQ(value("SELECT count(*) FROM product"), "0");
}

// ---- (c)

TEST_F(Natural, r6_2_c_the_tables_own_key_refuses_the_second_without_another_table) {
    EXPECT_EQ(pay({"m-1", 4200}).status(), Status::executed);
    for (int delivery = 0; delivery < 3; ++delivery) {
        const auto duplicate = pay({"m-1", 4200});
        EXPECT_EQ(duplicate.status(), Status::skipped);
        EXPECT_EQ(duplicate.settlement().action, Action::ack);
    }
    EXPECT_EQ(pay({"m-2", 1000}).status(), Status::executed);
    EXPECT_EQ(value("SELECT count(*) FROM payment"), "2");
    EXPECT_EQ(value("SELECT sum(cents) FROM payment"), "5200");
    EXPECT_EQ(value("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'idem%'"), "0");
}

TEST_F(Natural, r6_2_c_of_copies_at_once_one_takes_effect) {
    constexpr unsigned threads = 8, messages = 20;
    std::atomic<unsigned> executed{0}, skipped{0};
    idem::testing::in_parallel(threads, [&](unsigned) {
        Database own(conninfo());
        const auto book_payment = payments_to(own);
        for (unsigned number = 0; number < messages; ++number) {
            const auto outcome = book_payment.handle({"m-" + std::to_string(number), 100});
            executed += outcome.status() == Status::executed ? 1 : 0;
            skipped += outcome.status() == Status::skipped ? 1 : 0;
        }
    });
    EXPECT_EQ(executed, messages);
    EXPECT_EQ(skipped, (threads - 1) * messages);
    EXPECT_EQ(value("SELECT count(*) FROM payment"), std::to_string(messages));
}

TEST_F(Natural, r3_5_a_statement_that_fails_is_the_handlers_failure) {
    database().execute("DROP TABLE payment");
    const auto outcome = pay({"m-1", 4200});
    EXPECT_EQ(outcome.status(), Status::failed);
    EXPECT_EQ(outcome.settlement().action, Action::retry);
}

} // namespace idem::postgres_test
