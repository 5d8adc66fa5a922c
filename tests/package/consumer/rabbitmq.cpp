// SPDX-License-Identifier: MIT
// The rabbitmq component compiles and links; where no server listens the source says so.

#include <idem/broker/rabbitmq.hpp>
#include <idem/idem.hpp>

#include <cstdio>

int main() {
    idem::RabbitSource source("amqp://guest:guest@127.0.0.1:1/", {.queue = "orders"});
    try {
        static_cast<void>(source.receive(idem::milliseconds{100}));
    } catch (const idem::StoreError& error) {
        std::printf("%s\n", error.what());
        return error.fault() == idem::Fault::unavailable ? 0 : 1;
    }
    return 1;
}
