// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_BROKER_TRANSACTION_HPP
#define IDEM_STRATEGY_BROKER_TRANSACTION_HPP

// Solution 5, the broker's transaction, made sound: consume, transform, produce, with the consumed
// offsets inside.

#include <idem/strategy/sink_batch.hpp>
#include <idem/strategy/transactional_sink.hpp>

#include <span>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// Effectively once for what the handler produces through the transaction it is given, as seen by
/// those who read committed messages only, and for nothing else it does: an effect in a database
/// belongs to DedupTable or OffsetFence. In place of a store it takes a TransactionalSink made from
/// the source of the messages. The handler takes the message and a `Sink::Transaction&`, and learns
/// nothing of the commit: no verdict exists before it.
///
/// A batch is one transaction. A failure aborts it; once more as a whole, without the message whose
/// handler failed and what stands behind that in its partition; then one by one. A handler that
/// failed is not started again in the same call. Behind a message that is not done nothing of its
/// partition is committed: it is answered `in_progress`.
///
/// max_attempts counts where the sink does, in its memory: a message that kills the process is not
/// counted.
/// Cost: what begin and commit of the sink cost, so use batches.
struct BrokerTransaction {
    template <class S>
    using Context = typename S::Transaction;
    static constexpr Guarantee guarantee(bool takes) noexcept {
        return takes ? Guarantee::effectively_once : Guarantee::at_least_once;
    }
    template <class S>
    struct Requires {
        static_assert(TransactionalSink<S>,
                      "idem::BrokerTransaction needs a TransactionalSink: begin() -> Transaction "
                      "with claim, commit, abort");
    };

    /// Throws: StoreError.
    template <TransactionalSink S>
    Verdict run(S& sink, const Request& request, const Work<typename S::Transaction>& work) const {
        detail::SinkBatch<S> single(sink, {&request, 1}, {&work, 1});
        return std::move(single.run()[0]);
    }
    /// Throws: StoreError, where none of them is committed.
    template <TransactionalSink S>
    std::vector<Verdict> run(S& sink,
                             std::span<const Request> requests,
                             std::span<const Work<typename S::Transaction>> works) const {
        return detail::SinkBatch<S>(sink, requests, works).run();
    }
};

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_BROKER_TRANSACTION_HPP
