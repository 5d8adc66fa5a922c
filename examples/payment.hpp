// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_PAYMENT_HPP
#define EXAMPLES_PAYMENT_HPP

// A payment provider that honours idempotency keys, as the real ones do, and a worker that charges
// by it under a lease.

#include <idem/idem.hpp>

#include <cstdint>
#include <fcntl.h>
#include <functional>
#include <stdexcept>
#include <string>
#include <sys/file.h>
#include <unistd.h>
#include <utility>

struct Checkout {
    std::string order_id;
    std::int64_t cents;
};

/// Keeps its ledger in a file, a line for each charge: "KEY CENTS". A key that it has seen answers
/// with the charge made then, and takes no money.
class PaymentProvider {
public:
    explicit PaymentProvider(std::string ledger) : ledger_(std::move(ledger)) {}

    /// Returns the number of the charge. Throws: std::runtime_error where the ledger is not to be
    /// written.
    std::int64_t charge(const std::string& key, std::int64_t cents) {
        const int file = ::open(ledger_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (file < 0 || ::flock(file, LOCK_EX) != 0) {
            throw std::runtime_error("the provider's ledger " + ledger_ + " cannot be opened");
        }
        std::string text;
        char bytes[4'096];
        for (ssize_t size = 0; (size = ::read(file, bytes, sizeof bytes)) > 0;) {
            text.append(bytes, static_cast<std::size_t>(size));
        }
        std::int64_t number = 0;
        bool known = false;
        for (std::size_t at = 0; at < text.size() && !known; at = text.find('\n', at) + 1) {
            ++number;
            known = text.compare(at, key.size() + 1, key + ' ') == 0;
        }
        if (!known) {
            ++number;
            const auto line = key + ' ' + std::to_string(cents) + '\n';
            known = ::write(file, line.data(), line.size()) == static_cast<ssize_t>(line.size());
        }
        ::close(file);
        if (!known) {
            throw std::runtime_error("the provider's ledger " + ledger_ + " cannot be written");
        }
        before_answer();
        return number;
    }

    /// The money has moved, and nobody here knows it yet.
    std::function<void()> before_answer = [] {};

private:
    std::string ledger_;
};

/// The key that reaches the provider is made of scope and id, so it is the same on every attempt:
/// when a worker dies between the charge and its record, the next one charges by the same key.
/// Provider and consumer outlive the handler.
template <class Consumer>
auto charging(const Consumer& consumer, PaymentProvider& provider) {
    return consumer.wrap(
        "checkout", &Checkout::order_id, [&provider](const Checkout& checkout, idem::Lease& lease) {
            return provider.charge(lease.derived_key("charge"), checkout.cents);
        });
}

#endif // EXAMPLES_PAYMENT_HPP
