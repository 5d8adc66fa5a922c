// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_CRASH_STREAMS_HPP
#define IDEM_TESTS_CRASH_STREAMS_HPP

// What the workers are sent.

#include <idem/settlement.hpp>

#include <string>
#include <vector>

#include "crash/checker.hpp"

namespace idem::crash_test {

/// Resends, two payloads under one id, what no handler can take, and a handler that fails once.
inline std::vector<Entry> mixed_stream() {
    return {{"pay-1", "101"},
            {"pay-1", "101"},
            {"pay-2", "202"},
            {"pay-x", "many", std::string(reason::undecodable)},
            {"pay-1", "999"},
            {"", "404", std::string(reason::invalid_key)},
            {"pay-3", "303 flaky"},
            {"pay-2", "202"}};
}
inline std::vector<Entry> plain_stream() {
    return {{"pay-1", "101"}, {"pay-1", "101"}, {"pay-2", "202"}};
}
/// One message whose handler kills its process.
inline std::vector<Entry> poisoned_stream() {
    return {{"pay-1", "101"}, {"pay-2", "666 poison", std::string(reason::dead)}, {"pay-3", "303"}};
}

} // namespace idem::crash_test

#endif // IDEM_TESTS_CRASH_STREAMS_HPP
