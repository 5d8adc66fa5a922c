// SPDX-License-Identifier: MIT
// The least that a store and a message are, for programs that are compiled and never run.

#pragma once

#include <idem/consumer.hpp>
#include <idem/store/memory.hpp>
#include <idem/strategy/dedup_table.hpp>
#include <idem/strategy/distributed_lock.hpp>
#include <idem/strategy/one_time_token.hpp>

#include <string>
#include <string_view>

struct Order {
    std::string id;
    double cents = 0;
};
struct Customer {
    std::string id;
};

struct LeaseStore {
    struct Ticket {};
    idem::Claim<Ticket> claim(const idem::ClaimRequest&);
    idem::TicketState complete(const Ticket&, std::string_view);
    void abandon(const Ticket&, std::string_view) noexcept;
};

struct Transaction {
    Transaction(Transaction&&) noexcept;
    Transaction& operator=(Transaction&&) noexcept;
    ~Transaction();
    idem::Claim<std::monostate> claim(const idem::ClaimRequest&);
    void complete(const idem::ClaimRequest&, std::string_view);
    void commit();
    void rollback() noexcept;
    bool conflicted();
};
struct TableStore {
    using Transaction = ::Transaction;
    Transaction begin();
    void record_failure(const idem::ClaimRequest&, std::string_view) noexcept;
};

extern LeaseStore leases;
extern TableStore table;
extern idem::MemoryStore memory;

using Leased = idem::IdempotentConsumer<LeaseStore, idem::DistributedLock>;
using Joined = idem::IdempotentConsumer<TableStore, idem::DedupTable>;
