// SPDX-License-Identifier: MIT
#ifndef IDEM_DEDUP_STORE_HPP
#define IDEM_DEDUP_STORE_HPP

// The concepts that a store implements, each with its laws. idem/testing/store_contract.hpp holds a
// test per row; run it over a store of your own.

#include <idem/error.hpp>
#include <idem/guarantee.hpp>
#include <idem/key.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace idem::inline v0 {

/// A question to a store: may I process this key?
struct ClaimRequest {
    Key key;
    Fingerprint fingerprint{};
    milliseconds lease{30'000};
    seconds retention{604'800}; ///< counted from completion; an open record lives as long at least
    unsigned max_attempts = 0;  ///< 0: no limit
    std::optional<Timestamp> created{};
    std::string_view token{};      ///< filed under (scope, token) and held by key.id
    bool token_may_be_new = false; ///< the first claim makes the record of an unknown token
};

/// The caller owns the key. `attempt` counts from 1; `fence` only grows per key. `takeover`: an
/// earlier owner's lease ran out, so its effect may have happened.
template <class Ticket>
struct Claimed {
    Ticket ticket;
    unsigned attempt = 1;
    std::uint64_t fence = 0;
    bool takeover = false;
};
/// Done. `result` is byte for byte what complete() was given.
struct Completed {
    std::string result;
    std::optional<milliseconds> age{};
};
/// Somebody else owns the key, for about so long yet; zero: not known.
struct InProgress {
    milliseconds retry_after;
};
/// Same key, other payload.
struct Conflict {};
/// max_attempts used up.
struct Dead {
    unsigned attempts;
};
/// Of a token: reason::token_unknown, token_spent or token_expired.
struct Refused {
    std::string_view reason;
};
/// An unknown outcome that a human must decide.
struct Parked {};

/// The atomic answer of a store.
template <class Ticket>
using Claim = std::variant<Claimed<Ticket>, Completed, InProgress, Conflict, Dead, Refused, Parked>;

enum class [[nodiscard]] TicketState : bool{outdated, valid};

/// Where records live, under a lease. Every member but abandon may throw StoreError.
///
/// | expression                | law                                                              |
/// |---------------------------|------------------------------------------------------------------|
/// | claim(request)            | atomic: of any number of concurrent claims of one key one is     |
/// |                           | Claimed, the others InProgress                                   |
/// |                           | a completed key answers Completed, with the bytes given to       |
/// |                           | complete                                                         |
/// |                           | a key whose lease ran out is Claimed with takeover, a greater    |
/// |                           | attempt and a greater fence                                      |
/// |                           | only the store's own clock decides that                          |
/// |                           | another fingerprint than the record's is Conflict; the handler   |
/// |                           | must not run                                                     |
/// |                           | in progress wins over conflict; no fingerprint never conflicts   |
/// |                           | attempts ≥ max_attempts > 0 is Dead                              |
/// |                           | scopes never interact; any bytes in scope and id                 |
/// | complete(ticket, text)    | valid: the record is completed, durably by S::durability, for    |
/// |                           | `retention`                                                      |
/// |                           | a ticket that expired but was not overtaken is valid             |
/// |                           | outdated: another claim overtook it, and nothing changed         |
/// |                           | repeated with the same ticket and text: valid, nothing changes   |
/// | abandon(ticket, why)      | the key is free, its attempt stays counted; an outdated or       |
/// |                           | completed one is not touched                                     |
/// |                           | best effort, noexcept: otherwise the lease ends by itself        |
///
/// Concurrency: every member may be called from any number of threads.
template <class S>
concept DedupStore = requires(S& store,
                              const ClaimRequest& request,
                              const typename S::Ticket& ticket,
                              std::string_view text) {
    requires std::movable<typename S::Ticket>; // self-contained: outlives its request
    { store.claim(request) } -> std::same_as<Claim<typename S::Ticket>>;
    { store.complete(ticket, text) } -> std::same_as<TicketState>;
    { store.abandon(ticket, text) } -> std::same_as<void>;
    requires noexcept(store.abandon(ticket, text));
};

/// | renew(ticket, lease)      | valid: the lease counts anew, from now, by the store's clock     |
/// |                           | outdated: overtaken, completed or gone, and nothing changed      |
template <class S>
concept RenewableStore = DedupStore<S> &&
    requires(S& store, const typename S::Ticket& ticket, milliseconds lease) {
    { store.renew(ticket, lease) } -> std::same_as<TicketState>;
};

/// | claim(requests)           | one answer per request, in order, each as claim(request) would   |
/// |                           | the keys must differ; Cost: one round trip for all that are free |
/// | complete(tickets, texts)  | one state per ticket, in order                                   |
template <class S>
concept BatchStore = DedupStore<S> && requires(S& store,
                                               std::span<const ClaimRequest> requests,
                                               std::span<const typename S::Ticket> tickets,
                                               std::span<const std::string> results) {
    { store.claim(requests) } -> std::same_as<std::vector<Claim<typename S::Ticket>>>;
    { store.complete(tickets, results) } -> std::same_as<std::vector<TicketState>>;
};

/// | issue(scope, ttl, intent) | a fresh token that nobody can guess, claimable by one id         |
/// |                           | std::invalid_argument for a ttl of 0 or less                     |
/// | claim, request.token set  | issued → held by key.id; the same id again as any other key      |
/// |                           | another id is Refused: spent; an unknown token: unknown          |
/// |                           | ttl is tested at the first claim only: expired                   |
/// |                           | another fingerprint than `intent` is Conflict                    |
/// |                           | token_may_be_new: an unknown token is made by its first claim    |
template <class S>
concept TokenStore = DedupStore<S> &&
    requires(S& store, std::string_view scope, seconds ttl, const Fingerprint& intent) {
    { store.issue(scope, ttl, intent) } -> std::same_as<std::string>;
};

namespace detail {
/// For TokenStores. Throws: std::invalid_argument.
inline void require_ttl(seconds ttl) {
    if (ttl <= seconds{0}) {
        throw std::invalid_argument("idem: ttl is " + std::to_string(ttl.count()) +
                                    " s; a token needs at least 1 s to be redeemed in");
    }
}
} // namespace detail

/// | refund(ticket)            | abandon, and the attempt is not counted                          |
template <class S>
concept RefundingStore = DedupStore<S> && requires(S& store, const typename S::Ticket& ticket) {
    { store.refund(ticket) } -> std::same_as<void>;
    requires noexcept(store.refund(ticket));
};

/// | park(ticket, why)         | claims answer Parked until a human decides                       |
template <class S>
concept ParkingStore = DedupStore<S> &&
    requires(S& store, const typename S::Ticket& ticket, std::string_view why) {
    { store.park(ticket, why) } -> std::same_as<TicketState>;
};

/// A transaction that holds a claim and the handler's own writes.
///
/// | expression                | law                                                              |
/// |---------------------------|------------------------------------------------------------------|
/// | claim(request)            | never blocks on another owner, never leaves the transaction      |
/// |                           | aborted                                                          |
/// |                           | held by an open transaction elsewhere: InProgress                |
/// | complete(request, text)   | the record, with its result, is part of the commit               |
/// | commit()                  | record and writes become visible together, or it throws          |
/// |                           | StoreError is the store's failure; in_doubt only after reading   |
/// |                           | back                                                             |
/// |                           | any other exception is the handler's: its posted statement, a    |
/// |                           | deferred constraint, a transaction it broke                      |
/// | rollback()                | nothing of it happened; gives the connection back. So does the   |
/// |                           | destructor                                                       |
/// | conflicted()              | serialization failure, deadlock, link lost before COMMIT: run it |
/// |                           | all again                                                        |
template <class T>
concept StoreTransaction = std::movable<T> && !std::copyable<T> &&
                           requires(T & tx, const ClaimRequest& request, std::string_view result) {
    { tx.claim(request) } -> std::same_as<Claim<std::monostate>>;
    { tx.complete(request, result) } -> std::same_as<void>;
    { tx.commit() } -> std::same_as<void>;
    { tx.rollback() } -> std::same_as<void>;
    { tx.conflicted() } -> std::same_as<bool>;
    requires noexcept(tx.rollback());
};

/// Where record and effect commit in one step. Not a DedupStore: no lease, no ticket.
///
/// | begin()                      | a transaction of its own, or StoreError                       |
/// | record_failure(request, why) | counts an attempt in a transaction of its own; only after     |
/// |                              | rollback(); never touches a completed record                  |
template <class S>
concept TransactionalStore = requires(S& store, const ClaimRequest& request, std::string_view why) {
    requires StoreTransaction<typename S::Transaction>;
    { store.begin() } -> std::same_as<typename S::Transaction>;
    { store.record_failure(request, why) } -> std::same_as<void>;
    requires noexcept(store.record_failure(request, why));
};

/// | refund_failure(request)      | one attempt that record_failure counted is not counted after  |
/// |                              | all; best effort                                              |
/// For a delivery that was charged in advance and whose attempt turned out to count for nothing.
template <class S>
concept RefundingTransactionalStore = TransactionalStore<S> &&
    requires(S& store, const ClaimRequest& request) {
    { store.refund_failure(request) } -> std::same_as<void>;
    requires noexcept(store.refund_failure(request));
};

/// A transaction that carries several messages.
///
/// | claim(requests)             | locks in key order and reads; writes nothing; the keys differ  |
/// | savepoint()                 | before each handler                                            |
/// | back_to_savepoint()         | undoes that handler's writes and no other's                    |
/// | complete(requests, results) | the succeeded ones, last, in one statement                     |
template <class T>
concept BatchTransaction = StoreTransaction<T> &&
    requires(T& tx, std::span<const ClaimRequest> requests, std::span<const std::string> results) {
    { tx.claim(requests) } -> std::same_as<std::vector<Claim<std::monostate>>>;
    { tx.savepoint() } -> std::same_as<void>;
    { tx.back_to_savepoint() } -> std::same_as<void>;
    { tx.complete(requests, results) } -> std::same_as<void>;
};

template <class S>
concept BatchTransactionalStore =
    TransactionalStore<S> && BatchTransaction<typename S::Transaction>;

/// | peek(request)             | what claim would answer, read without a lock; Claimed: nothing   |
/// |                           | in the way                                                       |
/// Used before the transaction of a delivery that says it was delivered before.
template <class S>
concept PeekingStore = TransactionalStore<S> && requires(S& store, const ClaimRequest& request) {
    { store.peek(request) } -> std::same_as<Claim<std::monostate>>;
};

/// | join(native)              | a transaction that the user has open: commit() releases a        |
/// |                           | savepoint, rollback() returns to it                              |
template <class S, class Native>
concept JoinableStore = TransactionalStore<S> && requires(S& store, Native native) {
    { store.join(native) } -> std::same_as<typename S::Transaction>;
};

} // namespace idem::inline v0

#endif // IDEM_DEDUP_STORE_HPP
