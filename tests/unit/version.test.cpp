// SPDX-License-Identifier: MIT
// The version in the headers is the version that the build declares and the package installs.

#include <idem/version.hpp>

#include <gtest/gtest.h>

#include <string>

namespace {

TEST(Version, the_headers_and_the_build_agree) {
    const std::string text = std::to_string(IDEM_VERSION_MAJOR) + "." +
                             std::to_string(IDEM_VERSION_MINOR) + "." +
                             std::to_string(IDEM_VERSION_PATCH);
    EXPECT_EQ(text, IDEM_TEST_VERSION);
}

TEST(Version, the_number_orders_versions_and_the_inline_namespace_carries_the_major) {
    EXPECT_EQ(idem::library_version / 1'000'000, static_cast<unsigned long>(IDEM_VERSION_MAJOR));
    EXPECT_EQ(idem::library_version / 1'000 % 1'000,
              static_cast<unsigned long>(IDEM_VERSION_MINOR));
    EXPECT_EQ(idem::library_version % 1'000, static_cast<unsigned long>(IDEM_VERSION_PATCH));
    static_assert(IDEM_VERSION_MAJOR == 0, "rename the inline namespace with the major number");
    EXPECT_EQ(&idem::library_version, &idem::v0::library_version);
}

} // namespace
