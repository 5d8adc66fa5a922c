// SPDX-License-Identifier: MIT
// The settlement table of semantics.md §7, as a Redis server shows it.
#include <idem/testing/source_contract.hpp>

#include <memory>

#include "redis_group.hpp"

namespace {

using namespace idem::broker_tests;

class RedisStreamBroker {
public:
    using Source = idem::RedisStreamSource;
    static constexpr bool keeps_order = false;
    static std::string missing() {
        const auto why = RedisServer::missing();
        if (!why.empty() && idem::testing_support::servers_required()) {
            ADD_FAILURE() << why;
        }
        return why;
    }

    void publish(const std::string& id, const std::string& payload) {
        group_.add({"message-id", id, "payload", payload});
    }
    [[nodiscard]] std::unique_ptr<Source> source() const {
        return std::make_unique<Source>(group_.address, group_.options("only"));
    }
    /// Pending, and not read yet.
    std::size_t unsettled() {
        std::size_t count = group_.pending().size();
        const auto groups = group_.redis.run({"XINFO", "GROUPS", group_.stream});
        std::string last = "0-0";
        for (std::size_t at = 0; at + 1 < groups.value()[0].size(); at += 2) {
            if (groups.value()[0][at].text() == "last-delivered-id") {
                last = groups.value()[0][at + 1].text();
            }
        }
        return count + group_.redis.run({"XRANGE", group_.stream, "(" + last, "+"}).value().size();
    }
    std::vector<idem::testing::DeadLetter> dead_letters() {
        std::vector<idem::testing::DeadLetter> letters;
        for (auto& fields : group_.dead()) {
            letters.push_back({fields["payload"], fields});
        }
        return letters;
    }
    void take_away(Source&) {
        for (const auto& entry : group_.pending()) {
            group_.redis.run({"XCLAIM", group_.stream, group_.group, "thief", "0", entry.id});
        }
        // Where the test looks for what is left, "only" may take it back.
    }

private:
    Group group_;
};

} // namespace

namespace idem::inline v0::testing {
INSTANTIATE_TYPED_TEST_SUITE_P(RedisStream, SourceContract, RedisStreamBroker);
} // namespace idem::inline v0::testing
