// SPDX-License-Identifier: MIT
#ifndef IDEM_OBSERVER_HPP
#define IDEM_OBSERVER_HPP

// Where counts, logs and traces hook in.

#include <idem/key.hpp>
#include <idem/outcome.hpp>

#include <chrono>
#include <optional>

namespace idem::inline v0 {

/// One call of a wrapped handler. Views are good during on() alone.
struct Event {
    Key key;
    Status status = Status::executed;
    bool threw = false; ///< the handler, not the store
    std::chrono::nanoseconds took{0};
    std::optional<Fault> fault{}; ///< where the store failed
    unsigned attempts = 0;
    bool takeover = false;
    std::optional<milliseconds> age{}; ///< of the record that answered a duplicate
    seconds retention{0};              ///< age near to it: the retention is too short
    bool result_omitted = false;       ///< too large, or its Codec threw: a duplicate is skipped
};

/// Told of every call and every settlement. Borrowed by the options that name it.
/// Concurrency: called on the thread of the call, from as many threads as there are; it must not
/// block.
class Observer {
public:
    virtual void on(const Event&) noexcept = 0;
    virtual void settled(const Settlement&, Settled) noexcept {}
    /// The broker could not be asked; run() asks again after a back-off.
    virtual void source_failed(const StoreError&) noexcept {}

protected:
    ~Observer() = default;
};

} // namespace idem::inline v0

#endif // IDEM_OBSERVER_HPP
