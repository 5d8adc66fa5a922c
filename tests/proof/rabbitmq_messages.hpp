// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_RABBITMQ_MESSAGES_HPP
#define IDEM_TESTS_PROOF_RABBITMQ_MESSAGES_HPP

// What a producer sends, and what must become of it.

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "proof/seed.hpp"
#include "support/rabbitmq_session.hpp"

namespace idem::proof {

/// The payload is "<id> <manner of its handler>".
struct RabbitMessages {
    std::vector<testing_support::RabbitLetter> letters; ///< in the order they are sent
    std::map<std::string, std::set<std::string>> good;  ///< of each id: one of these takes effect
    std::set<std::string> bad;                          ///< ids: none of these does
    std::set<std::string> nameless;                     ///< payloads of messages without an id
    std::size_t resent = 0;

    /// `count` ids, all good.
    static RabbitMessages plain(std::size_t count) {
        RabbitMessages made;
        for (std::size_t i = 0; i < count; ++i) {
            const auto id = "m-" + std::to_string(i);
            made.letters.push_back({.body = id + " good", .message_id = id});
            made.good[id] = {id + " good"};
        }
        return made;
    }

    /// `count` ids. Of each 500 one is bad and two have a conflict: another payload under the same
    /// id, sent later. Each 100th fails once, each 50th is sent again, up to 3,000 messages later.
    /// 600 in a row are busy at first: more than a worker holds, so that retry queues get some.
    static RabbitMessages mixed(std::size_t count, Seed& seed) {
        RabbitMessages made;
        std::vector<std::pair<std::size_t, testing_support::RabbitLetter>> placed;
        const auto later = [&](std::size_t at) { return at + 1 + seed.below(3'000); };
        for (std::size_t i = 0; i < count; ++i) {
            const auto id = "m-" + std::to_string(i);
            const bool is_bad = i % 500 == 250;
            const bool is_busy = i >= count / 4 && i < count / 4 + 600;
            const auto* const manner = is_bad         ? " bad"
                                       : i % 100 == 7 ? " flaky"
                                       : is_busy      ? " busy"
                                                      : " good";
            placed.push_back({i, {.body = id + manner, .message_id = id}});
            if (is_bad) {
                made.bad.insert(id);
            } else {
                made.good[id].insert(id + manner);
            }
            if (i % 50 == 0 || i % 100 == 7) {
                placed.push_back({later(i), placed.back().second});
                ++made.resent;
            }
            if (i % 250 == 9) {
                placed.push_back({later(i), {.body = id + " other", .message_id = id}});
                made.good[id].insert(id + " other");
            }
            if (i % 4'000 == 3'999) {
                const auto payload = "nameless-" + std::to_string(i) + " good";
                placed.push_back({i, {.body = payload}});
                made.nameless.insert(payload);
            }
        }
        std::stable_sort(placed.begin(), placed.end(), [](const auto& one, const auto& other) {
            return one.first < other.first;
        });
        for (auto& [at, letter] : placed) {
            made.letters.push_back(std::move(letter));
        }
        return made;
    }
};

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_RABBITMQ_MESSAGES_HPP
