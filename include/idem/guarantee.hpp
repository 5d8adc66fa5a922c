// SPDX-License-Identifier: MIT
#ifndef IDEM_GUARANTEE_HPP
#define IDEM_GUARANTEE_HPP

// What a (store, strategy, handler) promises, computed at compile time.

namespace idem::inline v0 {

/// Of the effect, while the store keeps its records.
enum class Guarantee { effectively_once, at_least_once, at_most_once };

/// Which duplicates are recognised: deliveries of one stored message only, or also a message that
/// its producer wrote twice. Ordered: the lesser covers less.
enum class Covers { redelivered, produced_twice };

/// What a store's records survive: the process, the machine's crash, or the loss of the machine.
enum class Durability { process, machine, replicated };

} // namespace idem::inline v0

#endif // IDEM_GUARANTEE_HPP
