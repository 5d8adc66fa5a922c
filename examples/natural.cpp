// SPDX-License-Identifier: MIT

// NaturallyIdempotent in its three forms, over a PostgreSQL server started here: what happens to
// messages that are redelivered, out of order, duplicated. Counted in the database at the end.

#include "natural.hpp"

#include <cstdio>
#include <deque>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>

#include "../tests/support/postgres_server.hpp"

using idem::testing_support::PostgresServer;

std::string text_of(const InvoicePaid& message) {
    return message.message_id + ": " + message.invoice_id + " is paid";
}
std::string text_of(const ProductChanged& change) {
    using Kind = ProductChanged::Kind;
    const auto name = change.product_id + " v" + std::to_string(change.version) + ": ";
    if (change.kind == Kind::removed) {
        return name + "removed";
    }
    return name + (change.kind == Kind::created ? "created at " : "now at ") +
           std::to_string(change.cents);
}
std::string text_of(const Payment& payment) {
    return payment.message_id + ": " + std::to_string(payment.cents) + " cents";
}

const char* text_of(idem::Action action) {
    switch (action) {
    case idem::Action::ack:
        return "ack";
    case idem::Action::retry:
        return "retry";
    case idem::Action::dead_letter:
        return "dead-letter";
    case idem::Action::stop:
        return "stop";
    }
    return "?";
}

/// Delivers as a broker does: what is to be retried comes again after the others.
template <class Message, class Handler>
void deliver(const char* form, const Handler& handler, std::deque<Message> queue) {
    std::printf("\n%s\n", form);
    for (unsigned deliveries = 0; !queue.empty(); ++deliveries) {
        if (deliveries == 100) {
            throw std::runtime_error("a message is retried for ever");
        }
        const Message message = queue.front();
        queue.pop_front();
        const auto outcome = handler.handle(message);
        const auto action = outcome.settlement().action;
        std::printf("  %-24s %-10s %s\n",
                    text_of(message).c_str(),
                    std::string(to_string(outcome.status())).c_str(),
                    text_of(action));
        if (action == idem::Action::retry) {
            queue.push_back(message);
        }
    }
}

/// Counts what is not as it must be.
class Checks {
public:
    explicit Checks(Database& database) : database_(database) {}
    void expect(const char* sql, const std::string& expected) {
        const auto found = database_.execute(sql).first_row.at(0).value_or("NULL");
        const bool right = found == expected;
        std::printf("  %s: %s%s\n", sql, found.c_str(), right ? "" : ", WRONG");
        wrong_ += right ? 0 : 1;
    }
    [[nodiscard]] int wrong() const { return wrong_; }

private:
    Database& database_;
    int wrong_ = 0;
};

int demonstrate(Database& database) {
    using Kind = ProductChanged::Kind;
    create_tables(database);
    Checks checks(database);
    const idem::IdempotentConsumer consumer{idem::no_store, idem::NaturallyIdempotent{}};

    database.execute("INSERT INTO invoice VALUES ('i-1', false), ('i-2', false)");
    const auto paid =
        consumer.wrap("invoices", &InvoicePaid::message_id, [&](const InvoicePaid& message) {
            mark_paid(database, message);
        });
    deliver<InvoicePaid>("(a) SET paid = true: no record; every delivery runs, to the same end",
                         paid,
                         {{"m-1", "i-1"}, {"m-1", "i-1"}, {"m-2", "i-2"}, {"m-1", "i-1"}});
    checks.expect("SELECT count(*) FROM invoice WHERE paid", "2");

    const auto change = consumer.wrap(
        "products", identity_of, [&](const ProductChanged& message, idem::RowFence& fence) {
            apply(database, message, fence);
        });
    deliver<ProductChanged>("(b) WHERE version < $n: what is stale changes nothing",
                            change,
                            {{"p-1", 2, Kind::repriced, 120}, // overtook its create
                             {"p-1", 1, Kind::created, 100},
                             {"p-1", 1, Kind::created, 100}, // redelivered
                             {"p-1", 4, Kind::repriced, 140},
                             {"p-1", 3, Kind::repriced, 130}, // late
                             {"p-1", 4, Kind::repriced, 140}, // redelivered
                             {"p-1", 4, Kind::repriced, 999}, // equal version, other payload
                             {"p-2", 1, Kind::created, 500},
                             {"p-2", 3, Kind::removed},
                             {"p-2", 2, Kind::repriced, 450}, // late: does not bring it back
                             {"p-2", 3, Kind::removed}});
    checks.expect("SELECT cents FROM product WHERE id = 'p-1' AND version = 4", "140");
    checks.expect("SELECT cents FROM product WHERE id = 'p-2' AND version = 3", "NULL");
    checks.expect("SELECT count(*) FROM product", "2");

    const auto pay = consumer.wrap(
        "payments", &Payment::message_id, [&](const Payment& message, idem::RowFence& fence) {
            book(database, message, fence);
        });
    deliver<Payment>("(c) ON CONFLICT DO NOTHING: the table's own key is the record",
                     pay,
                     {{"m-1", 4200}, {"m-2", 1000}, {"m-1", 4200}, {"m-2", 1000}});
    checks.expect("SELECT count(*) FROM payment", "2");
    checks.expect("SELECT sum(cents) FROM payment", "5200");
    return checks.wrong();
}

int main(int count, char** arguments) try {
    if (count > 1) {
        const bool help = std::string(arguments[1]) == "--help";
        std::fputs("natural\nHandles messages that are redelivered, late or duplicated by the "
                   "three forms of NaturallyIdempotent, over a PostgreSQL server that it starts.\n",
                   help ? stdout : stderr);
        return help ? 0 : 2;
    }
    if (const auto why = PostgresServer::missing(); !why.empty()) {
        throw std::runtime_error(why);
    }
    PostgresServer server;
    Database database(server.create_database());
    const int wrong = demonstrate(database);
    std::printf("\n%s\n", wrong == 0 ? "all of it right" : "WRONG");
    return wrong == 0 ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << "natural: " << error.what() << '\n';
    return 1;
}
