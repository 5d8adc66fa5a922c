// SPDX-License-Identifier: MIT
// The pool that the stores over a connection share.

#include <idem/detail/connection_pool.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <sys/wait.h>
#include <thread>
#include <vector>

namespace idem::detail {

struct Counts {
    std::atomic<int> made{0}, open{0}, most_open{0};
    bool refuses = false;
};

struct FakeConnection {
    explicit FakeConnection(Counts& counts) : counts_(&counts), number(++counts.made) {
        const int open = ++counts.open;
        for (int most = counts.most_open;
             open > most && !counts.most_open.compare_exchange_weak(most, open);) {
        }
    }
    FakeConnection(FakeConnection&& other) noexcept
        : counts_(std::exchange(other.counts_, nullptr))
        , number(other.number)
        , broken(other.broken) {}
    FakeConnection(const FakeConnection&) = delete;
    FakeConnection& operator=(FakeConnection&&) = delete;
    FakeConnection& operator=(const FakeConnection&) = delete;
    ~FakeConnection() {
        if (counts_ != nullptr) {
            --counts_->open;
        }
    }
    [[nodiscard]] bool usable() const noexcept { return !broken; }

private:
    Counts* counts_;

public:
    int number;
    bool broken = false;
};

struct FakeFactory {
    Counts* counts;
    FakeConnection operator()(std::chrono::steady_clock::time_point) const {
        if (counts->refuses) {
            throw StoreError(Fault::unavailable, "nobody listens");
        }
        return FakeConnection(*counts);
    }
};

class Pool : public ::testing::Test {
protected:
    Counts counts_;
    ConnectionPool<FakeFactory> pool_{{&counts_}, 2, milliseconds{20}, "Options::connections"};
};

TEST_F(Pool, lends_the_connection_used_last_and_makes_none_before_it_must) {
    EXPECT_EQ(counts_.made, 0);
    for (int i = 0; i < 3; ++i) {
        auto one = pool_.take();
        EXPECT_EQ(one->number, 1);
    }
    auto one = pool_.take();
    auto two = pool_.take();
    EXPECT_EQ(two->number, 2);
    EXPECT_EQ(pool_.lent(), 2U);
}

TEST_F(Pool, waits_no_longer_than_the_deadline_and_names_the_option) {
    auto one = pool_.take();
    auto two = pool_.take();
    try {
        static_cast<void>(pool_.take());
        ADD_FAILURE() << "a third one was lent";
    } catch (const StoreError& error) {
        EXPECT_EQ(error.fault(), Fault::unavailable);
        EXPECT_NE(std::string(error.what()).find("2 of Options::connections"), std::string::npos);
    }
}

TEST_F(Pool, one_who_waits_gets_what_is_given_back) {
    ConnectionPool<FakeFactory> patient({&counts_}, 1, milliseconds{60'000}, "x");
    std::optional one(patient.take());
    std::jthread waiting([&] { EXPECT_EQ(patient.take()->number, 1); });
    one.reset();
}

TEST_F(Pool, a_broken_connection_is_closed_and_never_lent_again) {
    {
        auto one = pool_.take();
        one->broken = true;
    }
    EXPECT_EQ(counts_.open, 0);
    EXPECT_EQ(pool_.lent(), 0U);
    EXPECT_EQ(pool_.take()->number, 2);
}

TEST_F(Pool, a_factory_that_throws_takes_no_place) {
    counts_.refuses = true;
    for (int i = 0; i < 5; ++i) {
        EXPECT_THROW(static_cast<void>(pool_.take()), StoreError);
    }
    counts_.refuses = false;
    auto one = pool_.take();
    auto two = pool_.take();
    EXPECT_EQ(pool_.lent(), 2U);
}

TEST_F(Pool, never_more_are_open_than_it_has_places) {
    ConnectionPool<FakeFactory> busy({&counts_}, 3, milliseconds{60'000}, "x");
    {
        std::vector<std::jthread> threads;
        threads.reserve(8);
        for (int thread = 0; thread < 8; ++thread) {
            threads.emplace_back([&, thread] {
                for (int i = 0; i < 500; ++i) {
                    auto one = busy.take();
                    one->broken = (i + thread) % 7 == 0;
                }
            });
        }
    }
    EXPECT_LE(counts_.most_open, 3);
    EXPECT_EQ(busy.lent(), 0U);
}

TEST_F(Pool, a_child_of_fork_is_refused) {
    auto one = pool_.take();
    const pid_t child = ::fork();
    if (child == 0) {
        try {
            static_cast<void>(pool_.take());
        } catch (const std::logic_error&) {
            ::_exit(0);
        } catch (...) {
        }
        ::_exit(1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

TEST_F(Pool, no_place_at_all_is_refused_by_name) {
    EXPECT_THROW(ConnectionPool<FakeFactory>({&counts_}, 0, milliseconds{1}, "x"),
                 std::invalid_argument);
}

} // namespace idem::detail
