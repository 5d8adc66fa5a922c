// SPDX-License-Identifier: MIT
// The settlement table of semantics.md §7, as a RabbitMQ server shows it, of both kinds of queue.

#include <idem/broker/rabbitmq.hpp>
#include <idem/testing/source_contract.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include "support/needs.hpp"
#include "support/rabbitmq_server.hpp"
#include "support/tcp_proxy.hpp"

namespace {

using idem::testing_support::RabbitServer;
using idem::testing_support::RabbitSession;
using idem::testing_support::TcpProxy;

/// Its own, for take_away() cuts the links to it.
RabbitServer& server() {
    static RabbitServer own({.own = true});
    return own;
}

std::string fresh() {
    static int made = 0;
    return "orders " + std::to_string(::getpid()) + ' ' + std::to_string(++made);
}

template <bool quorum>
class RabbitBroker {
public:
    using Source = idem::RabbitSource;
    static constexpr bool keeps_order = false;
    static std::string missing() {
        auto why = RabbitServer::missing_program();
        if (!why.empty() && idem::testing_support::servers_required()) {
            ADD_FAILURE() << why;
        }
        return why;
    }

    RabbitBroker() {
        using Arguments = idem::testing_support::RabbitArguments;
        session_.declare(queue_, quorum ? Arguments{{"x-queue-type", "quorum"}} : Arguments{});
    }
    void publish(const std::string& id, const std::string& payload) {
        session_.publish(queue_, {.body = payload, .message_id = id});
    }
    [[nodiscard]] std::unique_ptr<Source> source() const {
        return std::make_unique<Source>(RabbitServer::address_at(proxy_.port()),
                                        idem::RabbitOptions{.queue = queue_});
    }
    /// What a dead consumer had becomes ready again a moment after its connection is gone.
    std::size_t unsettled() {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (session_.consumers(queue_) > 0 && std::chrono::steady_clock::now() < until) {
        }
        std::size_t count = session_.ready(queue_);
        for (const auto delay : idem::detail::rabbit_retry_delays) {
            const auto waiting = queue_ + ".idem-retry-" + std::to_string(delay);
            if (RabbitSession::has(address_, waiting)) {
                count += session_.ready(waiting);
            }
        }
        return count;
    }
    std::vector<idem::testing::DeadLetter> dead_letters() {
        std::vector<idem::testing::DeadLetter> letters;
        if (RabbitSession::has(address_, queue_ + ".dead")) {
            for (auto& letter : session_.drain(queue_ + ".dead")) {
                letters.push_back({letter.body, letter.headers});
            }
        }
        return letters;
    }
    /// Its connection breaks, and it has noticed.
    void take_away(Source& source) {
        proxy_.cut();
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (std::chrono::steady_clock::now() < until) {
            try {
                source.receive(idem::milliseconds{0}, 0);
            } catch (const idem::StoreError& lost) {
                EXPECT_EQ(lost.fault(), idem::Fault::unavailable) << lost.what();
                return;
            }
        }
        ADD_FAILURE() << "the source does not notice";
    }

private:
    std::string address_ = server().address(), queue_ = fresh();
    TcpProxy proxy_{server().port()};
    RabbitSession session_{address_};
};

} // namespace

namespace idem::inline v0::testing {
INSTANTIATE_TYPED_TEST_SUITE_P(ClassicQueue, SourceContract, RabbitBroker<false>);
INSTANTIATE_TYPED_TEST_SUITE_P(QuorumQueue, SourceContract, RabbitBroker<true>);
} // namespace idem::inline v0::testing
