// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_BROKER_SETTLEMENT_ROWS_HPP
#define IDEM_TESTS_BROKER_SETTLEMENT_ROWS_HPP

// The rows of the settlement table (semantics.md 7), and a handler that answers with one.

#include <idem/outcome.hpp>

#include <chrono>
#include <exception>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace idem::broker_tests {

using namespace std::chrono_literals;

struct Answering {
    Verdict verdict;
    std::stop_source* stop;
    template <class Delivery>
    [[nodiscard]] Outcome<void> handle(const Delivery&, const std::stop_token&) const noexcept {
        if (stop != nullptr) {
            stop->request_stop(); // and finish this one
        }
        return Outcome<void>(verdict);
    }
};

struct Row {
    std::string name;
    Verdict verdict;
    Action action;
    std::string_view reason{};
};

inline Verdict of(Status status) {
    Verdict verdict;
    verdict.status = status;
    return verdict;
}
inline Verdict thrown(const std::exception_ptr& error, std::optional<Fault> fault = {}) {
    auto verdict = of(Status::failed);
    verdict.error = error;
    verdict.fault = fault;
    return verdict;
}
inline Verdict store(Fault fault) {
    return thrown(std::make_exception_ptr(StoreError(fault, "the store")), fault);
}

inline std::vector<Row> rows() {
    return {
        {"executed", of(Status::executed), Action::ack},
        {"replayed", of(Status::replayed), Action::ack},
        {"skipped", of(Status::skipped), Action::ack},
        {"in_progress", of(Status::in_progress), Action::retry},
        {"failed", thrown(std::make_exception_ptr(std::runtime_error("boom"))), Action::retry},
        {"failure_value", of(Status::failed), Action::retry},
        {"retry_later", thrown(std::make_exception_ptr(RetryLater(1h))), Action::retry},
        {"unavailable", store(Fault::unavailable), Action::retry},
        {"in_doubt", store(Fault::in_doubt), Action::retry},
        {"lease_lost", store(Fault::lease_lost), Action::retry},
        {"conflict", of(Status::conflict), Action::dead_letter, reason::conflict},
        {"dead", of(Status::dead), Action::dead_letter, reason::dead},
        {"parked", of(Status::parked), Action::dead_letter, reason::parked},
        {"refused", of(Status::refused), Action::dead_letter, reason::token_unknown},
        {"invalid", of(Status::invalid), Action::dead_letter, reason::invalid_key},
        {"unprocessable",
         thrown(std::make_exception_ptr(Unprocessable("no"))),
         Action::dead_letter,
         reason::unprocessable},
        {"rejected", store(Fault::rejected), Action::stop},
    };
}

} // namespace idem::broker_tests

#endif // IDEM_TESTS_BROKER_SETTLEMENT_ROWS_HPP
