// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_KAFKA_FAULTS_HPP
#define IDEM_TESTS_PROOF_KAFKA_FAULTS_HPP

// What happens to the members of a group while they work: kills, comings and goings of a guest, and
// a broker that is killed, each when so much is done.

#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>
#include <iostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "proof/member.hpp"
#include "proof/seed.hpp"
#include "support/kafka_server.hpp"

namespace idem::proof {

struct KafkaFaultPlan {
    unsigned kills = 3;  ///< of each of the two members
    unsigned visits = 3; ///< of the guest: it joins, and leaves
    bool broker = true;
    std::vector<int> freezes{}; ///< signals by which a member stops itself in mid-work
};

/// When a frozen member is woken.
struct Thaw {
    std::function<void()> frozen{};   ///< told: it is now
    std::function<bool()> may_wake{}; ///< asked: others went on with what it had
};

/// One fault is over before the next begins. Concurrency: one thread.
class KafkaFaults {
    using Clock = std::chrono::steady_clock;
    enum class What { kill_first, kill_second, visit, leave, broker, freeze };
    struct Fault {
        What what;
        std::size_t at; ///< so much is done
        int signal = 0;
    };

public:
    /// The members are started, the guest is not.
    KafkaFaults(testing_support::KafkaServer& server,
                Member& first,
                Member& second,
                Member& guest,
                const KafkaFaultPlan& plan,
                std::size_t total,
                Seed& seed)
        : server_(server)
        , first_(first)
        , second_(second)
        , guest_(guest)
        , total_(total) {
        std::vector<Fault> kinds;
        for (unsigned i = 0; i < plan.kills; ++i) {
            kinds.push_back({What::kill_first, 0});
            kinds.push_back({What::kill_second, 0});
        }
        for (unsigned i = 0; i < plan.visits; ++i) { // which is which is decided by their order
            kinds.push_back({What::visit, 0});
            kinds.push_back({What::leave, 0});
        }
        for (const int signal : plan.freezes) {
            kinds.push_back({What::freeze, 0, signal});
        }
        if (plan.broker) {
            kinds.push_back({What::broker, 0});
        }
        do {
            seed.shuffle(kinds);
        } while (freezes_late(kinds));
        step_ = total * 9 / 10 / (kinds.size() + 1); // the rest is without
        bool there = false;
        for (std::size_t i = 0; i < kinds.size(); ++i) {
            auto& fault = kinds[i];
            fault.at = step_ / 2 + i * step_ + seed.below(step_);
            if (fault.what == What::visit || fault.what == What::leave) {
                fault.what = there ? What::leave : What::visit;
                there = !there;
            }
        }
        faults_ = std::move(kinds);
    }
    void when_frozen(Thaw thaw) { thaw_ = std::move(thaw); }

    [[nodiscard]] bool over() const noexcept { return next_ == faults_.size() && !busy(); }
    /// Those that froze inside of what they were asked to.
    [[nodiscard]] const std::vector<std::string>& frozen() const noexcept { return frozen_; }

    void say(std::size_t done, const std::string& what) const {
        const auto time = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - began_);
        std::cout << "  " << time.count() << " s, " << done << " of " << total_ << ": " << what
                  << std::endl;
    }

    /// To be called often. `done`: how much is, `busiest`: who did the last of it.
    void turn(std::size_t done, const std::string& busiest) {
        for (Member* member : {&first_, &second_, &guest_}) {
            member->require_running();
        }
        if (broker_) {
            await_broker(done);
        } else if (freezing_ != nullptr) {
            await_freeze(done);
        } else if (next_ < faults_.size() && done >= faults_[next_].at &&
                   (done >= ended_at_ + step_ / 4 || done >= total_)) {
            ended_at_ = done;
            begin(faults_[next_++], done, busiest);
        }
    }

private:
    /// It is to have enough to do when it freezes.
    [[nodiscard]] static bool freezes_late(const std::vector<Fault>& faults) {
        bool late = false;
        for (std::size_t i = faults.size() * 2 / 3; i < faults.size(); ++i) {
            late = late || faults[i].what == What::freeze;
        }
        return late;
    }
    [[nodiscard]] bool busy() const noexcept { return broker_ || freezing_ != nullptr; }
    void begin(const Fault& fault, std::size_t done, const std::string& busiest) {
        switch (fault.what) {
        case What::kill_first:
            return kill(first_, done);
        case What::kill_second:
            return kill(second_, done);
        case What::visit:
            say(done, "a third joins");
            return guest_.start();
        case What::leave:
            say(done, "the third leaves");
            return guest_.end();
        case What::broker:
            say(done, "the broker is killed");
            server_.kill();
            server_.launch();
            broker_ = true;
            until_ = Clock::now() + std::chrono::minutes(3);
            done_then_ = done;
            return;
        case What::freeze:
            freezing_ = &first_;
            for (Member* member : {&second_, &guest_}) {
                freezing_ =
                    busiest == member->incarnation() && member->is_there() ? member : freezing_;
            }
            say(done, freezing_->incarnation() + " is to stop in mid-work");
            freezing_->signal(fault.signal);
            until_ = Clock::now() + std::chrono::minutes(3);
            done_then_ = done;
        }
    }
    void kill(Member& member, std::size_t done) {
        say(done, member.incarnation() + " is killed");
        member.kill();
        member.start();
    }
    /// The members went on by themselves.
    void await_broker(std::size_t done) {
        if (done >= total_ || done >= done_then_ + total_ / 50) {
            broker_ = false;
            ended_at_ = done;
            say(done, "they go on");
        } else if (Clock::now() > until_) {
            throw std::runtime_error("no member goes on after the broker's restart");
        }
    }
    void await_freeze(std::size_t done) {
        Member& member = *freezing_;
        if (!is_frozen_ && member.is_stopped()) {
            is_frozen_ = true;
            frozen_.push_back(member.incarnation());
            say(done, member.incarnation() + " has stopped");
            thaw_.frozen();
        } else if (is_frozen_ && thaw_.may_wake()) {
            say(done, "others went on with what it had; it is woken");
            member.signal(SIGCONT);
            is_frozen_ = false;
            freezing_ = nullptr;
            ended_at_ = done;
        } else if (!is_frozen_ && (done >= total_ || done > done_then_ + total_ / 8)) {
            kill(member, done); // it has nothing to do; the signal goes with it
            freezing_ = nullptr;
            ended_at_ = done;
            next_ -= done < total_ ? 1 : 0; // whoever is busiest then
        } else if (Clock::now() > until_) {
            throw std::runtime_error(is_frozen_ ? "nobody goes on with what a frozen member had"
                                                : "the member does not stop in mid-work");
        }
    }

    testing_support::KafkaServer& server_;
    Member &first_, &second_, &guest_;
    const std::size_t total_;
    const Clock::time_point began_ = Clock::now();
    std::vector<Fault> faults_;
    std::size_t next_ = 0, step_ = 0, ended_at_ = 0;
    Thaw thaw_{};
    bool broker_ = false;
    Member* freezing_ = nullptr;
    bool is_frozen_ = false;
    Clock::time_point until_{};
    std::size_t done_then_ = 0;
    std::vector<std::string> frozen_;
};

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_KAFKA_FAULTS_HPP
