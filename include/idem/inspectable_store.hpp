// SPDX-License-Identifier: MIT
#ifndef IDEM_INSPECTABLE_STORE_HPP
#define IDEM_INSPECTABLE_STORE_HPP

// What operators do with records: look, decide about dead and parked ones, and prune. No strategy
// needs any of it.

#include <idem/error.hpp>
#include <idem/key.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0 {

enum class State : std::uint8_t {
    issued,      ///< a token that nobody has redeemed
    in_progress, ///< under a lease until `lease_until`; without one it waits for its next attempt
    completed,
    dead,   ///< max_attempts used up
    parked, ///< an unknown outcome that a human must decide
};

/// A record as it stood when it was read, without secrets of its owner.
struct Record {
    std::string scope, id;
    State state{};
    Fingerprint fingerprint{};
    unsigned attempts = 0;
    std::uint64_t fence = 0;
    Timestamp changed{}; ///< by the store's clock
    std::optional<Timestamp> lease_until{};
    std::string result{}; ///< as complete() was given it: what stored_result() made
    std::string note{};   ///< why it failed, was given back or parked; who intervened, and why
};

/// Who changes a record by hand, and why. Kept in Record::note. Neither may be empty, and both
/// together hold 900 bytes at most.
struct Intervention {
    std::string_view actor, reason;
};

/// | expression                      | law                                                        |
/// |---------------------------------|------------------------------------------------------------|
/// | find(key)                       | the record, unless its retention is over                   |
/// | list(state, limit)              | at most `limit` records of that state, oldest change first |
/// | revive(key, by)                 | dead or parked: claimable again, with attempts 0. The      |
/// |                                 | fingerprint stays                                          |
/// | force_complete(key, result, by) | dead, parked, or waiting for its next attempt: completed   |
/// |                                 | with `result`, which stored_result() makes, for the        |
/// |                                 | retention that the record had                              |
/// | erase(key, by)                  | as if it had never been claimed: the next claim is the     |
/// |                                 | first, whatever its fingerprint. Result and fingerprint    |
/// |                                 | are gone; key, fence and note stay until retention ends    |
/// |                                 | each of the three: false where there is nothing to do, and |
/// |                                 | where the key is in progress; nothing changed then         |
/// | prune(limit)                    | removes at most `limit` records past their retention;      |
/// |                                 | returns how many. 0: none left, or another instance is at  |
/// |                                 | it                                                         |
/// Throws: StoreError; std::invalid_argument for an Intervention without actor or reason.
template <class S>
concept InspectableStore = requires(S& store,
                                    const Key& key,
                                    State state,
                                    std::size_t limit,
                                    std::string_view result,
                                    const Intervention& by) {
    { store.find(key) } -> std::same_as<std::optional<Record>>;
    { store.list(state, limit) } -> std::same_as<std::vector<Record>>;
    { store.revive(key, by) } -> std::same_as<bool>;
    { store.force_complete(key, result, by) } -> std::same_as<bool>;
    { store.erase(key, by) } -> std::same_as<bool>;
    { store.prune(limit) } -> std::same_as<std::size_t>;
};

namespace detail {

/// "revived by ACTOR: REASON".
/// Throws: std::invalid_argument.
[[nodiscard]] inline std::string note_of(std::string_view deed, const Intervention& by) {
    constexpr std::size_t longest = 900;
    if (by.actor.empty() || by.reason.empty()) {
        throw std::invalid_argument(
            "idem: Intervention::actor and reason must not be empty: they say who changes a "
            "record, and why");
    }
    if (by.actor.size() + by.reason.size() > longest) {
        throw std::invalid_argument("idem: Intervention::actor and reason hold " +
                                    std::to_string(by.actor.size() + by.reason.size()) +
                                    " bytes; the limit is " + std::to_string(longest));
    }
    std::string note(deed);
    return note.append(" by ").append(by.actor).append(": ").append(by.reason);
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_INSPECTABLE_STORE_HPP
