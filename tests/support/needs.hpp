// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_NEEDS_HPP
#define IDEM_TESTS_SUPPORT_NEEDS_HPP

// What a test does where a server program is missing: skip, or fail where a green run must mean
// that everything ran.

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace idem::testing_support {

/// Whether a missing server program is a failure.
inline bool servers_required() {
    return std::getenv("CI") != nullptr || std::getenv("IDEM_REQUIRE_SERVERS") != nullptr;
}

} // namespace idem::testing_support

/// First statement of a test or of SetUp(). `missing`: why it cannot run, empty where it can.
#define IDEM_TEST_NEEDS(missing)                                                                   \
    if (const std::string reason_ = (missing); !reason_.empty()) {                                 \
        if (::idem::testing_support::servers_required()) {                                         \
            FAIL() << reason_;                                                                     \
        }                                                                                          \
        GTEST_SKIP() << reason_;                                                                   \
    }                                                                                              \
    static_assert(true)

#endif // IDEM_TESTS_SUPPORT_NEEDS_HPP
