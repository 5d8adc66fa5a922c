// SPDX-License-Identifier: MIT
#ifndef IDEM_OUTCOME_HPP
#define IDEM_OUTCOME_HPP

// What one call came to.

#include <idem/codec.hpp>
#include <idem/error.hpp>
#include <idem/settlement.hpp>

#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace idem::inline v0 {

/// What a message came to. The rows are grouped by settlement.
enum class Status {
    // ack
    executed, ///< the handler ran, and its record stands
    replayed, ///< done earlier; the stored result is given again
    skipped,  ///< done earlier without a kept result, or overtaken by something newer
    // retry
    failed, ///< the handler threw or returned a failure value, or the store failed: see error()
    in_progress, ///< somebody else is at it
    // dead-letter
    conflict, ///< same key, other payload
    dead,     ///< max_attempts used up
    parked,   ///< an unknown outcome that a human must decide
    refused,  ///< token unknown, spent or expired
    invalid,  ///< no id, undecodable, too old
};

[[nodiscard]] constexpr std::string_view to_string(Status status) noexcept {
    switch (status) {
    case Status::executed:
        return "executed";
    case Status::replayed:
        return "replayed";
    case Status::skipped:
        return "skipped";
    case Status::failed:
        return "failed";
    case Status::in_progress:
        return "in progress";
    case Status::conflict:
        return "conflict";
    case Status::dead:
        return "dead";
    case Status::parked:
        return "parked";
    case Status::refused:
        return "refused";
    case Status::invalid:
        return "invalid";
    }
    return "?";
}

/// An outcome without its type: what strategies answer.
struct Verdict {
    Status status = Status::executed;
    std::string_view reason{}; ///< one of idem::reason, where the status alone does not say it
    std::string bytes{};       ///< of `replayed`: the stored result, as stored_result() made it
    milliseconds retry_after{0};
    unsigned attempts = 0;
    std::exception_ptr error{};        ///< of `failed`: what the handler threw, or the store
    std::optional<Fault> fault{};      ///< where the store, not the handler, failed
    bool takeover = false;             ///< the key's earlier owner ran out of its lease
    std::optional<milliseconds> age{}; ///< of the completed record: evidence for the retention
    std::string detail{};

    /// Total over Status: the table of semantics.md §7.
    [[nodiscard]] Settlement settlement() const;
};

inline Settlement Verdict::settlement() const {
    auto with = [this](Action action, std::string_view otherwise) -> Settlement {
        return {action, milliseconds{0}, reason.empty() ? otherwise : reason, detail, attempts};
    };
    auto retry = [&](std::string_view otherwise) {
        auto answer = with(Action::retry, otherwise);
        answer.delay = retry_after > milliseconds{0} ? retry_after : detail::first_retry;
        return answer;
    };
    switch (status) {
    case Status::executed:
    case Status::replayed:
    case Status::skipped:
        return with(Action::ack, {});
    case Status::in_progress:
        return retry(reason::in_progress);
    case Status::conflict:
        return with(Action::dead_letter, reason::conflict);
    case Status::dead:
        return with(Action::dead_letter, reason::dead);
    case Status::parked:
        return with(Action::dead_letter, reason::parked);
    case Status::refused:
        return with(Action::dead_letter, reason::token_unknown);
    case Status::invalid:
        return with(Action::dead_letter, reason::invalid_key);
    case Status::failed:
        break;
    }
    if (!error) {
        return retry(reason::handler_failed);
    }
    auto answer = fault ? settlement_of(error) : detail::settlement_of_handler(error);
    answer.attempts = attempts;
    return answer;
}

namespace detail {
inline constexpr char omitted_mark = '\0', value_mark = '\1';
inline constexpr std::string_view omitted_text{&omitted_mark, 1};
} // namespace detail

/// The stored form of a result, so that void, a value (also an empty one) and an omitted result are
/// told apart: void is "", a value \1 and its Codec's bytes. Stores and strategies pass it on
/// unread.
[[nodiscard]] inline std::string stored_result(std::string_view encoded) {
    std::string bytes(1, detail::value_mark);
    bytes += encoded;
    return bytes;
}
/// The stored form of a result that is not kept: too large, or its Codec threw. A duplicate of it
/// is `skipped`.
[[nodiscard]] inline std::string omitted_result() {
    return std::string(detail::omitted_text);
}
[[nodiscard]] inline bool is_omitted(std::string_view stored) noexcept {
    return stored.size() == 1 && stored.front() == detail::omitted_mark;
}

/// What one call came to, with the handler's result where there is one: its own for `executed`, the
/// stored one for `replayed`. T may be void.
template <class T>
class [[nodiscard]] Outcome {
    using Held = std::conditional_t<std::is_void_v<T>, std::true_type, T>;

public:
    using value_type = T;

    explicit Outcome(Verdict verdict, std::optional<Held> value = {})
        : verdict_(std::move(verdict))
        , value_(std::move(value)) {}
    /// Made in place: the verdict is what `run()` returns, and the value what `value_of(verdict)`
    /// then does.
    template <class Run, class ValueOf>
    Outcome(std::in_place_t, const Run& run, const ValueOf& value_of)
        : verdict_(run())
        , value_(value_of(std::as_const(verdict_))) {}

    [[nodiscard]] Status status() const noexcept { return verdict_.status; }
    /// What to tell the broker. Total: every outcome has one.
    [[nodiscard]] Settlement settlement() const { return verdict_.settlement(); }
    [[nodiscard]] milliseconds retry_after() const { return settlement().delay; }
    [[nodiscard]] unsigned attempts() const noexcept { return verdict_.attempts; }
    [[nodiscard]] std::exception_ptr error() const noexcept { return verdict_.error; }
    [[nodiscard]] bool has_value() const noexcept { return value_.has_value(); }
    [[nodiscard]] const Verdict& verdict() const noexcept { return verdict_; }

    /// Throws: error() again where there is one, else ResultUnavailable.
    std::add_lvalue_reference_t<const T> value() const& {
        require_value();
        if constexpr (!std::is_void_v<T>) {
            return *value_;
        }
    }
    T value() && {
        require_value();
        if constexpr (!std::is_void_v<T>) {
            return std::move(*value_);
        }
    }

private:
    void require_value() const {
        if (value_) {
            return;
        }
        if (verdict_.error) {
            std::rethrow_exception(verdict_.error);
        }
        throw ResultUnavailable("idem: no result, the message is " +
                                std::string(to_string(verdict_.status)));
    }
    Verdict verdict_;
    std::optional<Held> value_;
};

/// What a call inside the user's own transaction came to. It has no settlement before the user's
/// own COMMIT, so that nothing is acked too early (semantics.md 1.6).
template <class T>
class [[nodiscard]] Uncommitted {
public:
    explicit Uncommitted(Outcome<T> outcome) : outcome_(std::move(outcome)) {}

    [[nodiscard]] Status status() const noexcept { return outcome_.status(); }
    [[nodiscard]] bool has_value() const noexcept { return outcome_.has_value(); }
    [[nodiscard]] std::exception_ptr error() const noexcept { return outcome_.error(); }
    std::add_lvalue_reference_t<const T> value() const& { return outcome_.value(); }
    /// To be called once COMMIT answered COMMIT.
    Outcome<T> committed() && { return std::move(outcome_); }
    /// The transaction did not commit: nothing happened, retry.
    Outcome<T> rolled_back() && {
        Verdict verdict;
        verdict.status = Status::failed;
        verdict.error = outcome_.error();
        verdict.detail = "the user's transaction was rolled back";
        return Outcome<T>(std::move(verdict));
    }

private:
    Outcome<T> outcome_;
};

} // namespace idem::inline v0

#endif // IDEM_OUTCOME_HPP
