// SPDX-License-Identifier: MIT
#ifndef IDEM_VERSION_HPP
#define IDEM_VERSION_HPP

// The version of the library, by semantic versioning. The build reads it from here.

#define IDEM_VERSION_MAJOR 0
#define IDEM_VERSION_MINOR 1
#define IDEM_VERSION_PATCH 0

// The inline namespace carries the major number: two incompatible versions in one program do not
// link by accident.
namespace idem::inline v0 {

/// One comparable number: 1.2.3 is 1'002'003.
inline constexpr unsigned long library_version =
    IDEM_VERSION_MAJOR * 1'000'000UL + IDEM_VERSION_MINOR * 1'000UL + IDEM_VERSION_PATCH;

} // namespace idem::inline v0

#endif // IDEM_VERSION_HPP
