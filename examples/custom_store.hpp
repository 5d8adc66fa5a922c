// SPDX-License-Identifier: MIT
#ifndef IDEM_EXAMPLES_CUSTOM_STORE_HPP
#define IDEM_EXAMPLES_CUSTOM_STORE_HPP

// The minimal model of idem::DedupStore: a map behind a mutex. It forgets nothing, so that memory
// grows with every key; idem::MemoryStore does not. tests/unit/custom_store.test.cpp runs the
// contract over it, as you would over a store of your own.

#include <idem/dedup_store.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

class MapStore {
public:
    static constexpr auto durability = idem::Durability::process;
    struct Ticket {
        std::string scope, id;
        std::uint64_t fence = 0; // of this claim alone: the proof of ownership
    };

    idem::Claim<Ticket> claim(const idem::ClaimRequest& request) {
        idem::require_valid(request.key);
        std::string scope(request.key.scope), id(request.key.id);
        const std::scoped_lock lock(mutex_);
        auto& record = records_[{scope, id}];
        const auto now = Clock::now();
        if (record.state == State::held && now < record.until) {
            return idem::InProgress{std::chrono::ceil<idem::milliseconds>(record.until - now)};
        }
        if (record.fingerprint.conflicts_with(request.fingerprint)) {
            return idem::Conflict{};
        }
        if (record.state == State::done) {
            return idem::Completed{record.result};
        }
        if (request.max_attempts != 0 && record.attempts >= request.max_attempts) {
            return idem::Dead{record.attempts};
        }
        const bool takeover = std::exchange(record.state, State::held) == State::held;
        record.until = now + request.lease;
        record.fence = ++fence_;
        if (record.fingerprint.algorithm == 0) {
            record.fingerprint = request.fingerprint;
        }
        return idem::Claimed<Ticket>{{std::move(scope), std::move(id), record.fence},
                                     ++record.attempts,
                                     record.fence,
                                     takeover};
    }

    idem::TicketState complete(const Ticket& ticket, std::string_view result) {
        const std::scoped_lock lock(mutex_);
        auto& record = records_[{ticket.scope, ticket.id}];
        if (record.fence != ticket.fence || record.state == State::free) {
            return idem::TicketState::outdated;
        }
        if (std::exchange(record.state, State::done) == State::held) {
            record.result = result;
        }
        return idem::TicketState::valid;
    }

    void abandon(const Ticket& ticket, std::string_view) noexcept {
        const std::scoped_lock lock(mutex_);
        const auto found = records_.find({ticket.scope, ticket.id});
        if (found != records_.end() && found->second.fence == ticket.fence &&
            found->second.state == State::held) {
            found->second.state = State::free;
        }
    }

private:
    using Clock = std::chrono::steady_clock;
    enum class State { free, held, done };
    struct Record {
        State state = State::free;
        Clock::time_point until{};
        idem::Fingerprint fingerprint{};
        unsigned attempts = 0;
        std::uint64_t fence = 0;
        std::string result{};
    };
    std::mutex mutex_;
    std::map<std::pair<std::string, std::string>, Record> records_;
    std::uint64_t fence_ = 0;
};

static_assert(idem::DedupStore<MapStore>);

#endif // IDEM_EXAMPLES_CUSTOM_STORE_HPP
