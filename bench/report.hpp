// SPDX-License-Identifier: MIT
#ifndef IDEM_BENCH_REPORT_HPP
#define IDEM_BENCH_REPORT_HPP

// The command line of a benchmark, the table that it prints, and what the figures were taken on.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <regex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <thread>
#include <utility>
#include <vector>

#include "interleaved.hpp"

namespace idem::bench {

struct Options {
    unsigned rounds = 15;
    double seconds = 0.25;
    std::string only{};
    std::uint64_t seed = std::random_device{}();
    bool strict = false;
};

inline void print_usage(const char* program, const char* about) {
    const Options defaults;
    std::printf(R"(Usage: %s [--rounds N] [--seconds S] [--only REGEX] [--seed N] [--strict]

%s
The variants of a row run in turn, round by round, in an order that changes from round to round.
Printed: operations per second, microseconds of processor for one operation in this process and in
the server (medians of the rounds), and the ratio to the row's first variant: of the time that one
operation takes, or of operations per second; median over the rounds, with its quartiles. Where the
machine does other work too, the processor time tells more than the clock.

  --rounds N     rounds of each row, beside one that does not count; default %u
  --seconds S    of each variant in each round; default %.2f
  --only REGEX   rows whose name matches
  --seed N       of the orders; default: another one each time
  --strict       exit 1 where a target is missed
)",
                program,
                about,
                defaults.rounds,
                defaults.seconds);
}

/// Ends the program for --help, and for words that it does not know.
inline Options options_from(int argc, char** argv, const char* about) {
    Options options;
    auto refuse = [&](const std::string& why) {
        std::fprintf(stderr, "%s: %s; see --help\n", argv[0], why.c_str());
        std::exit(2);
    };
    for (int at = 1; at < argc; ++at) {
        const std::string_view word = argv[at];
        if (word == "-h" || word == "--help") {
            print_usage(argv[0], about);
            std::exit(0);
        }
        if (word == "--strict") {
            options.strict = true;
            continue;
        }
        if (word != "--rounds" && word != "--seconds" && word != "--only" && word != "--seed") {
            refuse("unknown option " + std::string(word));
        }
        if (++at == argc) {
            refuse(std::string(word) + " needs a value");
        }
        try {
            const std::string value = argv[at];
            if (word == "--rounds") {
                options.rounds = static_cast<unsigned>(std::stoul(value));
            } else if (word == "--seconds") {
                options.seconds = std::stod(value);
            } else if (word == "--seed") {
                options.seed = std::stoull(value);
            } else {
                static_cast<void>(std::regex(value));
                options.only = value;
            }
        } catch (const std::exception&) {
            refuse(std::string(argv[at]) + " is no value for " + std::string(word));
        }
    }
    if (options.rounds == 0 || !(options.seconds > 0)) {
        refuse("--rounds and --seconds must be greater than 0");
    }
    return options;
}

/// The kind of file system that holds `path`.
inline std::string file_system_of(const std::filesystem::path& path) {
    struct statfs found {};
    if (::statfs(path.c_str(), &found) != 0) {
        return "unknown";
    }
    constexpr std::pair<unsigned long, const char*> names[] = {{0xef53, "ext4"},
                                                               {0x58465342, "xfs"},
                                                               {0x9123683e, "btrfs"},
                                                               {0x794c7630, "overlayfs"},
                                                               {0x01021994, "tmpfs"},
                                                               {0x858458f6, "ramfs"}};
    for (const auto& [magic, name] : names) {
        if (static_cast<unsigned long>(found.f_type) == magic) {
            return name;
        }
    }
    char magic[24];
    std::snprintf(magic, sizeof magic, "type 0x%lx", static_cast<unsigned long>(found.f_type));
    return magic;
}

class Report {
public:
    explicit Report(Options options) : options_(std::move(options)), only_(options_.only) {
        note("machine", machine());
        note("compiler", std::string("C++ ") + __VERSION__);
        note("load", load() + " at the start");
        note("rounds",
             std::to_string(options_.rounds) + " of " + std::to_string(options_.seconds) +
                 " s, seed " + std::to_string(options_.seed));
    }

    /// A line above the table.
    void note(const char* what, const std::string& text) const {
        std::printf("%-9s %s\n", what, text.c_str());
        std::fflush(stdout);
    }
    /// Where what must be durable is kept.
    void note_directory(const std::filesystem::path& path) const {
        const auto kind = file_system_of(path);
        const bool memory = kind == "tmpfs" || kind == "ramfs";
        note("files",
             path.string() + ", " + kind +
                 (memory ? ": MEMORY, nothing here is durable; set TMPDIR to a disk's directory"
                         : ""));
    }

    [[nodiscard]] bool wants(const std::string& row) const {
        return options_.only.empty() || std::regex_search(row, only_);
    }
    /// Measures and prints. Returns how many operations each variant did, for require().
    std::vector<std::uint64_t> run(const Row& row) {
        const auto series = measure(row,
                                    options_.rounds,
                                    std::chrono::duration<double>(options_.seconds),
                                    options_.seed,
                                    [&](unsigned round) { progress(row.name, round); });
        progress({}, 0);
        print_title(row.name);
        std::vector<std::uint64_t> operations;
        for (std::size_t at = 0; at < series.size(); ++at) {
            const auto& variant = row.variants[at];
            const auto kind = variant.target ? variant.target->kind : Target::Kind::time;
            const auto ratio = series[at].ratio_to(series[0], kind);
            std::printf("  %-34s %9.0f %8.1f %8.1f   ",
                        variant.name.c_str(),
                        series[at].median(&Slice::rate),
                        series[at].median(&Slice::client_seconds) * 1e6,
                        series[at].median(&Slice::server_seconds) * 1e6);
            if (at > 0) {
                std::printf("%s %5.2f  (%.2f-%.2f)",
                            kind == Target::Kind::time ? "time" : "rate",
                            ratio.median,
                            ratio.low,
                            ratio.high);
            }
            if (variant.target) {
                const bool reached = variant.target->reached_by(ratio.median);
                missed_ += reached ? 0 : 1;
                std::printf("   %s %.2f  %s",
                            kind == Target::Kind::time ? "<=" : ">=",
                            variant.target->bound,
                            reached ? "ok" : "MISSED");
            }
            std::printf("\n");
            operations.push_back(series[at].operations);
        }
        std::fflush(stdout);
        return operations;
    }
    /// A count beside a row, and what it must be at most.
    void count(const std::string& name, double value, std::optional<double> at_most = {}) {
        std::printf("  %-34s %9.2f", name.c_str(), value);
        if (at_most) {
            missed_ += value <= *at_most ? 0 : 1;
            std::printf("%50s %.0f  %s", "<=", *at_most, value <= *at_most ? "ok" : "MISSED");
        }
        std::printf("\n");
        std::fflush(stdout);
    }
    /// Figures of work that was not done are worth nothing.
    void require(const std::string& what, std::uint64_t expected, std::uint64_t found) {
        if (expected != found) {
            std::printf("  WRONG: %s: %llu expected, %llu found\n",
                        what.c_str(),
                        static_cast<unsigned long long>(expected),
                        static_cast<unsigned long long>(found));
            wrong_ = true;
        }
    }
    /// What main returns.
    [[nodiscard]] int end() const {
        std::printf("\n%s at the end; %u targets missed%s\n",
                    load().c_str(),
                    missed_,
                    wrong_ ? "; effects were WRONG" : "");
        return wrong_ || (options_.strict && missed_ > 0) ? 1 : 0;
    }

private:
    static std::string machine() {
        std::string processor = "unknown processor";
        std::ifstream cpuinfo("/proc/cpuinfo");
        for (std::string line; std::getline(cpuinfo, line);) {
            if (line.starts_with("model name")) {
                processor = line.substr(line.find(':') + 2);
                break;
            }
        }
        utsname system{};
        ::uname(&system);
        return processor + ", " + std::to_string(std::thread::hardware_concurrency()) +
               " processors, " + system.sysname + " " + system.release;
    }
    static std::string load() {
        double averages[3] = {};
        std::string text = "load";
        const int known = ::getloadavg(averages, 3);
        for (int at = 0; at < known; ++at) {
            char figure[16];
            std::snprintf(figure, sizeof figure, " %.2f", averages[at]);
            text += figure;
        }
        return text;
    }
    void progress(const std::string& row, unsigned round) const {
        if (row.empty()) {
            std::fprintf(stderr, "\r%72s\r", "");
        } else {
            std::fprintf(stderr, "\r%-48.48s round %u of %u ", row.c_str(), round, options_.rounds);
        }
    }
    void print_title(const std::string& row) {
        if (!titled_) {
            std::printf(
                "\n  %-34s %9s %8s %8s   %s\n", "", "ops/s", "client", "server", "to the first");
            titled_ = true;
        }
        std::printf("%s\n", row.c_str());
    }

    Options options_;
    std::regex only_;
    unsigned missed_ = 0;
    bool wrong_ = false, titled_ = false;
};

/// main() of a benchmark. `missing`: the server that cannot be started here, and why; empty: none.
template <class Run>
int bench_main(
    int argc, char** argv, const char* about, const std::string& missing, const Run& run) {
    const auto options = options_from(argc, argv, about);
    if (!missing.empty()) {
        std::fprintf(stderr, "%s: %s\n", argv[0], missing.c_str());
        return 1;
    }
    try {
        return run(options);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "\n%s: %s\n", argv[0], error.what());
        return 1;
    }
}

} // namespace idem::bench

#endif // IDEM_BENCH_REPORT_HPP
