// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_TALLY_HPP
#define EXAMPLES_TALLY_HPP

// Counters in a mapped file: they go on when the process that counts is killed.

#include <idem/observer.hpp>

#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

class Tally : public idem::Observer {
public:
    struct Counters {
        std::atomic<long> delivered, handled, replayed, others;
    };
    static_assert(std::atomic<long>::is_always_lock_free);

    explicit Tally(const std::string& path) {
        const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        void* mapped = MAP_FAILED;
        if (file >= 0 && ::ftruncate(file, sizeof(Counters)) == 0) {
            mapped = ::mmap(nullptr, sizeof(Counters), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        }
        if (mapped == MAP_FAILED) {
            throw std::system_error(errno, std::generic_category(), path);
        }
        ::close(file);
        counters_ = static_cast<Counters*>(mapped);
    }
    Tally(const Tally&) = delete;
    Tally& operator=(const Tally&) = delete;
    ~Tally() { ::munmap(counters_, sizeof(Counters)); }

    void on(const idem::Event& event) noexcept override {
        ++counters_->delivered;
        const bool again = event.status == idem::Status::replayed;
        ++(event.status == idem::Status::executed ? counters_->handled
           : again                                ? counters_->replayed
                                                  : counters_->others);
    }
    [[nodiscard]] const Counters& counters() const noexcept { return *counters_; }

private:
    Counters* counters_ = nullptr;
};

#endif // EXAMPLES_TALLY_HPP
