// SPDX-License-Identifier: MIT
// The postgres component compiles and links; where no server listens the store says so.

#include <idem/idem.hpp>
#include <idem/store/postgres.hpp>

#include <cstdio>

int main() {
    idem::PostgresStore store{"host=/nonexistent dbname=none"};
    idem::IdempotentConsumer consumer{store, idem::DedupTable{}};
    int ran = 0;
    try {
        (void)consumer("billing", "order-1", [&](idem::PostgresTransaction&) { ++ran; });
    } catch (const idem::StoreError& error) {
        std::printf("%s\n", error.what());
        return error.fault() == idem::Fault::unavailable && ran == 0 ? 0 : 1;
    }
    return 1;
}
