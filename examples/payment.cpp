// SPDX-License-Identifier: MIT

// DistributedLock and a payment provider: workers are killed with SIGKILL after the provider took
// the money and before its answer was recorded. By the derived key nobody pays twice; by a key
// drawn for each attempt some do.

#include "payment.hpp"

#include <idem/store/sqlite.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>

#include "../tests/support/temporary_directory.hpp"

using idem::testing_support::TemporaryDirectory;

constexpr int checkouts = 40;
constexpr idem::DistributedLock lock{.lease = idem::milliseconds{300},
                                     .min_remaining = idem::milliseconds{50}};

struct Files {
    std::string records, ledger;
    bool derived; ///< whether the provider is given the derived key
};

/// One delivery, in a process of its own. Does not return.
[[noreturn]] void work(const Files& files, const Checkout& checkout, bool dies) {
    try {
        idem::SqliteStore store(files.records);
        PaymentProvider provider(files.ledger);
        if (dies) {
            provider.before_answer = [] { ::kill(::getpid(), SIGKILL); };
        }
        const idem::IdempotentConsumer consumer(store, lock);
        const auto charge = charging(consumer, provider);
        const auto careless =
            consumer.wrap("checkout", &Checkout::order_id, [&](const Checkout& again) {
                return provider.charge("attempt-" + std::to_string(::getpid()), again.cents);
            });
        const auto settlement = files.derived ? charge.handle(checkout).settlement()
                                              : careless.handle(checkout).settlement();
        ::_exit(settlement.action == idem::Action::ack ? 0 : 1);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        ::_exit(2);
    }
}

enum class End { acked, retry, killed };

End deliver(const Files& files, const Checkout& checkout, bool dies) {
    const pid_t worker = ::fork();
    if (worker == 0) {
        work(files, checkout, dies);
    }
    int status = 0;
    if (worker < 0 || ::waitpid(worker, &status, 0) != worker) {
        throw std::runtime_error("no worker could be started");
    }
    if (WIFSIGNALED(status)) {
        return End::killed;
    }
    if (WEXITSTATUS(status) == 2) {
        throw std::runtime_error("a worker failed");
    }
    return WEXITSTATUS(status) == 0 ? End::acked : End::retry;
}

/// All checkouts, each delivered until it is acked and once more. Returns the provider's charges.
int run(const Files& files) {
    {
        idem::SqliteStore store(files.records);
        store.migrate();
    }
    int kills = 0, deliveries = 0;
    for (int number = 0; number < checkouts; ++number) {
        const Checkout checkout{"order-" + std::to_string(number), 1'000 + number};
        bool acked = false;
        for (int attempt = 0; !acked; ++attempt) {
            if (attempt == 200) {
                throw std::runtime_error(checkout.order_id + " is retried for ever");
            }
            const auto end = deliver(files, checkout, number % 4 == 0 && kills <= number / 4);
            ++deliveries;
            kills += end == End::killed ? 1 : 0;
            acked = end == End::acked;
            if (end == End::retry) { // the dead worker's lease is not over
                std::this_thread::sleep_for(idem::milliseconds{30});
            }
        }
        if (deliver(files, checkout, false) != End::acked) { // the ack was lost
            throw std::runtime_error(checkout.order_id + ": its redelivery was not acked");
        }
        ++deliveries;
    }
    std::ifstream ledger(files.ledger);
    int charges = 0;
    for (std::string line; std::getline(ledger, line);) {
        ++charges;
    }
    std::printf("%-34s %9d %11d %7d %9d\n",
                files.derived ? "lease.derived_key(\"charge\")" : "a key for each attempt",
                checkouts,
                deliveries,
                kills,
                charges);
    return charges;
}

int main(int argc, char** argv) {
    if (argc > 1) {
        const bool help = std::string(argv[1]) == "--help";
        (help ? std::cout : std::cerr)
            << "usage: payment\n\nCharges 40 checkouts with a provider that honours idempotency "
               "keys, by workers\nthat are killed between the charge and its record.\n";
        return help ? 0 : 2;
    }
    try {
        const TemporaryDirectory home;
        std::printf("%-34s %9s %11s %7s %9s\n",
                    "the provider is given",
                    "checkouts",
                    "deliveries",
                    "kills",
                    "charges");
        const int once = run({(home / "derived.db").string(), (home / "derived").string(), true});
        const int often = run({(home / "drawn.db").string(), (home / "drawn").string(), false});
        if (once != checkouts || often <= checkouts) {
            std::printf("WRONG\n");
            return 1;
        }
        std::printf("\nNobody paid twice by the derived key, %d by the other.\n",
                    often - checkouts);
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "payment: " << error.what() << '\n';
        return 1;
    }
}
