// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_ERROR_HPP
#define IDEM_DETAIL_REDIS_ERROR_HPP

// What an error reply of Redis means, by its code: the first word. The prose behind it changes
// between versions and decides nothing.

#include <idem/error.hpp>

#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// The code of an error reply: WRONGTYPE of "WRONGTYPE Operation against a key …".
[[nodiscard]] inline std::string_view redis_error_code(std::string_view error) noexcept {
    return error.substr(0, error.find(' '));
}

struct RedisErrorMeaning {
    Fault fault;
    std::string_view advice; ///< what to do; empty where the server's own text says it
};

/// Total: a code that is not listed is `rejected`, for a server that answers what this release does
/// not know needs a human, and the loop must not go on quietly.
[[nodiscard]] inline RedisErrorMeaning meaning_of_redis_error(std::string_view code) noexcept {
    struct Row {
        std::string_view code;
        RedisErrorMeaning meaning;
    };
    static constexpr std::string_view cluster =
        "Redis Cluster is not supported: use a server with cluster-enabled no";
    static constexpr Row rows[] = {
        {"OOM",
         {Fault::unavailable,
          "the server's memory is full: raise maxmemory, or lower the retention (records × bytes "
          "kept = rate × retention × 210 or more)"}},
        {"READONLY", {Fault::unavailable, "it is a replica: connect to the primary"}},
        {"LOADING", {Fault::unavailable, {}}},
        {"BUSY", {Fault::unavailable, {}}},
        {"MASTERDOWN", {Fault::unavailable, {}}},
        {"NOREPLICAS", {Fault::unavailable, "fewer replicas than min-replicas-to-write"}},
        {"MISCONF",
         {Fault::unavailable, "the server cannot write its snapshot or its log to disk"}},
        {"MOVED", {Fault::rejected, cluster}},
        {"ASK", {Fault::rejected, cluster}},
        {"CROSSSLOT", {Fault::rejected, cluster}},
        {"CLUSTERDOWN", {Fault::rejected, cluster}},
        {"TRYAGAIN", {Fault::rejected, cluster}},
        {"NOAUTH", {Fault::rejected, "the address needs user and password"}},
        {"WRONGPASS", {Fault::rejected, "check user and password in the address"}},
        {"NOPERM", {Fault::rejected, "grant the user the command and the keys below the prefix"}},
        {"WRONGTYPE", {Fault::rejected, "something else uses this key: choose another prefix"}},
    };
    for (const auto& row : rows) {
        if (row.code == code) {
            return row.meaning;
        }
    }
    return {Fault::rejected, {}};
}

/// `where` names the server, and the key or command where that helps.
[[nodiscard]] inline StoreError redis_error(const std::string& where, std::string_view error) {
    const auto meaning = meaning_of_redis_error(redis_error_code(error));
    std::string text = "idem: Redis at " + where + " answered: " + std::string(error);
    if (!meaning.advice.empty()) {
        text += " (" + std::string(meaning.advice) + ")";
    }
    return {meaning.fault, text};
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_ERROR_HPP
