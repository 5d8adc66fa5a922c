// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_HEALTH_HPP
#define IDEM_DETAIL_REDIS_HEALTH_HPP

// Whether a server is set up to keep records, read from INFO, which works where CONFIG is
// forbidden.

#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0::detail {

/// The value of a field of INFO; empty where there is none.
[[nodiscard]] inline std::string_view redis_info_field(std::string_view info,
                                                       std::string_view name) {
    while (!info.empty()) {
        const auto line = info.substr(0, info.find('\n'));
        info.remove_prefix(line.size() < info.size() ? line.size() + 1 : info.size());
        if (line.starts_with(name) && line.substr(name.size()).starts_with(':')) {
            const auto value = line.substr(name.size() + 1);
            return value.substr(0, value.find('\r'));
        }
    }
    return {};
}

/// Everything that is wrong, each with what to do. Empty: fit.
[[nodiscard]] inline std::vector<std::string> problems_of_redis(std::string_view info) {
    std::vector<std::string> problems;
    auto field = [info](std::string_view name) { return redis_info_field(info, name); };
    auto is_not = [&](std::string_view name, std::string_view wanted, std::string_view advice) {
        const auto value = field(name);
        if (!value.empty() && value != wanted) {
            problems.push_back(std::string(name) + " is " + std::string(value) + ": " +
                               std::string(advice));
        }
    };
    const auto version = field("redis_version");
    if (version.empty() || (version.find('.') < 2 && version.front() < '7')) {
        problems.push_back("redis_version is " + std::string(version) + ": 7.0 or later is needed");
    }
    is_not("cluster_enabled", "0", "Redis Cluster is not supported");
    is_not("role", "master", "connect to the primary, a replica takes no claims");
    is_not("maxmemory_policy",
           "noeviction",
           "set noeviction, any other policy forgets records before their retention");
    is_not("rdb_last_bgsave_status", "ok", "the last snapshot failed, see the server's log");
    is_not("aof_last_write_status", "ok", "the append-only file cannot be written, see the log");
    return problems;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_HEALTH_HPP
