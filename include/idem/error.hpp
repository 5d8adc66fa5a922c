// SPDX-License-Identifier: MIT
#ifndef IDEM_ERROR_HPP
#define IDEM_ERROR_HPP

// What a store's failure says, and what a handler may throw to steer its own settlement.

#include <chrono>
#include <exception>
#include <stdexcept>
#include <string>

namespace idem::inline v0 {

using std::chrono::milliseconds, std::chrono::seconds;
using Timestamp = std::chrono::sys_time<milliseconds>;

/// What the caller knows after a store failed.
enum class Fault {
    unavailable, ///< nothing happened
    in_doubt,    ///< the link broke while the answer was due: it may have happened
    lease_lost,  ///< the lease ended before the result was recorded: the effect may run again
    rejected,    ///< a human must change something: schema, credentials, memory, a foreign record
};

/// A store's failure, the only exception a store throws for one. The handler did not run where
/// fault() is `unavailable`.
class StoreError : public std::runtime_error {
public:
    StoreError(Fault fault, const std::string& what) : std::runtime_error(what), fault_(fault) {}
    [[nodiscard]] Fault fault() const noexcept { return fault_; }

private:
    Fault fault_;
};

/// Thrown by a handler, a decoder or a key function: settle as retry after `delay`, charge no
/// attempt.
class RetryLater : public std::exception {
public:
    explicit RetryLater(milliseconds delay) : delay_(delay) {}
    [[nodiscard]] milliseconds delay() const noexcept { return delay_; }
    [[nodiscard]] const char* what() const noexcept override { return "idem: retry later"; }

private:
    milliseconds delay_;
};

/// Thrown by a handler, a decoder or a key function: no rerun will help, dead-letter it now.
class Unprocessable : public std::runtime_error {
public:
    using runtime_error::runtime_error;
};

/// Thrown by Outcome::value() where there is none: the message was handled, its result is not kept
/// or no longer decodes.
class ResultUnavailable : public std::logic_error {
public:
    using logic_error::logic_error;
};

/// Thrown by a handler under a lease: the effect certainly did not happen, so that the key can be
/// given back whatever the takeover policy.
class NotDone : public std::runtime_error {
public:
    using runtime_error::runtime_error;
};

} // namespace idem::inline v0

#endif // IDEM_ERROR_HPP
