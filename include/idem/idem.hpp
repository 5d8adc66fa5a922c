// SPDX-License-Identifier: MIT
#ifndef IDEM_IDEM_HPP
#define IDEM_IDEM_HPP

// The vocabulary, the consumer, all strategies and MemoryStore; needs the standard library alone.
// Stores and brokers over a client library are headers of their own.

#include <idem/codec.hpp>
#include <idem/consumer.hpp>
#include <idem/dedup_store.hpp>
#include <idem/error.hpp>
#include <idem/guarantee.hpp>
#include <idem/handler.hpp>
#include <idem/key.hpp>
#include <idem/observer.hpp>
#include <idem/outcome.hpp>
#include <idem/store/memory.hpp>
#include <idem/strategy/at_most_once.hpp>
#include <idem/strategy/broker_transaction.hpp>
#include <idem/strategy/dedup_table.hpp>
#include <idem/strategy/distributed_lock.hpp>
#include <idem/strategy/naturally_idempotent.hpp>
#include <idem/strategy/offset_fence.hpp>
#include <idem/strategy/one_time_token.hpp>
#include <idem/strategy/strategy.hpp>
#include <idem/version.hpp>

#endif // IDEM_IDEM_HPP
