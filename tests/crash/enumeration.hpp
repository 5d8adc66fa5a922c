// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_CRASH_ENUMERATION_HPP
#define IDEM_TESTS_CRASH_ENUMERATION_HPP

// Crash-point enumeration: a worker runs once to count the failpoints that it reaches, then once
// for each of them, killed there; another drains what is left, and the checker judges.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "crash/checker.hpp"
#include "crash/journal.hpp"
#include "support/child_process.hpp"

namespace idem::crash_test {

using testing_support::ChildOptions;
using testing_support::ChildProcess;
using testing_support::Ended;

/// No worker takes so long: what does hangs.
inline constexpr std::chrono::seconds long_time{100};

/// A fresh database and a fresh broker with the entries in it.
class Site {
public:
    Site() = default;
    Site(const Site&) = delete;
    Site& operator=(const Site&) = delete;
    virtual ~Site() = default;

    /// A file name in a directory of the site's own.
    [[nodiscard]] virtual std::string beside(const std::string& name) const = 0;
    /// The command of the worker that is the first (0) on this site, or comes after it.
    [[nodiscard]] virtual std::vector<std::string> worker(unsigned generation) const = 0;
    /// Workers at a time that drain what a kill left.
    [[nodiscard]] virtual unsigned drainers() const { return 1; }
    [[nodiscard]] virtual Judgement judge_now() = 0;
};

/// How often a handler was begun for this id.
inline std::size_t starts_of(const Site& site, const std::string& id) {
    const auto starts = lines_of(site.beside("starts"));
    return static_cast<std::size_t>(std::count(starts.begin(), starts.end(), id));
}

/// One run of a worker, its steps logged, to be killed at one of them (0: at none).
class WorkerRun {
public:
    WorkerRun(const Site& site, unsigned generation, std::size_t kill_at = 0)
        : steps_(site.beside("steps." + std::to_string(generation)))
        , output_(site.beside("output"))
        , process_(site.worker(generation), options(kill_at)) {}

    Ended end() {
        const auto ended = process_.wait(long_time);
        if (!ended) {
            ADD_FAILURE() << "a worker hangs: " << output();
        }
        return ended.value_or(Ended{});
    }
    void expect_clean_end() {
        const auto ended = end();
        EXPECT_TRUE(ended.cleanly())
            << "exit " << ended.code << ", signal " << ended.signal << ": " << output();
    }
    [[nodiscard]] std::vector<std::string> steps() const { return lines_of(steps_); }
    [[nodiscard]] std::string output() const {
        std::ostringstream text;
        text << std::ifstream(output_).rdbuf();
        return text.str();
    }

private:
    [[nodiscard]] ChildOptions options(std::size_t kill_at) const {
        ChildOptions options;
        options.output = output_;
        options.environment["IDEM_FAILPOINT_LOG"] = steps_;
        options.environment["IDEM_FAILPOINT"] = std::to_string(kill_at);
        return options;
    }
    std::string steps_, output_;
    ChildProcess process_;
};

struct Killed {
    std::size_t at = 0;
    std::string step{}; ///< the failpoint it was killed at
    Judgement at_kill{}, at_end{};
};

struct Enumerated {
    std::vector<std::string> steps{}; ///< of the run without a kill
    std::vector<Killed> kills{};

    [[nodiscard]] std::set<std::string> names() const {
        std::set<std::string> names;
        for (const auto& kill : kills) {
            names.insert(kill.step);
        }
        return names;
    }
    /// The steps, in order, whose kill `wrong` finds fault with.
    template <class Wrong>
    [[nodiscard]] std::vector<std::string> where(const Wrong& wrong) const {
        std::vector<std::string> found;
        for (const auto& kill : kills) {
            if (wrong(kill)) {
                found.push_back(kill.step);
            }
        }
        return found;
    }
};

/// That the run died where it should, and where that was.
inline void note_kill(WorkerRun& run, Killed& killed) {
    const auto ended = run.end();
    const auto steps = run.steps();
    EXPECT_EQ(ended.signal, SIGKILL)
        << "step " << killed.at << " was not reached, but " << steps.size()
        << ": the runs are not alike; " << run.output();
    killed.step = steps.size() < killed.at ? "none" : steps[killed.at - 1];
}

/// `make_site` returns a std::unique_ptr of a Site. `abreast` runs at a time.
template <class MakeSite>
Enumerated enumerate(const MakeSite& make_site, std::size_t abreast = 12) {
    Enumerated all;
    {
        const auto site = make_site();
        WorkerRun counted(*site, 0);
        counted.expect_clean_end();
        all.steps = counted.steps();
        EXPECT_FALSE(all.steps.empty()) << "no failpoint was reached: are they compiled in?";
        EXPECT_TRUE(site->judge_now().clean()) << "without a kill: " << site->judge_now().text();
    }
    for (std::size_t first = 1; first <= all.steps.size(); first += abreast) {
        std::vector<decltype(make_site())> sites;
        std::vector<std::unique_ptr<WorkerRun>> runs;
        for (auto at = first; at < first + abreast && at <= all.steps.size(); ++at) {
            sites.push_back(make_site());
            runs.push_back(std::make_unique<WorkerRun>(*sites.back(), 0, at));
        }
        std::vector<std::unique_ptr<WorkerRun>> drains;
        std::vector<Killed> kills;
        for (std::size_t i = 0; i < runs.size(); ++i) {
            kills.push_back({first + i});
            note_kill(*runs[i], kills.back());
            kills.back().at_kill = sites[i]->judge_now();
            for (unsigned drainer = 1; drainer <= sites[i]->drainers(); ++drainer) {
                drains.push_back(std::make_unique<WorkerRun>(*sites[i], drainer));
            }
        }
        for (const auto& drain : drains) {
            drain->expect_clean_end();
        }
        for (std::size_t i = 0; i < runs.size(); ++i) {
            kills[i].at_end = sites[i]->judge_now();
            all.kills.push_back(std::move(kills[i]));
        }
    }
    return all;
}

/// The names of the failpoints in the library's headers.
inline std::set<std::string> failpoints_of_the_library() {
    const std::string mark = "IDEM_FAILPOINT(\"";
    std::set<std::string> names;
    for (const auto& file : std::filesystem::recursive_directory_iterator(IDEM_TEST_INCLUDE)) {
        if (!file.is_regular_file()) {
            continue;
        }
        for (const auto& line : lines_of(file.path().string())) {
            const auto found = line.find(mark);
            if (found != std::string::npos) {
                const auto begin = found + mark.size();
                names.insert(line.substr(begin, line.find('"', begin) - begin));
            }
        }
    }
    return names;
}
/// Of "run: received": run.
inline std::string part_of(const std::string& name) {
    return name.substr(0, name.find(':'));
}
inline std::set<std::string> parts_of_the_library() {
    std::set<std::string> parts;
    for (const auto& name : failpoints_of_the_library()) {
        parts.insert(part_of(name));
    }
    return parts;
}

/// That the enumeration was whole: each failpoint of these parts of the library, as its headers
/// have them, was killed at, and so was each that was reached.
inline void expect_whole(const Enumerated& all, const std::set<std::string>& parts) {
    const auto killed = all.names();
    EXPECT_EQ(killed, std::set<std::string>(all.steps.begin(), all.steps.end()));
    std::set<std::string> due, found;
    for (const auto& name : failpoints_of_the_library()) {
        if (parts.contains(part_of(name))) {
            found.insert(part_of(name));
            due.insert(name);
        }
    }
    EXPECT_EQ(found, parts) << "are the failpoints still where they were?";
    for (const auto& name : due) {
        EXPECT_TRUE(killed.contains(name)) << "no kill at " << name;
    }
    ::testing::Test::RecordProperty("failpoints", static_cast<int>(killed.size()));
    ::testing::Test::RecordProperty("kills", static_cast<int>(all.kills.size()));
    std::cout << "failpoints " << killed.size() << ", kills " << all.kills.size() << '\n';
}

/// That a message whose handler kills its process ends as a dead letter (invariant 13), and how
/// often it was begun: `attempts` times, and once before there was a suspicion to charge for.
inline void expect_poison_dies(Site& site, const std::string& id, unsigned attempts) {
    unsigned kills = 0;
    for (; kills < 5 * attempts; ++kills) {
        WorkerRun run(site, kills);
        if (const auto ended = run.end(); ended.signal != SIGKILL) {
            EXPECT_TRUE(ended.cleanly()) << run.output();
            break;
        }
        EXPECT_TRUE(site.judge_now().sound()) << site.judge_now().text();
    }
    EXPECT_EQ(starts_of(site, id), attempts + 1);
    EXPECT_EQ(kills, attempts + 1);
    EXPECT_TRUE(site.judge_now().clean()) << site.judge_now().text();
}

/// Effectively once, whatever step the kill was at.
inline void expect_each_once(const Enumerated& all) {
    for (const auto& kill : all.kills) {
        EXPECT_TRUE(kill.at_kill.sound()) << "right after a kill at " << kill.at << ", "
                                          << kill.step << ": " << kill.at_kill.text();
        EXPECT_TRUE(kill.at_end.clean()) << "after a kill at " << kill.at << ", " << kill.step
                                         << ", and a drain: " << kill.at_end.text();
    }
}

} // namespace idem::crash_test

#endif // IDEM_TESTS_CRASH_ENUMERATION_HPP
