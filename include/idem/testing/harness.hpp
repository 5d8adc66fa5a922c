// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTING_HARNESS_HPP
#define IDEM_TESTING_HARNESS_HPP

// What the contract suites ask of a harness, and the verbs in which they speak of any store.

#include <idem/dedup_store.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <latch>
#include <optional>
#include <ostream>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::testing {

/// Base of a harness: the differences between stores that the laws allow, each with the usual
/// answer. A harness hides those that differ.
struct Differences {
    /// False: begin() waits for the other transaction, so that "in progress" does not occur.
    static constexpr bool in_progress_occurs = true;
    /// True: let_lease_pass(d) moves a virtual clock by exactly d, and records past their retention
    /// are forgotten at once.
    static constexpr bool exact_expiry = false;
    /// True: the harness has restart(), and records and fences outlive it.
    static constexpr bool survives_restart = false;
    /// False: a second claim of one key in one transaction is answered, not refused.
    static constexpr bool refuses_nested_claim = true;
};

/// A harness whose store is tested by transactions; one without write_effect is tested by leases.
template <class H>
concept TransactionalHarness = TransactionalStore<typename H::Store> &&
    requires(H& harness, typename H::Store::Transaction& transaction, const std::string& id) {
    harness.write_effect(transaction, id);
    { harness.count_effects(id) } -> std::convertible_to<std::size_t>;
};

/// Which alternative a claim holds, in the order of idem::Claim.
enum class Answer { claimed, completed, in_progress, conflict, dead, refused, parked };

inline const char* to_string(Answer answer) noexcept {
    switch (answer) {
    case Answer::claimed:
        return "Claimed";
    case Answer::completed:
        return "Completed";
    case Answer::in_progress:
        return "InProgress";
    case Answer::conflict:
        return "Conflict";
    case Answer::dead:
        return "Dead";
    case Answer::refused:
        return "Refused";
    case Answer::parked:
        return "Parked";
    }
    return "?";
}
inline std::ostream& operator<<(std::ostream& out, Answer answer) {
    return out << to_string(answer);
}

template <class Ticket>
[[nodiscard]] Answer answer_of(const Claim<Ticket>& claim) {
    return static_cast<Answer>(claim.index());
}

/// The alternative that a claim must hold. Throws: std::runtime_error naming the one it holds.
template <class Alternative, class Ticket>
[[nodiscard]] Alternative must_be(Claim<Ticket> claim) {
    if (auto* held = std::get_if<Alternative>(&claim)) {
        return std::move(*held);
    }
    throw std::runtime_error(std::string("the claim answered ") + to_string(answer_of(claim)));
}
template <class Ticket>
[[nodiscard]] Claimed<Ticket> must_claim(Claim<Ticket> claim) {
    return must_be<Claimed<Ticket>>(std::move(claim));
}

/// What one claim saw.
struct Seen {
    Answer answer = Answer::claimed;
    std::string result{};
    unsigned attempt = 0; ///< of Claimed; of Dead its attempts
    std::uint64_t fence = 0;
    bool takeover = false;
};

template <class Ticket>
[[nodiscard]] Seen seen(const Claim<Ticket>& claim) {
    Seen answer{.answer = answer_of(claim)};
    if (const auto* claimed = std::get_if<Claimed<Ticket>>(&claim)) {
        answer.attempt = claimed->attempt;
        answer.fence = claimed->fence;
        answer.takeover = claimed->takeover;
    } else if (const auto* done = std::get_if<Completed>(&claim)) {
        answer.result = done->result;
    } else if (const auto* dead = std::get_if<Dead>(&claim)) {
        answer.attempt = dead->attempts;
    }
    return answer;
}

/// Claims and completes. Throws: std::runtime_error where the key was not free.
template <class H>
void finish(H& harness, const ClaimRequest& request, std::string_view text) {
    if constexpr (TransactionalHarness<H>) {
        auto transaction = harness.store().begin();
        static_cast<void>(must_claim(transaction.claim(request)));
        transaction.complete(request, text);
        transaction.commit();
    } else {
        const auto mine = must_claim(harness.store().claim(request));
        if (harness.store().complete(mine.ticket, text) != TicketState::valid) {
            throw std::runtime_error("complete() by the owner answered outdated");
        }
    }
}

/// Claims, and fails as a handler does. Throws: std::runtime_error where the key was not free.
template <class H>
void fail(H& harness, const ClaimRequest& request) {
    if constexpr (TransactionalHarness<H>) {
        {
            auto transaction = harness.store().begin();
            static_cast<void>(must_claim(transaction.claim(request)));
            transaction.rollback();
        }
        harness.store().record_failure(request, "the test failed it");
    } else {
        const auto mine = must_claim(harness.store().claim(request));
        harness.store().abandon(mine.ticket, "the test failed it");
    }
}

/// Claims, and gives back what it was given. By lease that costs an attempt.
template <class H>
[[nodiscard]] Seen look(H& harness, const ClaimRequest& request) {
    if constexpr (TransactionalHarness<H>) {
        auto transaction = harness.store().begin();
        auto answer = seen(transaction.claim(request));
        transaction.rollback();
        return answer;
    } else {
        const auto claim = harness.store().claim(request);
        using Ticket = typename H::Store::Ticket;
        if (const auto* mine = std::get_if<Claimed<Ticket>>(&claim)) {
            harness.store().abandon(mine->ticket, "the test only looked");
        }
        return seen(claim);
    }
}

/// Results that stores have been seen to change: empty, NULs, what looks like another format,
/// invalid UTF-8, every byte, and one of the default size limit.
[[nodiscard]] inline std::vector<std::string> byte_samples() {
    using namespace std::string_literals;
    std::string every_byte;
    for (int byte = 0; byte < 256; ++byte) {
        every_byte += static_cast<char>(byte);
    }
    std::string large(65'537, '\1');
    for (std::size_t at = 1; at < large.size(); ++at) {
        large[at] = static_cast<char>(at * 31 % 251);
    }
    return {""s,
            "\0"s,
            "\1"s,
            "\1\0"s,
            "\0\0\0"s,
            "0"s,
            " x "s,
            "\\x41"s,
            "NULL"s,
            "{}\r\n"s,
            "\xff\xfe\xc3\x28"s,
            every_byte,
            large};
}

/// A scope of at most 40 bytes that no other test, run or process uses.
[[nodiscard]] inline std::string fresh_scope() {
    static const std::string process = [] {
        std::random_device random;
        return std::to_string((std::uint64_t{random()} << 32) | random());
    }();
    static std::atomic<unsigned> number{0};
    return "contract-" + process + "-" + std::to_string(++number);
}

/// Runs `work(number)` on `count` threads that start together.
/// Throws: what the first of them to fail threw, after all have ended.
template <class Work>
void in_parallel(unsigned count, Work work) {
    std::latch start(count);
    std::vector<std::exception_ptr> errors(count);
    std::vector<std::jthread> threads;
    threads.reserve(count);
    for (unsigned number = 0; number < count; ++number) {
        threads.emplace_back([&, number] {
            start.arrive_and_wait();
            try {
                work(number);
            } catch (...) {
                errors[number] = std::current_exception();
            }
        });
    }
    threads.clear();
    for (const auto& error : errors) {
        if (error) {
            std::rethrow_exception(error);
        }
    }
}

/// The fixture of every suite: a harness and a scope of its own for each test.
template <class Harness>
class ContractTest : public ::testing::Test {
protected:
    /// A lease short enough to wait out, and one that no test outlives.
    static constexpr milliseconds short_lease{100}, long_lease{600'000};

    void SetUp() override {
        if constexpr (requires { Harness::missing(); }) {
            if (const std::string why = Harness::missing(); !why.empty()) {
                GTEST_SKIP() << why;
            }
        }
        harness_.emplace();
    }
    [[nodiscard]] Harness& harness() { return *harness_; }
    [[nodiscard]] auto& store() { return harness_->store(); }
    [[nodiscard]] ClaimRequest request(std::string_view id = "m-1", Fingerprint print = {}) const {
        return {.key = {scope_, id}, .fingerprint = print, .lease = long_lease};
    }
    [[nodiscard]] ClaimRequest short_request(std::string_view id = "m-1") const {
        auto asked = request(id);
        asked.lease = short_lease;
        return asked;
    }
    void let_short_lease_pass() { harness().let_lease_pass(short_lease); }
    [[nodiscard]] const std::string& scope() const { return scope_; }

private:
    std::string scope_ = fresh_scope();
    std::optional<Harness> harness_;
};

} // namespace idem::inline v0::testing

#endif // IDEM_TESTING_HARNESS_HPP
