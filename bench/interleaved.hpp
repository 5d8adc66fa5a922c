// SPDX-License-Identifier: MIT
#ifndef IDEM_BENCH_INTERLEAVED_HPP
#define IDEM_BENCH_INTERLEAVED_HPP

// Several ways of doing one piece of work, measured in turn, round by round, so that whatever else
// the machine does falls on all of them alike. What counts is their ratio within a round.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <latch>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <utility>
#include <vector>

namespace idem::bench {

/// Of the ratio to the first variant.
struct Target {
    enum class Kind {
        time, ///< of one operation: not above the bound
        rate, ///< operations per second: not below the bound
    };
    Kind kind;
    double bound;

    [[nodiscard]] bool reached_by(double ratio) const noexcept {
        return kind == Kind::time ? ratio <= bound : ratio >= bound;
    }
};
[[nodiscard]] inline Target time_at_most(double bound) {
    return {Target::Kind::time, bound};
}
[[nodiscard]] inline Target rate_at_least(double bound) {
    return {Target::Kind::rate, bound};
}

/// One way of doing the work.
struct Variant {
    std::string name;
    /// Called over and over by each thread, with its number; returns how many operations it did.
    std::function<std::uint64_t(unsigned thread)> step;
    std::optional<Target> target{};
    std::function<void()> prepare{}; ///< before each slice, in no time: what it is to consume
};

/// What is compared: the first variant is the measure of the others.
struct Row {
    std::string name;
    unsigned threads = 1;
    std::vector<Variant> variants;
    std::function<double()> server_seconds{}; ///< of processor, until now; where there is a server
};

/// One variant in one round.
struct Slice {
    double rate = 0;           ///< operations per second, of all threads
    double client_seconds = 0; ///< of processor, of this process, for one operation
    double server_seconds = 0; ///< the same of the server's
    std::uint64_t operations = 0;
};

/// Lower quartile, median, upper quartile.
struct Spread {
    double low = 0, median = 0, high = 0;
};
[[nodiscard]] inline Spread spread_of(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    auto at = [&](double part) {
        const double place = part * static_cast<double>(values.size() - 1);
        const auto below = static_cast<std::size_t>(place);
        const auto above = std::min(below + 1, values.size() - 1);
        return std::lerp(values[below], values[above], place - static_cast<double>(below));
    };
    return values.empty() ? Spread{} : Spread{at(0.25), at(0.5), at(0.75)};
}

/// All slices of one variant. Slice n of each variant of a row belongs to round n.
struct Series {
    std::vector<Slice> slices;
    std::uint64_t operations = 0; ///< warm-up included: what must have had its effect

    [[nodiscard]] double median(double Slice::*figure) const {
        std::vector<double> values;
        for (const auto& slice : slices) {
            values.push_back(slice.*figure);
        }
        return spread_of(std::move(values)).median;
    }
    [[nodiscard]] Spread ratio_to(const Series& first, Target::Kind kind) const {
        std::vector<double> ratios;
        for (std::size_t round = 0; round < slices.size(); ++round) {
            const double ours = slices[round].rate, theirs = first.slices[round].rate;
            ratios.push_back(kind == Target::Kind::time ? theirs / ours : ours / theirs);
        }
        return spread_of(std::move(ratios));
    }
};

/// Of processor, of this process until now.
[[nodiscard]] inline double client_seconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// A variant of `row` by all its threads, each for `length`; a step under way is finished.
/// Throws: what a step throws.
[[nodiscard]] inline Slice
run_slice(const Row& row, const Variant& variant, std::chrono::duration<double> length) {
    using Clock = std::chrono::steady_clock;
    if (variant.prepare) {
        variant.prepare();
    }
    Slice slice;
    std::exception_ptr failure;
    std::mutex mutex;
    std::latch start(row.threads);
    auto work = [&](unsigned thread) {
        std::uint64_t operations = 0;
        std::exception_ptr thrown;
        start.arrive_and_wait();
        const auto began = Clock::now();
        auto now = began;
        try {
            while (now - began < length) {
                operations += variant.step(thread);
                now = Clock::now();
            }
        } catch (...) {
            thrown = std::current_exception();
        }
        const std::lock_guard lock(mutex);
        slice.operations += operations;
        slice.rate +=
            static_cast<double>(operations) / std::chrono::duration<double>(now - began).count();
        failure = failure ? failure : thrown;
    };
    const double server_before = row.server_seconds ? row.server_seconds() : 0;
    const double client_before = client_seconds();
    {
        std::vector<std::jthread> others;
        for (unsigned thread = 1; thread < row.threads; ++thread) {
            others.emplace_back(work, thread);
        }
        work(0);
    }
    const double client_after = client_seconds();
    if (failure) {
        std::rethrow_exception(failure);
    }
    const auto operations = static_cast<double>(std::max<std::uint64_t>(slice.operations, 1));
    slice.client_seconds = (client_after - client_before) / operations;
    if (row.server_seconds) {
        slice.server_seconds = (row.server_seconds() - server_before) / operations;
    }
    return slice;
}

/// A round that does not count, then `rounds` of them; in each the order of the variants is another.
/// `progress` is called before each round.
[[nodiscard]] inline std::vector<Series> measure(const Row& row,
                                                 unsigned rounds,
                                                 std::chrono::duration<double> length,
                                                 std::uint64_t seed,
                                                 const std::function<void(unsigned)>& progress) {
    std::mt19937_64 random(seed);
    std::vector<Series> series(row.variants.size());
    std::vector<std::size_t> order(row.variants.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (unsigned round = 0; round <= rounds; ++round) {
        progress(round);
        std::shuffle(order.begin(), order.end(), random);
        for (const auto at : order) {
            const auto slice = run_slice(row, row.variants[at], length);
            series[at].operations += slice.operations;
            if (round > 0) {
                series[at].slices.push_back(slice);
            }
        }
    }
    return series;
}

} // namespace idem::bench

#endif // IDEM_BENCH_INTERLEAVED_HPP
