// SPDX-License-Identifier: MIT
// expected: idem::BrokerTransaction needs a TransactionalSink: begin() -> Transaction with claim, commit, abort

#include <idem/strategy/broker_transaction.hpp>

#include "stores.hpp"

#ifdef RIGHT
struct Sink {
    struct Transaction {
        std::vector<idem::Claim<std::monostate>> claim(std::span<const idem::Request>);
        void commit(std::span<const idem::Request>);
        void abort() noexcept;
    };
    Transaction begin();
};
extern Sink sink;
idem::IdempotentConsumer consumer{sink, idem::BrokerTransaction{}};
#else
idem::IdempotentConsumer consumer{table, idem::BrokerTransaction{}};
#endif
