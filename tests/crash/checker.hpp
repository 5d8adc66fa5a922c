// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_CRASH_CHECKER_HPP
#define IDEM_TESTS_CRASH_CHECKER_HPP

// The one judge of every crash test: what was sent, against what the database and the broker show.

#include <idem/settlement.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace idem::crash_test {

/// A message as it is sent: the payload is cents, and how the handler is to fare. `dead_reason`: of
/// one that no handler can finish, so that it must become a dead letter.
struct Entry {
    std::string id, payload, dead_reason{};
};

struct Effect {
    std::string id;
    long cents = 0;
};

struct DeadLetter {
    std::string id, payload, reason;
    bool operator==(const DeadLetter&) const = default;
};

/// What can be seen from outside. Effect and record come from the database, the rest from the
/// broker.
struct Evidence {
    std::vector<Effect> effects{};
    long sum = 0; ///< of the cents, by the database
    std::set<std::string> recorded{};
    std::vector<DeadLetter> dead{};
    std::vector<std::string> acked{}; ///< ids of the entries that are settled, and no dead letters
    std::size_t unsettled = 0;
};

/// The number at the front of a payload.
[[nodiscard]] inline std::optional<long> cents_of(std::string_view payload) {
    long cents = 0;
    const char* end = payload.data() + payload.size();
    const auto parsed = std::from_chars(payload.data(), end, cents);
    if (parsed.ec != std::errc{} || (parsed.ptr != end && *parsed.ptr != ' ')) {
        return std::nullopt;
    }
    return cents;
}

/// How far the evidence is from "each effect once, nothing lost". All zero: it is not.
struct Judgement {
    // Wrong at any time, also a moment after a kill.
    std::size_t doubled = 0;      ///< effects beyond the first of a key
    std::size_t most = 0;         ///< effects of one key, the most: by itself no fault
    std::size_t foreign = 0;      ///< effects that nobody asked for
    std::size_t torn = 0;         ///< effect without record, or record without effect
    std::size_t early_acks = 0;   ///< acked without a record
    std::size_t dead_doubled = 0; ///< dead letters beyond the first of an entry
    std::size_t dead_foreign = 0; ///< dead letters of good messages, or with another reason
    // Wrong once everything is drained.
    std::size_t lost = 0;      ///< keys without an effect
    std::size_t dead_lost = 0; ///< bad messages without a dead letter
    std::size_t unsettled = 0; ///< entries that the broker still holds for somebody
    long sum_off = 0;

    [[nodiscard]] bool sound() const {
        return doubled + foreign + torn + early_acks + dead_doubled + dead_foreign == 0;
    }
    [[nodiscard]] bool clean() const {
        return sound() && lost + dead_lost + unsettled == 0 && sum_off == 0;
    }
    [[nodiscard]] std::string text() const {
        std::ostringstream out;
        out << "lost " << lost << ", doubled " << doubled << " (of a key " << most << "), foreign "
            << foreign << ", torn " << torn << ", acked early " << early_acks
            << ", dead letters lost " << dead_lost << ", doubled " << dead_doubled << ", foreign "
            << dead_foreign << ", unsettled " << unsettled << ", sum off by " << sum_off;
        return out.str();
    }
};

/// Of one key: the payloads that were sent under it, and the effects it had.
struct KeyHistory {
    std::vector<std::string> payloads{};
    std::vector<long> effects{};

    /// The payload that the first effect is of: another one of the same key is then a conflict.
    [[nodiscard]] const std::string* chosen() const {
        for (const auto& payload : payloads) {
            if (!effects.empty() && cents_of(payload) == effects.front()) {
                return &payload;
            }
        }
        return nullptr;
    }
};

inline std::map<std::string, KeyHistory>
histories(const std::vector<Entry>& sent, const Evidence& seen, Judgement& judgement) {
    std::map<std::string, KeyHistory> keys;
    for (const auto& entry : sent) {
        if (entry.dead_reason.empty()) {
            keys[entry.id].payloads.push_back(entry.payload);
        }
    }
    for (const auto& effect : seen.effects) {
        const auto key = keys.find(effect.id);
        if (key == keys.end()) {
            ++judgement.foreign;
        } else {
            key->second.effects.push_back(effect.cents);
        }
    }
    return keys;
}

/// One letter for each entry that is due one, though two entries may look alike.
inline void
judge_dead(const std::vector<DeadLetter>& due, const Evidence& seen, Judgement& judgement) {
    for (auto letter = due.begin(); letter != due.end(); ++letter) {
        if (std::find(due.begin(), letter, *letter) == letter) {
            const auto asked = std::count(due.begin(), due.end(), *letter);
            const auto there = std::count(seen.dead.begin(), seen.dead.end(), *letter);
            judgement.dead_lost += static_cast<std::size_t>(std::max(asked - there, 0L));
            judgement.dead_doubled += static_cast<std::size_t>(std::max(there - asked, 0L));
        }
    }
    for (const auto& letter : seen.dead) {
        judgement.dead_foreign += std::find(due.begin(), due.end(), letter) == due.end() ? 1 : 0;
    }
}

inline void judge_key(const KeyHistory& key, bool recorded, Judgement& judgement) {
    const auto& effects = key.effects;
    judgement.lost += effects.empty() ? 1 : 0;
    judgement.doubled += effects.size() > 1 ? effects.size() - 1 : 0;
    judgement.most = std::max(judgement.most, effects.size());
    judgement.torn += effects.empty() == recorded ? 1 : 0;
    for (const long cents : effects) {
        judgement.foreign += key.chosen() == nullptr || cents != effects.front() ? 1 : 0;
    }
    judgement.sum_off -=
        effects.empty() ? cents_of(key.payloads.front()).value_or(0) : effects.front();
}

inline Judgement judge(const std::vector<Entry>& sent, const Evidence& seen) {
    Judgement judgement;
    judgement.unsettled = seen.unsettled;
    judgement.sum_off = seen.sum;
    const auto keys = histories(sent, seen, judgement);
    for (const auto& [id, key] : keys) {
        judge_key(key, seen.recorded.contains(id), judgement);
    }
    for (const auto& id : seen.recorded) {
        judgement.torn += keys.contains(id) ? 0 : 1;
    }
    for (const auto& id : seen.acked) {
        judgement.early_acks += seen.recorded.contains(id) ? 0 : 1;
    }
    std::vector<DeadLetter> due;
    for (const auto& entry : sent) {
        if (!entry.dead_reason.empty()) {
            due.push_back({entry.id, entry.payload, entry.dead_reason});
        } else if (const auto* chosen = keys.at(entry.id).chosen();
                   chosen != nullptr && *chosen != entry.payload) {
            due.push_back({entry.id, entry.payload, std::string(reason::conflict)});
        }
    }
    judge_dead(due, seen, judgement);
    return judgement;
}

/// "id:cents;id:cents", as a database puts together.
inline std::vector<Effect> effects_of(const std::string& text) {
    std::vector<Effect> effects;
    std::istringstream items(text);
    for (std::string item; std::getline(items, item, ';');) {
        const auto colon = item.rfind(':');
        effects.push_back({item.substr(0, colon), std::stol(item.substr(colon + 1))});
    }
    return effects;
}
/// "id;id".
inline std::set<std::string> ids_of(const std::string& text) {
    std::set<std::string> ids;
    std::istringstream items(text);
    for (std::string item; std::getline(items, item, ';');) {
        ids.insert(item);
    }
    return ids;
}

} // namespace idem::crash_test

#endif // IDEM_TESTS_CRASH_CHECKER_HPP
