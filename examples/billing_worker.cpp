// SPDX-License-Identifier: MIT

// A billing worker: every charge is written once, however often its message comes. Two homes for
// it: a journal file with SQLite, or a Redis stream with PostgreSQL.

#include <idem/broker/source.hpp>
#include <idem/idem.hpp>
#include <idem/store/sqlite.hpp>

#include "journal_source.hpp"
#include "stop_signal.hpp"
#include "tally.hpp"

#ifdef BILLING_ON_SERVERS
#include <idem/broker/redis_stream.hpp>
#include <idem/store/postgres.hpp>
#endif

#include <charconv>
#include <cstdint>
#include <exception>
#include <iostream>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

struct Charge {
    std::string order_id;
    std::int64_t cents = 0;
};

/// "order-17 4200". What it throws makes the message invalid: dead-lettered, never lost.
Charge parse_charge(const idem::KeyedDelivery auto& delivery) {
    const std::string_view text = delivery.payload();
    const auto space = text.find(' ');
    Charge charge{std::string(text.substr(0, space))};
    if (space == std::string_view::npos ||
        std::from_chars(&text[space] + 1, text.data() + text.size(), charge.cents).ec !=
            std::errc{}) {
        throw idem::Unprocessable("a charge is \"<order> <cents>\", not \"" + std::string(text) +
                                  '"');
    }
    return charge;
}

/// Wrap, handler, loop: this is all that a service writes.
template <class Store, idem::Source Source>
void bill(Store& store, Source& source, idem::Observer& tally, const std::stop_token& stop) {
    idem::IdempotentConsumer consumer{store, idem::DedupTable{}, {.observer = &tally}};

    auto handler = consumer.wrap("billing", &Charge::order_id, [](const Charge& charge, auto& tx) {
        tx.execute(
            "INSERT INTO charge (order_id, cents) VALUES ($1, $2)", charge.order_id, charge.cents);
    });
    static_assert(decltype(handler)::guarantee == idem::Guarantee::effectively_once);

    auto parse = [](const typename Source::Delivery& delivery) { return parse_charge(delivery); };
    idem::run(source, idem::decoding(parse, handler), stop, {.concurrency = 4});
}

constexpr std::string_view usage =
    "billing_worker journal JOURNAL DATABASE TALLY\n"
    "billing_worker stream REDIS-URL CONSUMER POSTGRES-CONNINFO TALLY\n"
    "Charges what the journal (or the stream \"charges\") holds, until SIGTERM.\n"
    "TALLY is a file of counters that outlives a killed worker.\n";

int work(const std::vector<std::string>& words) {
    const StopSignal stop; // SIGTERM, SIGINT
    if (words.size() == 4 && words[0] == "journal") {
        Tally tally(words[3]);
        idem::SqliteStore store{words[2]};
        JournalSource source{words[1]};
        bill(store, source, tally, stop.token());
        return 0;
    }
#ifdef BILLING_ON_SERVERS
    if (words.size() == 5 && words[0] == "stream") {
        Tally tally(words[4]);
        idem::PostgresStore store{words[3]};
        idem::RedisStreamSource source{words[1],
                                       {.stream = "charges",
                                        .group = "billing",
                                        .consumer = words[2],
                                        .claim_idle = idem::milliseconds{2'000}}};
        bill(store, source, tally, stop.token());
        return 0;
    }
#endif
    const bool help = words.size() == 1 && (words[0] == "--help" || words[0] == "-h");
    (help ? std::cout : std::cerr) << usage;
    return help ? 0 : 2;
}

int main(int count, char** arguments) try {
    return work({arguments + 1, arguments + count});
} catch (const std::exception& error) {
    std::cerr << "billing_worker: " << error.what() << '\n';
    return 1;
}
