// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_PQ_LEG_HPP
#define IDEM_DETAIL_PQ_LEG_HPP

// What came back from libpq of one round trip.

#include <libpq-fe.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0::detail {

struct PqResultEnd {
    void operator()(PGresult* result) const noexcept { PQclear(result); }
};
using PqResult = std::unique_ptr<PGresult, PqResultEnd>;

[[nodiscard]] inline std::string_view pq_field(const PGresult* result, int code) noexcept {
    const char* text = result == nullptr ? nullptr : PQresultErrorField(result, code);
    return text == nullptr ? std::string_view() : std::string_view(text);
}

/// How a leg ended. `results` has one entry per statement that was answered; the first that failed
/// is the last that counts, the server skips the rest.
struct PqLeg {
    std::vector<PqResult> results{};
    std::optional<std::size_t> failed{}; ///< which statement, where the server said so
    std::string sqlstate{}; ///< of the failure; of a lost link 08006, unless it said why
    std::string message{};
    bool link_lost = false; ///< no answer is due any more: closed, refused to send, or timed out
    bool timed_out = false;
    [[nodiscard]] bool ok() const noexcept { return !failed && !link_lost; }
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_PQ_LEG_HPP
