// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_ADDRESS_HPP
#define IDEM_DETAIL_REDIS_ADDRESS_HPP

// How a user names a Redis server.

#include <charconv>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace idem::inline v0::detail {

/// Where a server is and who asks. A path means a unix socket, and host and port are then unused.
struct RedisAddress {
    std::string host = "127.0.0.1";
    std::uint16_t port = 6379;
    std::string path;
    std::string user, password;
    unsigned database = 0;

    /// Host and port, or the path: what error texts show. Never the password.
    [[nodiscard]] std::string where() const {
        return path.empty() ? host + ":" + std::to_string(port) : path;
    }
};

[[noreturn]] inline void refuse_redis_address(const std::string& problem) {
    throw std::invalid_argument("idem: Redis address: " + problem +
                                "; write redis://user:password@host:port/database, "
                                "unix:/path?db=database or host:port");
}

template <class Number>
Number redis_address_number(std::string_view text, const char* field, Number limit) {
    Number value{};
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    if (text.empty() || parsed.ec != std::errc{} || parsed.ptr != end || value > limit) {
        refuse_redis_address(std::string(field) + " must be a number of at most " +
                             std::to_string(limit));
    }
    return value;
}

/// The text with %XX decoded. What is wrong is named by its field, its text is not repeated.
inline std::string percent_decoded(std::string_view text, const char* field) {
    std::string decoded;
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (text[at] != '%') {
            decoded += text[at];
            continue;
        }
        unsigned byte = 0;
        const auto digits = text.substr(at + 1, 2);
        const char* end = digits.data() + digits.size();
        const auto parsed = std::from_chars(digits.data(), end, byte, 16);
        if (digits.size() != 2 || parsed.ec != std::errc{} || parsed.ptr != end) {
            refuse_redis_address(std::string("a % in the ") + field +
                                 " is not followed by two hexadecimal digits");
        }
        decoded += static_cast<char>(byte);
        at += 2;
    }
    return decoded;
}

/// Takes `user:password@`, `:password@` or `user@` off the front of `rest`.
inline void take_redis_user(std::string_view& rest, RedisAddress& address) {
    const auto at = rest.rfind('@');
    if (at == std::string_view::npos) {
        return;
    }
    const auto who = rest.substr(0, at);
    rest.remove_prefix(at + 1);
    const auto colon = who.find(':');
    address.user = percent_decoded(who.substr(0, colon), "user");
    if (colon != std::string_view::npos) {
        address.password = percent_decoded(who.substr(colon + 1), "password");
    }
    if (!address.user.empty() && address.password.empty()) {
        refuse_redis_address("a user needs a password");
    }
}

/// Takes `?db=n` off the end of `rest`.
inline void take_redis_query(std::string_view& rest, RedisAddress& address) {
    const auto mark = rest.find('?');
    if (mark == std::string_view::npos) {
        return;
    }
    const auto query = rest.substr(mark + 1);
    rest = rest.substr(0, mark);
    if (!query.starts_with("db=")) {
        refuse_redis_address("the only option after ? is db=n");
    }
    address.database = redis_address_number(query.substr(3), "the database", 1'000'000U);
}

inline void take_redis_host(std::string_view host, RedisAddress& address) {
    std::string_view port;
    if (host.starts_with('[')) { // IPv6
        const auto close = host.find(']');
        if (close == std::string_view::npos) {
            refuse_redis_address("[ without ] around an IPv6 address");
        }
        port = host.substr(close + 1);
        host = host.substr(1, close - 1);
    } else if (const auto colon = host.find(':'); colon != std::string_view::npos) {
        port = host.substr(colon);
        host = host.substr(0, colon);
    }
    if (!port.empty()) {
        if (port.front() != ':') {
            refuse_redis_address("only :port may follow the ] of an IPv6 address");
        }
        address.port = redis_address_number<std::uint16_t>(port.substr(1), "the port", 65'535);
    }
    if (host.empty()) {
        refuse_redis_address("the host is empty");
    }
    address.host = std::string(host);
}

/// Reads
///   redis://[who@]host[:port][/database]      who: user:password, or :password
///   unix:[who@]/path[?db=database]            also unix:///path
///   host[:port], [IPv6]:port, /path
/// User, password and path are percent-decoded.
/// Throws: std::invalid_argument naming the part that is wrong; no password is in its text.
inline RedisAddress parse_redis_address(std::string_view text) {
    RedisAddress address;
    auto take = [&text](std::string_view scheme) {
        const bool has = text.starts_with(scheme);
        text.remove_prefix(has ? scheme.size() : 0);
        return has;
    };
    if (text.empty()) {
        refuse_redis_address("it is empty");
    }
    if (text.find('\0') != std::string_view::npos) {
        refuse_redis_address("it contains a NUL byte");
    }
    const bool local = take("unix://") || take("unix:");
    if (local || text.front() == '/') {
        take_redis_query(text, address);
        take_redis_user(text, address);
        address.path = percent_decoded(text, "path");
        if (!address.path.starts_with('/')) {
            refuse_redis_address("the path of a unix socket must begin with /");
        }
        return address;
    }
    if (text.starts_with("rediss://")) {
        refuse_redis_address("TLS (rediss://) is not supported");
    }
    const bool url = take("redis://");
    if (!url && text.find("://") != std::string_view::npos) {
        refuse_redis_address("unknown scheme");
    }
    take_redis_query(text, address);
    take_redis_user(text, address);
    if (const auto slash = text.find('/'); slash != std::string_view::npos) {
        if (slash + 1 < text.size()) {
            address.database =
                redis_address_number(text.substr(slash + 1), "the database", 1'000'000U);
        }
        text = text.substr(0, slash);
    }
    take_redis_host(text, address);
    return address;
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_ADDRESS_HPP
