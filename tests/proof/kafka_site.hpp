// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_KAFKA_SITE_HPP
#define IDEM_TESTS_PROOF_KAFKA_SITE_HPP

// An input, the members of a group that work it off, and what happens to them.

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "proof/kafka_faults.hpp"
#include "proof/kafka_input.hpp"
#include "proof/member.hpp"
#include "proof/seed.hpp"
#include "support/temporary_directory.hpp"

namespace idem::proof {

/// Concurrency: one thread.
class KafkaSite {
public:
    KafkaSite(KafkaServer& server,
              const std::string& design,
              std::size_t count,
              const KafkaFaultPlan& plan,
              int partitions = 4)
        : server_(server)
        , design_(design)
        , seed_(design)
        , input_(server, design + "-in", partitions, count, seed_)
        , group_(server, design, input_.topic(), input_.numbers().size())
        , faults_(server, first_, second_, guest_, plan, count, seed_) {}

    /// Two members of the program IDEM_TEST_WORKER, and at times a third, write to `place`. When it
    /// returns, all is done as far as the group's offsets say, and each has left the group.
    template <class Output>
    void work(const std::string& place, Output& output) {
        place_ = place;
        faults_.when_frozen(
            {.frozen = [&] { output.mark(); },
             .may_wake = [&] { return output.went_on_without(faults_.frozen().back()); }});
        first_.start();
        second_.start();
        const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(5);
        while (output.distinct() < input_.count() || !faults_.over() ||
               group_.committed() != input_.ends()) {
            input_.write_ahead_of(output.distinct());
            output.read();
            faults_.turn(output.distinct(), output.last_writer());
            if (std::chrono::steady_clock::now() > until) {
                FAIL() << output.distinct() << " of " << input_.count() << " are there\n" << said();
            }
        }
        for (Member* member : {&first_, &second_, &guest_}) {
            if (member->is_there()) {
                member->end();
            }
        }
        faults_.say(output.distinct(), "all are gone");
        output.read();
        EXPECT_EQ(group_.members(), 0) << "each left the group";
        EXPECT_EQ(group_.committed(), input_.ends());
    }
    [[nodiscard]] const std::string& design() const noexcept { return design_; }
    [[nodiscard]] const KafkaInput& input() const noexcept { return input_; }
    [[nodiscard]] const KafkaGroup& group() const noexcept { return group_; }
    [[nodiscard]] const std::vector<std::string>& frozen() const noexcept {
        return faults_.frozen();
    }
    /// What the members printed.
    [[nodiscard]] std::string said() const {
        return first_.said() + second_.said() + guest_.said();
    }

private:
    Member member(const std::string& name) {
        return {name,
                [this, name](const std::string& incarnation) {
                    return std::vector<std::string>{IDEM_TEST_WORKER,
                                                    design_,
                                                    server_.address(),
                                                    group_.name(),
                                                    input_.topic(),
                                                    place_,
                                                    design_ + '-' + name,
                                                    incarnation};
                },
                directory_.path()};
    }

    KafkaServer& server_;
    std::string design_, place_;
    Seed seed_;
    testing_support::TemporaryDirectory directory_;
    KafkaInput input_;
    KafkaGroup group_;
    Member first_ = member("first"), second_ = member("second"), guest_ = member("guest");
    KafkaFaults faults_;
};

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_KAFKA_SITE_HPP
