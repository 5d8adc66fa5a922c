// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_DEMO_HPP
#define EXAMPLES_DEMO_HPP

// What the two demonstrations share: the stream of charges, the progress line, the counts.

#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

struct Resent {
    std::string order_id;
    std::int64_t cents;
};

/// `distinct` charges with resends among them, about 30 % of the stream: some right behind the
/// first, so that both are handled at once, some much later, some several times.
inline std::vector<Resent> charges_with_resends(std::size_t distinct, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    auto chance = [&](unsigned percent) { return random() % 100 < percent; };
    std::multimap<std::size_t, Resent> later; // by the place where it comes again
    std::vector<Resent> stream;
    for (std::size_t number = 0; number < distinct; ++number) {
        const Resent charge{"order-" + std::to_string(number),
                            static_cast<std::int64_t>(100 + random() % 100'000)};
        stream.push_back(charge);
        while (chance(20)) {
            stream.push_back(charge);
        }
        while (chance(15)) {
            later.emplace(number + 1 + random() % 400, charge);
        }
        for (auto due = later.begin(); due != later.end() && due->first <= number;) {
            stream.push_back(std::move(due->second));
            due = later.erase(due);
        }
    }
    for (auto& [place, charge] : later) {
        stream.push_back(std::move(charge));
    }
    return stream;
}

/// A line that is written over on a terminal, and now and then a new one elsewhere.
class Progress {
public:
    explicit Progress(std::string what) : what_(std::move(what)) {}
    void show(long done, long all, int kills) {
        const long step = terminal_ ? 1 : 20;
        const long share =
            done < all ? done * 100 / all : 99; // what was lost in a kill comes again
        if (share / step == shown_ / step) {
            return;
        }
        shown_ = share;
        std::printf("%s%-14s %3ld %%, killed %d times%s",
                    terminal_ ? "\r" : "",
                    what_.c_str(),
                    share,
                    kills,
                    terminal_ ? "" : "\n");
        std::fflush(stdout);
    }
    void over() const {
        if (terminal_) {
            std::printf("\r%60s\r", "");
        }
    }

private:
    std::string what_;
    bool terminal_ = ::isatty(STDOUT_FILENO) != 0;
    long shown_ = -100;
};

/// Counted in the database, against what the producer sent.
struct Count {
    long delivered = 0, handled = 0, replayed = 0;
    int kills = 0;
    long charges = 0, lost = 0, doubled = 0;
    std::int64_t cents = 0, cents_due = 0;
    [[nodiscard]] bool right() const { return lost == 0 && doubled == 0 && cents == cents_due; }
};

/// Judges what is in the database against what the producer sent.
inline void judge(Count& count, const std::vector<Resent>& stream, long distinct_paid) {
    std::map<std::string, std::int64_t> due;
    for (const auto& [order_id, cents] : stream) {
        due.emplace(order_id, cents);
    }
    for (const auto& [order_id, cents] : due) {
        count.cents_due += cents;
    }
    count.lost = static_cast<long>(due.size()) - distinct_paid;
    count.doubled = count.charges - distinct_paid;
}

inline void print_header() {
    std::printf("%-28s %9s %8s %8s %5s %8s %5s %7s %14s\n",
                "",
                "delivered",
                "handled",
                "replayed",
                "kills",
                "charges",
                "lost",
                "doubled",
                "cents off");
}
inline int print_verdict(const Count& idem, std::size_t distinct) {
    std::printf(
        "\nidem: %ld charges for %zu distinct messages, lost %ld, doubled %ld, sum of cents "
        "%s\n",
        idem.charges,
        distinct,
        idem.lost,
        idem.doubled,
        idem.cents == idem.cents_due ? "exact" : "WRONG");
    return idem.right() && idem.charges == static_cast<long>(distinct) ? 0 : 1;
}
inline void print_row(const char* what, const Count& count) {
    std::printf("%-28s %9ld %8ld %8ld %5d %8ld %5ld %7ld %14ld\n",
                what,
                count.delivered,
                count.handled,
                count.replayed,
                count.kills,
                count.charges,
                count.lost,
                count.doubled,
                static_cast<long>(count.cents - count.cents_due));
    std::fflush(stdout);
}

struct DemoArguments {
    std::size_t messages = 10'000;
    std::uint64_t seed = std::random_device{}();
    std::optional<int> exit_code{}; ///< set: say no more, exit
};

inline DemoArguments demo_arguments(const std::vector<std::string>& words, const char* usage) {
    DemoArguments asked;
    for (std::size_t i = 0; i < words.size(); i += 2) {
        const bool known = words[i] == "--messages" || words[i] == "--seed";
        if (!known || i + 1 == words.size()) {
            const bool help = words[i] == "--help";
            std::fputs(usage, help ? stdout : stderr);
            asked.exit_code = help ? 0 : 2;
            break;
        }
        (words[i] == "--seed" ? asked.seed : asked.messages) = std::stoul(words[i + 1]);
    }
    return asked;
}

#endif // EXAMPLES_DEMO_HPP
