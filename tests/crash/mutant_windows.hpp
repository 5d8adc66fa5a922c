// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_CRASH_MUTANT_WINDOWS_HPP
#define IDEM_TESTS_CRASH_MUTANT_WINDOWS_HPP

// Where the mutants must fail the checker: at each step between their two commits, and nowhere
// else.

#include <gtest/gtest.h>

#include <cstddef>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "crash/enumeration.hpp"

namespace idem::crash_test {

/// `wrong` picks out the kills that the checker found fault with. For each message there must be
/// one unbroken run of them around `between`, from the commit before it to the commit after it.
template <class Wrong>
void expect_wrong_around(const Enumerated& all,
                         const std::string& between,
                         std::size_t messages,
                         const Wrong& wrong) {
    std::size_t windows = 0, steps = 0;
    bool within = false, passed = false;
    for (const auto& kill : all.kills) {
        if (wrong(kill)) {
            windows += within ? 0 : 1;
            passed = (within && passed) || kill.step == between;
            within = true;
            ++steps;
            std::cout << "wrong at " << kill.at << ", " << kill.step << ": " << kill.at_end.text()
                      << '\n';
        } else {
            EXPECT_TRUE(!within || passed) << "before " << kill.step;
            EXPECT_NE(kill.step, between) << "a kill there goes unnoticed";
            EXPECT_TRUE(kill.at_end.clean())
                << kill.at << ", " << kill.step << ": " << kill.at_end.text();
            within = false;
        }
    }
    EXPECT_EQ(windows, messages);
    EXPECT_GE(steps, messages);
    EXPECT_LT(steps, all.kills.size() / 2);
}

inline void expect_mutant_loses(const Enumerated& all, std::size_t messages) {
    expect_wrong_around(
        all, "mutant: marked", messages, [](const Killed& kill) { return kill.at_end.lost == 1; });
    EXPECT_TRUE(all.where([](const Killed& kill) { return kill.at_end.doubled > 0; }).empty());
}

inline void expect_mutant_doubles(const Enumerated& all, std::size_t messages) {
    expect_wrong_around(all, "mutant: effect made", messages, [](const Killed& kill) {
        return kill.at_end.doubled == 1;
    });
    EXPECT_TRUE(all.where([](const Killed& kill) { return kill.at_end.lost > 0; }).empty());
}

} // namespace idem::crash_test

#endif // IDEM_TESTS_CRASH_MUTANT_WINDOWS_HPP
