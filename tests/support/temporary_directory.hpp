// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_TEMPORARY_DIRECTORY_HPP
#define IDEM_TESTS_SUPPORT_TEMPORARY_DIRECTORY_HPP

// A directory that is gone, with all in it, when its owner is.

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

namespace idem::testing_support {

/// Short enough that a unix socket in it stays below the 108 bytes of its address. Others may enter
/// it, so that a server running as another user can.
class TemporaryDirectory {
public:
    TemporaryDirectory() {
        const char* root = std::getenv("TMPDIR");
        std::string pattern =
            (root != nullptr && std::string(root).size() < 40 ? std::string(root) : "/tmp") +
            "/idem-XXXXXX";
        if (::mkdtemp(pattern.data()) == nullptr) {
            throw std::system_error(errno, std::generic_category(), "mkdtemp " + pattern);
        }
        path_ = pattern;
        using std::filesystem::perms;
        std::filesystem::permissions(path_,
                                     perms::owner_all | perms::group_read | perms::group_exec |
                                         perms::others_read | perms::others_exec);
    }
    TemporaryDirectory(TemporaryDirectory&& other) noexcept : path_(std::move(other.path_)) {
        other.path_.clear();
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(TemporaryDirectory&&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    ~TemporaryDirectory() {
        if (!path_.empty()) {
            std::error_code ignored;
            std::filesystem::remove_all(path_, ignored);
        }
    }

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
    [[nodiscard]] std::filesystem::path operator/(const std::string& name) const {
        return path_ / name;
    }

private:
    std::filesystem::path path_;
};

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_TEMPORARY_DIRECTORY_HPP
