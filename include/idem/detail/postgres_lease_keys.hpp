// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_LEASE_KEYS_HPP
#define IDEM_DETAIL_POSTGRES_LEASE_KEYS_HPP

// Keys that are claimed together: what was asked, what was read, what is answered.

#include <idem/detail/postgres_ticket.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace idem::inline v0::detail {

/// A key is named by its place among the requests, which outlive this.
class PostgresLeaseKeys {
public:
    using Answer = Claim<PostgresTicket>;
    using Places = std::vector<std::size_t>;

    PostgresLeaseKeys(const PostgresCore& core, std::span<const ClaimRequest> requests)
        : requests_(requests)
        , answers_(requests.size())
        , records_(requests.size())
        , takeover_(requests.size()) {
        for (const auto& request : requests) {
            locks_.push_back(core.lock_of(filed_under(request)));
        }
    }

    [[nodiscard]] const ClaimRequest& asked(std::size_t place) const { return requests_[place]; }
    [[nodiscard]] std::span<const ClaimRequest> requests() const noexcept { return requests_; }
    [[nodiscard]] const std::string& nonce() const noexcept { return nonce_; }
    [[nodiscard]] const std::vector<std::int64_t>& locks() const noexcept { return locks_; }
    [[nodiscard]] PqParameter locks_of(const Places& places) const {
        std::vector<std::int64_t> locks;
        for (const auto place : places) {
            locks.push_back(locks_[place]);
        }
        return number_array(locks);
    }
    [[nodiscard]] const std::optional<PostgresRecord>& record(std::size_t place) const {
        return records_[place];
    }
    [[nodiscard]] auto key_at() const {
        return [this](std::size_t place) { return filed_under(requests_[place]); };
    }
    /// A token that somebody must have issued.
    [[nodiscard]] bool must_exist(std::size_t place) const {
        return !asked(place).token.empty() && !asked(place).token_may_be_new;
    }
    /// In the order of their keys.
    [[nodiscard]] Places unanswered() const {
        Places places;
        for (std::size_t place = 0; place < answers_.size(); ++place) {
            if (!answers_[place]) {
                places.push_back(place);
            }
        }
        return in_key_order(std::move(places), key_at());
    }
    [[nodiscard]] PqStatement read_of(const PostgresCore& core, const Places& places) const {
        std::vector<std::string_view> scopes, ids;
        for (const auto place : places) {
            const auto key = filed_under(requests_[place]);
            scopes.push_back(key.scope);
            ids.push_back(key.id);
        }
        return {core.sql().read, {bytes_array(scopes), bytes_array(ids)}, true};
    }
    void keep_records(const PGresult* rows, const Places& places) {
        for (const auto place : places) {
            records_[place].reset();
        }
        for (int row = 0; row < PQntuples(rows); ++row) {
            PostgresRecord record(PqBinaryRow(rows, row));
            const auto place = places[record.place];
            records_[place] = std::move(record);
        }
    }

    void win(std::size_t place, std::uint64_t fence, unsigned attempt) {
        const auto& asked = requests_[place];
        const auto key = filed_under(asked);
        answers_[place] = Claimed<PostgresTicket>{.ticket = {.scope = std::string(key.scope),
                                                             .id = std::string(key.id),
                                                             .nonce = nonce_,
                                                             .fence = fence,
                                                             .retention = asked.retention,
                                                             .max_attempts = asked.max_attempts},
                                                  .attempt = attempt,
                                                  .fence = fence,
                                                  .takeover = takeover_[place]};
    }
    void set_takeover(std::size_t place, bool takeover) { takeover_[place] = takeover; }
    void refuse(std::size_t place, Answer said) { answers_[place] = std::move(said); }
    /// What is said of a key that is not won.
    void answer(std::size_t place, Claim<std::monostate>&& said) {
        std::visit(
            [&](auto&& alternative) {
                using Said = std::remove_cvref_t<decltype(alternative)>;
                if constexpr (!std::is_same_v<Said, Claimed<std::monostate>>) {
                    answers_[place] = std::forward<decltype(alternative)>(alternative);
                }
            },
            std::move(said));
    }

    [[nodiscard]] std::vector<Answer> answers() {
        std::vector<Answer> all;
        all.reserve(answers_.size());
        for (auto& answer : answers_) {
            all.push_back(std::move(*answer));
        }
        return all;
    }
    [[nodiscard]] std::vector<PostgresTicket> won() const {
        std::vector<PostgresTicket> tickets;
        for (const auto& answer : answers_) {
            if (const auto* claimed = answer ? std::get_if<0>(&*answer) : nullptr) {
                tickets.push_back(claimed->ticket);
            }
        }
        return tickets;
    }

private:
    std::span<const ClaimRequest> requests_;
    std::string nonce_ = draw_nonce();
    std::vector<std::int64_t> locks_{};
    std::vector<std::optional<Answer>> answers_;
    std::vector<std::optional<PostgresRecord>> records_;
    std::vector<bool> takeover_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_LEASE_KEYS_HPP
