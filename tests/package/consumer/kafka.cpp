// SPDX-License-Identifier: MIT
// The kafka component compiles and links; where no server listens the source says so.

#include <idem/broker/kafka.hpp>
#include <idem/broker/kafka_transaction.hpp>
#include <idem/idem.hpp>

#include <chrono>
#include <cstdio>

int main() {
    idem::KafkaSource source({.servers = "127.0.0.1:1",
                              .group = "billing",
                              .topics = {"orders"},
                              .settings = {{"log_level", "0"}}});
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    try {
        while (std::chrono::steady_clock::now() < until) {
            static_cast<void>(source.receive(idem::milliseconds{100}));
        }
    } catch (const idem::StoreError& error) {
        std::printf("%s\n", error.what());
        return error.fault() == idem::Fault::unavailable ? 0 : 1;
    }
    return 1;
}
