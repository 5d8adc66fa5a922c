// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_CRASH_JOURNAL_HPP
#define IDEM_TESTS_CRASH_JOURNAL_HPP

// An at-least-once broker of two files, for one consumer at a time: the entries, and a log of what
// was delivered and settled. Each line of the log is one write, so that a dead letter and the
// settlement of its source are one step.

#include <idem/broker/delivery.hpp>
#include <idem/outcome.hpp>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <fcntl.h>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "crash/checker.hpp"

namespace idem::crash_test {

/// One write, so that a kill leaves all of it or nothing.
inline void append_line(const std::string& path, const std::string& line) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    const auto text = line + '\n';
    const auto written = file < 0 ? -1 : ::write(file, text.data(), text.size());
    ::close(file);
    if (written != static_cast<ssize_t>(text.size())) {
        throw std::system_error(errno, std::generic_category(), path);
    }
}
inline std::vector<std::string> lines_of(const std::string& path) {
    std::vector<std::string> lines;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        lines.push_back(std::move(line));
    }
    return lines;
}

/// What the files say.
struct Journal {
    explicit Journal(const std::string& path) {
        for (const auto& line : lines_of(path)) {
            const auto tab = line.find('\t');
            entries.push_back({line.substr(0, tab), line.substr(tab + 1)});
        }
        for (const auto& line : lines_of(path + ".log")) { // "d 3", "a 3", "x 3 reason"
            std::size_t digits = 0;
            const std::size_t at = std::stoul(line.substr(2), &digits);
            switch (line[0]) {
            case 'd':
                delivered.insert(at);
                break;
            case 'a':
                acked.push_back(at);
                break;
            default:
                dead.emplace_back(at, line.substr(2 + digits + 1));
            }
        }
    }
    static void write(const std::string& path, const std::vector<Entry>& sent) {
        std::ofstream file(path);
        for (const auto& entry : sent) {
            file << entry.id << '\t' << entry.payload << '\n';
        }
    }
    [[nodiscard]] std::set<std::size_t> unsettled() const {
        std::set<std::size_t> open;
        for (std::size_t at = 0; at < entries.size(); ++at) {
            open.insert(at);
        }
        for (const auto at : acked) {
            open.erase(at);
        }
        for (const auto& [at, reason] : dead) {
            open.erase(at);
        }
        return open;
    }
    /// The broker's part of the evidence.
    void show(Evidence& evidence) const {
        for (const auto at : acked) {
            evidence.acked.push_back(entries[at].id);
        }
        for (const auto& [at, reason] : dead) {
            evidence.dead.push_back({entries[at].id, entries[at].payload, reason});
        }
        evidence.unsettled = unsettled().size();
    }

    std::vector<Entry> entries;
    std::set<std::size_t> delivered;
    std::vector<std::size_t> acked;
    std::vector<std::pair<std::size_t, std::string>> dead;
};

class JournalDelivery {
public:
    JournalDelivery(std::size_t at, Entry entry, bool redelivered)
        : at_(at)
        , entry_(std::move(entry))
        , redelivered_(redelivered) {}

    [[nodiscard]] std::string_view payload() const { return entry_.payload; }
    [[nodiscard]] std::optional<std::string_view> header(std::string_view name) const {
        return name == header::key ? std::optional<std::string_view>(entry_.id) : std::nullopt;
    }
    [[nodiscard]] Identity identity() const {
        return {.id = std::string_view(entry_.id),
                .fingerprint = fingerprint_of(entry_.payload),
                .redelivered = redelivered_};
    }
    [[nodiscard]] std::size_t at() const { return at_; }

private:
    std::size_t at_;
    Entry entry_;
    bool redelivered_;
};

class JournalSource {
public:
    using Delivery = JournalDelivery;

    explicit JournalSource(std::string path) : path_(std::move(path)), journal_(path_) {
        const auto open = journal_.unsettled();
        next_.assign(open.begin(), open.end());
        left_ = next_.size();
    }
    std::vector<JournalDelivery> receive(milliseconds time, std::size_t at_most) {
        std::vector<JournalDelivery> deliveries;
        for (; deliveries.size() < at_most && given_ < next_.size(); ++given_) {
            const auto at = next_[given_];
            append_line(path_ + ".log", "d " + std::to_string(at));
            deliveries.emplace_back(at, journal_.entries[at], journal_.delivered.contains(at));
        }
        if (deliveries.empty()) {
            std::this_thread::sleep_for(time);
        }
        return deliveries;
    }
    std::vector<JournalDelivery> receive(milliseconds time) { return receive(time, 16); }
    Settled settle(JournalDelivery& delivery, const Settlement& settlement) {
        const auto at = std::to_string(delivery.at());
        if (settlement.action == Action::ack) {
            append_line(path_ + ".log", "a " + at);
        } else if (settlement.action == Action::dead_letter) {
            append_line(path_ + ".log", "x " + at + ' ' + std::string(settlement.reason));
        } else {
            return Settled::yes; // it comes again after a restart
        }
        --left_;
        return Settled::yes;
    }
    bool extend(JournalDelivery&, milliseconds) { return true; } // nobody else reads it
    /// Whether all are settled.
    [[nodiscard]] bool drained() const { return left_ == 0; }

private:
    std::string path_;
    Journal journal_;
    std::vector<std::size_t> next_;
    std::size_t given_ = 0, left_ = 0;
};

} // namespace idem::crash_test

#endif // IDEM_TESTS_CRASH_JOURNAL_HPP
