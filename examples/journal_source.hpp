// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_JOURNAL_SOURCE_HPP
#define EXAMPLES_JOURNAL_SOURCE_HPP

// A broker in one file, as small as can be and still at least once: messages are its lines, a
// checkpoint file says up to where all are settled, and what was read past it comes again after a
// crash.

#include <idem/broker/source.hpp>

#include <cerrno>
#include <cstdint>
#include <fcntl.h>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

/// One line, "<id> <rest>". The id is its first word.
class JournalDelivery {
public:
    JournalDelivery(std::uint64_t offset, std::string line)
        : offset_(offset)
        , line_(std::move(line)) {}

    [[nodiscard]] std::string_view payload() const { return line_; }
    [[nodiscard]] std::optional<std::string_view> header(std::string_view name) const {
        if (name == idem::header::key) {
            return payload().substr(0, line_.find(' '));
        }
        return {};
    }
    [[nodiscard]] idem::Identity identity() const {
        return {.id = *header(idem::header::key), .fingerprint = idem::fingerprint_of(line_)};
    }
    [[nodiscard]] std::uint64_t offset() const { return offset_; }

private:
    std::uint64_t offset_;
    std::string line_;
};

/// The lines of `path` after the checkpoint in `path`.done; dead letters go to `path`.dead.
/// For one process at a time.
class JournalSource {
public:
    using Delivery = JournalDelivery;

    explicit JournalSource(const std::string& path)
        : lines_(path)
        , dead_(path + ".dead", std::ios::app)
        , checkpoint_(::open((path + ".done").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
        if (!lines_ || !dead_ || checkpoint_ < 0) {
            throw std::system_error(errno, std::generic_category(), path);
        }
        if (::pread(checkpoint_, &next_, sizeof next_, 0) == sizeof next_) {
            lines_.seekg(static_cast<std::streamoff>(next_));
        }
    }
    JournalSource(const JournalSource&) = delete;
    JournalSource& operator=(const JournalSource&) = delete;
    ~JournalSource() {
        try {
            write_checkpoint();
        } catch (const std::system_error&) { // then more of it is read again, which does no harm
        }
        ::close(checkpoint_);
    }

    std::vector<JournalDelivery> receive(idem::milliseconds time) {
        std::vector<JournalDelivery> deliveries;
        for (std::string line; deliveries.size() < 16 && std::getline(lines_, line);) {
            unfinished_.insert(next_);
            deliveries.emplace_back(std::exchange(next_, next_ + line.size() + 1), std::move(line));
        }
        if (deliveries.empty()) {
            lines_.clear(); // it may have grown when we come back
            write_checkpoint();
            std::this_thread::sleep_for(time);
        }
        return deliveries;
    }
    idem::Settled settle(JournalDelivery& delivery, const idem::Settlement& settlement) {
        if (settlement.action == idem::Action::retry) {
            return idem::Settled::yes; // stays unfinished: it comes again after a restart
        }
        if (settlement.action == idem::Action::dead_letter) {
            dead_ << settlement.reason << ": " << settlement.detail << ": " << delivery.payload()
                  << std::endl; // written before the checkpoint can pass it
        }
        unfinished_.erase(delivery.offset());
        if (++settled_ % 64 == 0) {
            write_checkpoint();
        }
        return idem::Settled::yes;
    }
    bool extend(JournalDelivery&, idem::milliseconds) { return true; } // nobody else reads it

private:
    /// Never past the lowest line that is not settled.
    void write_checkpoint() {
        const std::uint64_t done = unfinished_.empty() ? next_ : *unfinished_.begin();
        if (::pwrite(checkpoint_, &done, sizeof done, 0) != sizeof done) {
            throw std::system_error(errno, std::generic_category(), "the journal's checkpoint");
        }
    }

    std::ifstream lines_;
    std::ofstream dead_;
    int checkpoint_;
    std::uint64_t next_ = 0;
    std::uint64_t settled_ = 0;
    std::set<std::uint64_t> unfinished_; // offsets
};

#endif // EXAMPLES_JOURNAL_SOURCE_HPP
