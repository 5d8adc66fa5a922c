// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_SOURCE_HPP
#define IDEM_BROKER_SOURCE_HPP

// The consumer loop: deliveries from a source, through a handler, settled.

#include <idem/broker/consumer_loop.hpp>
#include <idem/broker/decoding.hpp>
#include <idem/broker/delivery.hpp>
#include <idem/broker/source_powers.hpp>
#include <idem/observer.hpp>
#include <idem/outcome.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// Where deliveries come from, and settlements go to.
///
/// | expression             | law                                                                 |
/// |------------------------|---------------------------------------------------------------------|
/// | receive(time)          | waits for deliveries, at most `time`; 0: asks, and does not wait    |
/// |                        | what was received and neither settled nor lost comes again, to this |
/// |                        | consumer or another                                                 |
/// | settle(delivery, how)  | carries out ack, retry or dead_letter, by the assignment that gave  |
/// |                        | the delivery                                                        |
/// |                        | yes: the broker has it. A dead letter is confirmed before its       |
/// |                        | source is acked                                                     |
/// |                        | lost: the delivery is no longer ours, and nothing was done          |
/// |                        | in_doubt: the link broke while the answer was due                   |
/// |                        | retry: the broker gives it again, after how.delay where it can      |
/// | extend(delivery, time) | true: it stays ours for `time` more. False: it is no longer ours    |
///
/// Each may throw StoreError: unavailable (nothing happened, ask again) or rejected (a human must
/// act). The optional powers are in broker/source_powers.hpp.
/// Concurrency: one thread. What handlers read of a delivery never changes meanwhile.
template <class S>
concept Source = requires(S& source,
                          milliseconds time,
                          typename S::Delivery& delivery,
                          const Settlement& settlement) {
    requires std::movable<typename S::Delivery>;
    { source.receive(time) } -> std::same_as<std::vector<typename S::Delivery>>;
    { source.settle(delivery, settlement) } -> std::same_as<Settled>;
    { source.extend(delivery, time) } -> std::same_as<bool>;
};

/// A source with lanes that keep their order: Kafka's partitions, FIFO groups.
template <class S>
concept OrderedSource = Source<S> && LanedSource<S>;

/// What run() calls: a wrapped handler of deliveries, decoding(…), or a class of your own. The
/// calls come from several threads where RunOptions::concurrency says so.
template <class H, class S>
concept DeliveryHandler = requires(const H& handler,
                                   const typename S::Delivery& delivery,
                                   std::stop_token stop) {
    { handler.handle(delivery, stop).settlement() } -> std::same_as<Settlement>;
};

/// One outcome per delivery, in order. It may throw StoreError, which is then the outcome of each.
/// Of a lane several may be in a batch, in order; of those that come to retry the first is held and
/// the others wait behind it, so a handler that keeps order starts none behind a failed one.
template <class H, class S>
concept BatchDeliveryHandler = DeliveryHandler<H, S> &&
    requires(const H& handler,
             std::span<const typename S::Delivery> deliveries,
             std::stop_token stop) {
    { handler.batch(deliveries, stop)[0].settlement() } -> std::same_as<Settlement>;
};

struct RunOptions {
    std::size_t concurrency = 1;  ///< handlers at a time, each on a thread of its own
    std::size_t batch = 1;        ///< above 1: up to so many deliveries per call of batch()
    milliseconds poll{100};       ///< the longest wait for deliveries, so for the stop token too
    std::size_t hold = 64;        ///< kept here until their retry is due, at most; not of lanes
    milliseconds grace{30'000};   ///< for handlers at work when the stop comes
    Observer* observer = nullptr; ///< borrowed
};

namespace detail {

inline void require_run_options(const RunOptions& options, bool handler_batches) {
    if (options.concurrency == 0) {
        throw std::invalid_argument("idem: RunOptions.concurrency is 0; at least 1 is needed");
    }
    if (options.batch == 0) {
        throw std::invalid_argument("idem: RunOptions.batch is 0; at least 1 is needed");
    }
    if (options.batch > 1 && !handler_batches) {
        throw std::invalid_argument("idem: RunOptions.batch is " + std::to_string(options.batch) +
                                    ", but the handler has no batch(deliveries, stop); a wrapped "
                                    "one has where its store and strategy run batches");
    }
    if (options.poll < milliseconds{1}) {
        throw std::invalid_argument("idem: RunOptions.poll must be at least 1 ms");
    }
}

} // namespace detail

/// Takes deliveries, has them handled, and settles each at most once, until `stop` is requested.
///
/// A retry stays here (semantics.md 7.2): it is held, extended, and handled again when it is due,
/// after the greatest of what the settlement asks (clamped to 100 ms … 30 s) and 200 ms doubled
/// with each retry in a row up to 30 s, and up to 20 % more; RetryLater's own delay is exact. Past
/// `hold` it is settled as retry. In a lane nothing starts behind one that is held, nor behind a dead
/// letter that is not written yet. Every delivery here is extended at a third of the source's
/// deadline; one that is lost has its handler's stop requested and is never settled. While the
/// store is unavailable nothing new is taken or started, but one delivery at growing intervals up
/// to 5 s. A source that is unavailable is asked again likewise; Observer::source_failed is told.
/// Settlements that are in doubt are not repeated: the delivery comes again, and the store answers.
///
/// It takes ahead what was finished during the last `poll`, at least concurrency × batch and at
/// most 1024 deliveries; a source without receive(time, n) gives as many as it likes at a time.
///
/// Stop: no further handler starts, what did not start is settled as retry, and what is at work may
/// finish, and is settled, within `grace`. After that the stop tokens of the handlers are
/// requested; run() still waits for them, because a thread cannot be ended from outside.
///
/// Throws: the StoreError `rejected` of a store or of the source, after what is at work has
/// finished in the same way; its own delivery is not settled, and may come again only from a source
/// that is made anew: this one is not to be used any more. std::invalid_argument for options that
/// cannot be.
/// Concurrency: calls the source and Observer::settled from the calling thread only.
template <Source S, DeliveryHandler<S> Handler>
void run(S& source, const Handler& handler, std::stop_token stop, RunOptions options = {}) {
    detail::require_run_options(options, BatchDeliveryHandler<Handler, S>);
    detail::ConsumerLoop<S, Handler, RunOptions>(source, handler, std::move(stop), options).run();
}

} // namespace idem::inline v0

#endif // IDEM_BROKER_SOURCE_HPP
