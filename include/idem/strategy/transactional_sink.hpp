// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_TRANSACTIONAL_SINK_HPP
#define IDEM_STRATEGY_TRANSACTIONAL_SINK_HPP

// What BrokerTransaction asks of a broker: outputs and consumed offsets in one transaction.

#include <idem/strategy/strategy.hpp>

#include <concepts>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

namespace idem::inline v0 {

/// Where what handlers produce, and how far their input is consumed, become visible in one step.
/// Made from the source of that input: positions and epochs of the requests are the source's.
///
/// | expression           | law                                                                   |
/// |----------------------|-----------------------------------------------------------------------|
/// | begin()              | an open transaction, or StoreError: then nothing has happened         |
/// | tx.claim(requests)   | one answer per request, in order. Plain: Claimed, with the attempt    |
/// |                      | with a log of ids: Completed for those it has; of two of one key in   |
/// |                      | one call the later is InProgress                                      |
/// |                      | committed already by a transaction that was in doubt: Completed       |
/// |                      | taken away since it was received: InProgress                          |
/// |                      | max_attempts used up, where failures are counted: Dead                |
/// | tx.commit(requests)  | outputs, ids, and one past each Request::position become visible      |
/// |                      | together, under the metadata of its epoch, or it throws and nothing   |
/// |                      | of them does                                                          |
/// |                      | StoreError unavailable: aborted; lease_lost: aborted, or never sent,  |
/// |                      | as a partition was taken away; in_doubt: only after reading back;     |
/// |                      | rejected: a human must act                                            |
/// |                      | any other exception is the handler's: an output that the broker       |
/// |                      | refused for what it is                                                |
/// | tx.abort()           | nothing of it happened. So does the destructor. After commit(), also  |
/// |                      | one that threw, it does nothing                                       |
///
/// A sink without a log of ids says `static constexpr Covers covers = Covers::redelivered`.
/// Concurrency: begin() from any number of threads; a transaction belongs to one.
template <class S>
concept TransactionalSink = requires(S& sink,
                                     typename S::Transaction& tx,
                                     std::span<const Request> requests) {
    { sink.begin() } -> std::same_as<typename S::Transaction>;
    { tx.claim(requests) } -> std::same_as<std::vector<Claim<std::monostate>>>;
    { tx.commit(requests) } -> std::same_as<void>;
    { tx.abort() } -> std::same_as<void>;
    requires noexcept(tx.abort());
};

/// | record_failure(request, why) | counts a failed attempt of its position; only after abort()   |
/// Without it nothing is ever Dead.
template <class S>
concept FailureCountingSink = TransactionalSink<S> &&
    requires(S& sink, const Request& request, std::string_view why) {
    { sink.record_failure(request, why) } -> std::same_as<void>;
    requires noexcept(sink.record_failure(request, why));
};

/// | conflicted()                 | the transaction failed, not the handler: run it again         |
/// Asked where a handler failed; without it the handler's failure is always its own.
template <class T>
concept ConflictingTransaction = requires(const T& tx) {
    { tx.conflicted() } -> std::same_as<bool>;
};

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_TRANSACTIONAL_SINK_HPP
