// SPDX-License-Identifier: MIT
#ifndef IDEM_STRATEGY_NATURALLY_IDEMPOTENT_HPP
#define IDEM_STRATEGY_NATURALLY_IDEMPOTENT_HPP

// Solution 4, natural idempotency, made sound: no record, and a fence against what is stale.

#include <idem/strategy/strategy.hpp>

#include <cstdint>
#include <optional>

namespace idem::inline v0 {

/// The store of a strategy that keeps no records: `IdempotentConsumer c{idem::no_store, …}`.
inline constinit struct NoStore {
} no_store{};

/// The context of NaturallyIdempotent: the handler says what its own statement came to. Untouched,
/// the message counts as executed.
class RowFence {
public:
    RowFence(std::optional<std::uint64_t> version, const Fingerprint& fingerprint) noexcept
        : version_(version)
        , fingerprint_(fingerprint) {}
    RowFence(const RowFence&) = delete;
    RowFence& operator=(const RowFence&) = delete;

    /// Identity::version, to be compared in the statement itself: `… WHERE version < $n`.
    /// Throws: Unprocessable where the message has none.
    [[nodiscard]] std::uint64_t version() const {
        if (!version_) {
            throw Unprocessable("idem: the message carries no version");
        }
        return *version_;
    }
    /// How many rows the statement changed. 0: a duplicate, unless found() says more.
    void rows(std::uint64_t affected) noexcept { rows_ = affected; }
    /// The version of the row that refused, read after 0 rows. Newer: skipped, a stale message.
    /// Equal: a duplicate, or a conflict where the fingerprints differ. None: the row does not
    /// exist yet, retry (an update that overtook its create). Older: it was not there when the
    /// statement ran, retry.
    void found(std::optional<std::uint64_t> version, Fingerprint fingerprint = {}) noexcept {
        looked_ = true;
        found_version_ = version;
        found_fingerprint_ = fingerprint;
    }
    [[nodiscard]] Verdict verdict() const;

private:
    std::optional<std::uint64_t> version_;
    Fingerprint fingerprint_;
    std::optional<std::uint64_t> rows_{};
    bool looked_ = false;
    std::optional<std::uint64_t> found_version_{};
    Fingerprint found_fingerprint_{};
};

inline Verdict RowFence::verdict() const {
    Verdict verdict;
    if (rows_.value_or(1) > 0) {
        return verdict;
    }
    if (!looked_) {
        verdict.status = Status::skipped;
    } else if (!found_version_ || (version_ && *found_version_ < *version_)) {
        verdict.status = Status::failed;
        verdict.reason = reason::version_unknown;
    } else if (found_version_ == version_ && fingerprint_.conflicts_with(found_fingerprint_)) {
        verdict.status = Status::conflict;
    } else {
        verdict.status = Status::skipped;
    }
    return verdict;
}

/// For handlers that are idempotent as they stand: `SET status = …`, `DELETE`, or an INSERT whose
/// own unique key refuses the second. Without a context the promise is at least once, and a
/// repeated run must come to the same; with a `RowFence&` the handler's own row decides, and the
/// effect happens once. A delta (`x = x - n`) is not naturally idempotent: use DedupTable.
/// Cost: no round trip of its own.
struct NaturallyIdempotent {
    template <class S>
    using Context = RowFence;
    static constexpr Guarantee guarantee(bool takes) noexcept {
        return takes ? Guarantee::effectively_once : Guarantee::at_least_once;
    }

    template <class S>
    Verdict run(S&, const Request& request, const Work<RowFence>& work) const {
        RowFence fence(request.version, request.fingerprint);
        std::exception_ptr error;
        if (!detail::run_handler(work, fence, error)) {
            return detail::failed_verdict(std::move(error), 0);
        }
        return fence.verdict();
    }
};

} // namespace idem::inline v0

#endif // IDEM_STRATEGY_NATURALLY_IDEMPOTENT_HPP
