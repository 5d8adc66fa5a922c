// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_NATURAL_HPP
#define EXAMPLES_NATURAL_HPP

// Handlers whose own rows make them idempotent, without a table of records: the three forms of
// NaturallyIdempotent against PostgreSQL.

#include <idem/idem.hpp>

#include <libpq-fe.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

/// A connection of the service's own; each statement commits by itself.
class Database {
public:
    using Values = std::vector<std::optional<std::string>>;
    struct Answer {
        std::uint64_t affected = 0;
        Values first_row{}; ///< empty: there is none
    };

    explicit Database(const std::string& conninfo)
        : connection_(PQconnectdb(conninfo.c_str()), &PQfinish) {
        if (PQstatus(connection_.get()) != CONNECTION_OK) {
            throw std::runtime_error(PQerrorMessage(connection_.get()));
        }
    }
    /// Throws: std::runtime_error.
    Answer execute(const char* sql, const Values& values = {}) {
        std::vector<const char*> texts;
        for (const auto& value : values) {
            texts.push_back(value ? value->c_str() : nullptr);
        }
        const std::unique_ptr<PGresult, decltype(&PQclear)> result(
            PQexecParams(connection_.get(),
                         sql,
                         static_cast<int>(texts.size()),
                         nullptr,
                         texts.data(),
                         nullptr,
                         nullptr,
                         0),
            &PQclear);
        const auto status = PQresultStatus(result.get());
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
            throw std::runtime_error(PQresultErrorMessage(result.get()));
        }
        Answer answer;
        const std::string affected = PQcmdTuples(result.get());
        answer.affected = affected.empty() ? 0 : std::stoull(affected);
        for (int column = 0; column < PQnfields(result.get()) && PQntuples(result.get()) > 0;
             ++column) {
            answer.first_row.push_back(
                PQgetisnull(result.get(), 0, column) == 1
                    ? std::nullopt
                    : std::optional<std::string>(PQgetvalue(result.get(), 0, column)));
        }
        return answer;
    }

private:
    std::unique_ptr<PGconn, decltype(&PQfinish)> connection_;
};

inline void create_tables(Database& database) {
    for (const char* sql : {"CREATE TABLE invoice (id text PRIMARY KEY, paid boolean NOT NULL)",
                            "CREATE TABLE product (id text PRIMARY KEY, cents bigint, "
                            "version bigint NOT NULL, payload_digest text NOT NULL)",
                            "CREATE TABLE payment (message_id text PRIMARY KEY, cents bigint "
                            "NOT NULL)"}) {
        database.execute(sql);
    }
}

// ---- (a) no record: to run it again comes to the same

struct InvoicePaid {
    std::string message_id, invoice_id;
};

/// Only for what no later message takes back: a late redelivery sets it again.
inline void mark_paid(Database& database, const InvoicePaid& message) {
    database.execute("UPDATE invoice SET paid = true WHERE id = $1", {message.invoice_id});
}

// ---- (b) a version in the business row, compared in the same statement

/// What became of a product, with the producer's version of it, which counts from 1.
struct ProductChanged {
    enum class Kind { created, repriced, removed };
    std::string product_id;
    std::uint64_t version = 0;
    Kind kind = Kind::repriced;
    std::int64_t cents = 0;
};

inline idem::Fingerprint payload_of(const ProductChanged& change) {
    return idem::fingerprint_of(std::to_string(static_cast<int>(change.kind)) + ' ' +
                                std::to_string(change.cents));
}
inline std::string digest_text(const idem::Fingerprint& digest) {
    return std::to_string(digest.high) + ' ' + std::to_string(digest.low);
}
inline idem::Fingerprint digest_from(const std::string& text) {
    std::size_t end = 0;
    const auto high = std::stoull(text, &end);
    return {.high = high, .low = std::stoull(text.substr(end)), .algorithm = 1};
}

/// The key function: what idem::RowFence compares comes from here.
inline idem::Identity identity_of(const ProductChanged& change) {
    return {.id = change.product_id + " v" + std::to_string(change.version),
            .fingerprint = payload_of(change),
            .version = change.version};
}

/// A removed product leaves its row with the version, so that a late change does not bring it back:
/// `cents` is NULL then.
inline void apply(Database& database, const ProductChanged& change, idem::RowFence& fence) {
    using Kind = ProductChanged::Kind;
    const char* const sql =
        change.kind == Kind::created
            ? "INSERT INTO product (id, cents, version, payload_digest) VALUES ($1, $2, $3, $4) "
              "ON CONFLICT (id) DO NOTHING"
            : "UPDATE product SET cents = $2, version = $3, payload_digest = $4 "
              "WHERE id = $1 AND version < $3";
    const auto cents = change.kind == Kind::removed
                           ? std::nullopt
                           : std::optional<std::string>(std::to_string(change.cents));
    const auto changed = database.execute(sql,
                                          {change.product_id,
                                           cents,
                                           std::to_string(fence.version()),
                                           digest_text(payload_of(change))});
    fence.rows(changed.affected);
    if (changed.affected == 0) { // which row refused?
        const auto row = database
                             .execute("SELECT version, payload_digest FROM product WHERE id = $1",
                                      {change.product_id})
                             .first_row;
        if (row.empty()) {
            fence.found({}); // it overtook its create: retry
        } else {
            fence.found(std::stoull(*row[0]), digest_from(*row[1]));
        }
    }
}

// ---- (c) the business table's own unique key is the record

struct Payment {
    std::string message_id;
    std::int64_t cents = 0;
};

inline void book(Database& database, const Payment& payment, idem::RowFence& fence) {
    const auto booked = database.execute("INSERT INTO payment (message_id, cents) VALUES ($1, $2) "
                                         "ON CONFLICT (message_id) DO NOTHING",
                                         {payment.message_id, std::to_string(payment.cents)});
    fence.rows(booked.affected);
}

#endif // EXAMPLES_NATURAL_HPP
