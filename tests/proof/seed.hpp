// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_SEED_HPP
#define IDEM_TESTS_PROOF_SEED_HPP

// Where a proof's chances come from, so that a run can be had again.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <vector>

namespace idem::proof {

/// Of IDEM_SEED, else a new one. Printed.
class Seed {
public:
    explicit Seed(const std::string& of) {
        const char* given = std::getenv("IDEM_SEED");
        const std::uint64_t seed =
            given == nullptr ? std::random_device{}() : std::strtoull(given, nullptr, 10);
        std::cout << of << ": IDEM_SEED=" << seed << std::endl;
        engine_.seed(seed);
    }
    /// From 0 to `limit` - 1.
    std::size_t below(std::size_t limit) {
        return std::uniform_int_distribution<std::size_t>(0, limit - 1)(engine_);
    }
    template <class T>
    void shuffle(std::vector<T>& all) {
        std::shuffle(all.begin(), all.end(), engine_);
    }

private:
    std::mt19937_64 engine_;
};

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_SEED_HPP
