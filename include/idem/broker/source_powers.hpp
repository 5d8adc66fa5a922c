// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_SOURCE_POWERS_HPP
#define IDEM_BROKER_SOURCE_POWERS_HPP

// What a source may offer beyond the concept Source. idem::run uses what is there; a source without
// any of it is whole.

#include <idem/outcome.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace idem::inline v0 {

/// How long a delivery stays ours. Renewable: from its receipt and anew from each extend().
/// Otherwise (AMQP 0-9-1) from its receipt, once; a safety margin is already taken off.
struct DeliveryDeadline {
    milliseconds length{30'000};
    bool renewable = true;
};

/// | receive(time, n)    | as receive(time), at most n deliveries; 0: serves the connection (a    |
/// |                     | client that must be polled) and takes none                             |
template <class S>
concept BoundedSource = requires(S& source, milliseconds time, std::size_t at_most) {
    { source.receive(time, at_most) } -> std::same_as<std::vector<typename S::Delivery>>;
};

/// | deadline()          | how long a delivery stays ours; without it: 30 s, renewable           |
template <class S>
concept DeadlinedSource = requires(const S& source) {
    { source.deadline() } -> std::same_as<DeliveryDeadline>;
};

/// | lane(delivery)      | what must stay in order: of one lane, one is handled at a time, or one |
/// |                     | batch, in the order of receipt, and a held one holds all behind it.    |
/// |                     | Never changes for a delivery                                           |
template <class S>
concept LanedSource = requires(const S& source, const typename S::Delivery& delivery) {
    { source.lane(delivery) } -> std::same_as<std::uint64_t>;
};

/// | pause(lane)         | gives no more of this lane: one of it is held                         |
/// | resume(lane)        | gives it again                                                        |
template <class S>
concept PausableSource = LanedSource<S> && requires(S& source, std::uint64_t lane) {
    source.pause(lane);
    source.resume(lane);
};

/// | most_held()         | how many may be held here until their retry is due: where held ones    |
/// |                     | take the place of new ones (a prefetch)                                |
template <class S>
concept HoldBoundSource = requires(const S& source) {
    { source.most_held() } -> std::same_as<std::size_t>;
};

/// | acknowledge(those)  | settle(delivery, ack) of each, in one round trip; the answers in order |
template <class S>
concept BulkAckSource = requires(S& source, std::span<typename S::Delivery* const> deliveries) {
    { source.acknowledge(deliveries) } -> std::same_as<std::vector<Settled>>;
};

/// | delivery.defect()   | why no handler can take it (a payload that is missing, an entry that   |
/// |                     | was trimmed): its settlement. None: it is whole                        |
template <class D>
concept InspectedDelivery = requires(const D& delivery) {
    { delivery.defect() } -> std::same_as<std::optional<Settlement>>;
};

} // namespace idem::inline v0

#endif // IDEM_BROKER_SOURCE_POWERS_HPP
