// SPDX-License-Identifier: MIT
// Each concept takes its exact minimum and refuses the near misses. All of it at compile time.

#include <idem/dedup_store.hpp>
#include <idem/heartbeat.hpp>
#include <idem/strategy/strategy.hpp>

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace {

using idem::ClaimRequest;
using idem::TicketState;
using Requests = std::span<const ClaimRequest>;
using Results = std::span<const std::string>;

// ---- DedupStore

struct Leases {
    struct Ticket {};
    idem::Claim<Ticket> claim(const ClaimRequest&);
    TicketState complete(const Ticket&, std::string_view);
    void abandon(const Ticket&, std::string_view) noexcept;
};
static_assert(idem::DedupStore<Leases>);
static_assert(!idem::RenewableStore<Leases> && !idem::BatchStore<Leases> &&
              !idem::TokenStore<Leases> && !idem::RefundingStore<Leases> &&
              !idem::ParkingStore<Leases> && !idem::BeatingStore<Leases> &&
              !idem::TransactionalStore<Leases>);

struct AbandonMayThrow : Leases {
    void abandon(const Ticket&, std::string_view);
};
struct CompleteReturnsVoid : Leases {
    void complete(const Ticket&, std::string_view);
};
struct CompleteReturnsBool : Leases {
    bool complete(const Ticket&, std::string_view);
};
struct ClaimReturnsBool : Leases {
    bool claim(const ClaimRequest&);
};
struct OtherTicket : Leases {
    struct Ticket {};
};
struct TicketStays : Leases {
    struct Ticket {
        Ticket(Ticket&&) = delete;
    };
    idem::Claim<Ticket> claim(const ClaimRequest&);
    TicketState complete(const Ticket&, std::string_view);
    void abandon(const Ticket&, std::string_view) noexcept;
};
struct NoTicket {
    idem::Claim<int> claim(const ClaimRequest&);
    TicketState complete(int, std::string_view);
    void abandon(int, std::string_view) noexcept;
};
struct ChangesItsTicket : Leases {
    TicketState complete(Ticket&, std::string_view);
};
static_assert(!idem::DedupStore<AbandonMayThrow> && !idem::DedupStore<CompleteReturnsVoid> &&
              !idem::DedupStore<CompleteReturnsBool> && !idem::DedupStore<ClaimReturnsBool> &&
              !idem::DedupStore<OtherTicket> && !idem::DedupStore<TicketStays> &&
              !idem::DedupStore<NoTicket> && !idem::DedupStore<ChangesItsTicket> &&
              !idem::DedupStore<int>);

// ---- its powers

struct Renews : Leases {
    TicketState renew(const Ticket&, idem::milliseconds);
};
struct Refunds : Leases {
    void refund(const Ticket&) noexcept;
};
struct RefundMayThrow : Leases {
    void refund(const Ticket&);
};
struct Parks : Leases {
    TicketState park(const Ticket&, std::string_view);
};
struct Batches : Leases {
    using Leases::claim, Leases::complete;
    std::vector<idem::Claim<Ticket>> claim(Requests);
    std::vector<TicketState> complete(std::span<const Ticket>, Results);
};
struct Issues : Leases {
    std::string issue(std::string_view, idem::seconds, const idem::Fingerprint&);
};
struct RenewsOnly {
    struct Ticket {};
    TicketState renew(const Ticket&, idem::milliseconds);
};
static_assert(idem::RenewableStore<Renews> && idem::RefundingStore<Refunds> &&
              idem::ParkingStore<Parks> && idem::BatchStore<Batches> && idem::TokenStore<Issues>);
static_assert(!idem::RefundingStore<RefundMayThrow> && !idem::RenewableStore<RenewsOnly>);

// ---- TransactionalStore

struct Transaction {
    Transaction(Transaction&&) noexcept;
    Transaction& operator=(Transaction&&) noexcept;
    ~Transaction();
    idem::Claim<std::monostate> claim(const ClaimRequest&);
    void complete(const ClaimRequest&, std::string_view);
    void commit();
    void rollback() noexcept;
    bool conflicted();
};
template <class T>
struct TableOf {
    using Transaction = T;
    T begin();
    void record_failure(const ClaimRequest&, std::string_view) noexcept;
};
using Table = TableOf<Transaction>;
static_assert(idem::StoreTransaction<Transaction> && idem::TransactionalStore<Table>);
static_assert(!idem::DedupStore<Table> && !idem::PeekingStore<Table> &&
              !idem::BatchTransaction<Transaction> && !idem::JoinableStore<Table, int>);

struct Copyable : Transaction {
    Copyable(const Copyable&);
    Copyable& operator=(const Copyable&);
};
struct RollbackMayThrow : Transaction {
    void rollback();
};
struct CommitReturnsBool : Transaction {
    bool commit();
};
static_assert(!idem::TransactionalStore<TableOf<Copyable>>, "two owners of one transaction");
static_assert(!idem::TransactionalStore<TableOf<RollbackMayThrow>> &&
              !idem::TransactionalStore<TableOf<CommitReturnsBool>>);

struct FailureMayThrow : Table {
    void record_failure(const ClaimRequest&, std::string_view);
};
struct Peeks : Table {
    idem::Claim<std::monostate> peek(const ClaimRequest&);
};
struct Joins : Table {
    Transaction join(int);
};
static_assert(!idem::TransactionalStore<FailureMayThrow>);
static_assert(idem::PeekingStore<Peeks> && idem::JoinableStore<Joins, int> &&
              !idem::JoinableStore<Joins, const char*>);

struct TransactionOfBatches : Transaction {
    using Transaction::claim, Transaction::complete;
    std::vector<idem::Claim<std::monostate>> claim(Requests);
    void savepoint();
    void back_to_savepoint();
    void complete(Requests, Results);
};
static_assert(idem::BatchTransaction<TransactionOfBatches>);

// ---- StrategyFor

struct Strategy {
    template <class S>
    using Context = idem::NoContext;
    static constexpr idem::Guarantee guarantee(bool) { return idem::Guarantee::at_least_once; }
    template <class S>
    idem::Verdict run(S&, const idem::Request&, const idem::Work<idem::NoContext>&) const;
};
struct MutableStrategy : Strategy {
    template <class S>
    idem::Verdict run(S&, const idem::Request&, const idem::Work<idem::NoContext>&);
};
struct OtherContext : Strategy {
    template <class S>
    using Context = int;
};
struct WithoutGuarantee {
    template <class S>
    using Context = idem::NoContext;
    template <class S>
    idem::Verdict run(S&, const idem::Request&, const idem::Work<idem::NoContext>&) const;
};
static_assert(idem::StrategyFor<Strategy, Leases> && !idem::BatchStrategyFor<Strategy, Leases>);
static_assert(!idem::StrategyFor<MutableStrategy, Leases> &&
              !idem::StrategyFor<OtherContext, Leases> &&
              !idem::StrategyFor<WithoutGuarantee, Leases>);

TEST(Concepts, a_verdict_on_each_answer_that_is_not_a_claim) {
    using Claim = idem::Claim<int>;
    const struct {
        Claim claim;
        idem::Status status;
    } rows[] = {{idem::Completed{idem::stored_result("x")}, idem::Status::replayed},
                {idem::Completed{""}, idem::Status::replayed},
                {idem::Completed{idem::omitted_result()}, idem::Status::skipped},
                {idem::InProgress{idem::milliseconds{7}}, idem::Status::in_progress},
                {idem::Conflict{}, idem::Status::conflict},
                {idem::Dead{3}, idem::Status::dead},
                {idem::Refused{idem::reason::token_spent}, idem::Status::refused},
                {idem::Parked{}, idem::Status::parked}};
    for (const auto& row : rows) {
        const auto verdict = idem::verdict_of(Claim(row.claim));
        EXPECT_EQ(to_string(verdict.status), to_string(row.status));
    }
    EXPECT_EQ(idem::verdict_of(Claim(rows[5].claim)).attempts, 3U);
    EXPECT_EQ(idem::verdict_of(Claim(rows[3].claim)).retry_after, idem::milliseconds{7});
    EXPECT_EQ(idem::verdict_of(Claim(rows[6].claim)).reason, idem::reason::token_spent);
}

} // namespace
