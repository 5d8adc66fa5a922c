// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_RABBITMQ_STAGE_HPP
#define IDEM_TESTS_PROOF_RABBITMQ_STAGE_HPP

// A queue, a database of effects, and workers between the two, each behind a proxy of its own.

#include <idem/broker/rabbitmq_forwarding.hpp>
#include <idem/store/postgres.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "proof/member.hpp"
#include "proof/rabbitmq_messages.hpp"
#include "support/postgres_server.hpp"
#include "support/rabbitmq_server.hpp"
#include "support/tcp_proxy.hpp"
#include "support/temporary_directory.hpp"

namespace idem::proof {

using testing_support::PostgresSession;
using testing_support::RabbitLetter;
using testing_support::RabbitServer;
using testing_support::RabbitSession;
using testing_support::TcpProxy;

/// A worker and the link that it reaches the broker by.
struct RabbitWorker {
    std::unique_ptr<TcpProxy> link;
    Member member;
};

class RabbitStage {
public:
    RabbitStage(RabbitServer& server, RabbitMessages messages)
        : messages_(std::move(messages))
        , server_(server)
        , conninfo_(testing_support::shared_postgres().create_database())
        , database_(conninfo_) {
        database_.run("CREATE TABLE effect (id text NOT NULL, payload text NOT NULL,"
                      " worker text NOT NULL)"); // no key: a double shows
        PostgresStore(conninfo_).migrate();
        connect();
        broker_->declare(queue_, {{"x-queue-type", "quorum"}});
    }

    /// `shape`: handlers at a time, messages of a batch.
    void add_worker(const std::string& design,
                    const std::string& name,
                    std::pair<std::size_t, std::size_t> shape) {
        auto link = std::make_unique<TcpProxy>(server_.port());
        const auto address = RabbitServer::address_at(link->port());
        Member member(
            name,
            [this, design, shape, address](const std::string& incarnation) {
                return std::vector<std::string>{IDEM_TEST_WORKER,
                                                design,
                                                address,
                                                queue_,
                                                conninfo_,
                                                std::to_string(shape.first),
                                                std::to_string(shape.second),
                                                trace(),
                                                incarnation};
            },
            directory_.path());
        workers_.push_back({std::move(link), std::move(member)});
        workers_.back().member.start();
    }
    [[nodiscard]] std::vector<RabbitWorker>& workers() noexcept { return workers_; }
    [[nodiscard]] const RabbitMessages& messages() const noexcept { return messages_; }
    [[nodiscard]] std::string trace() const { return (directory_ / "trace").string(); }
    [[nodiscard]] RabbitServer& server() noexcept { return server_; }

    // ---- the producer ---------------------------------------------------------------------------
    /// No more than so many in all, until it is called again.
    void produce_at_most(std::size_t all) { most_ = std::min(all, messages_.letters.size()); }
    [[nodiscard]] std::size_t produced() const noexcept { return produced_; }
    [[nodiscard]] bool has_more() const noexcept { return produced_ < most_; }
    /// The next `count`, confirmed. What the broker did not confirm is sent again, all of it, as it
    /// answers so while a quorum queue has no leader yet.
    void produce(std::size_t count) {
        const auto from = messages_.letters.begin() + static_cast<std::ptrdiff_t>(produced_);
        count = std::min(count, most_ - produced_);
        const std::vector<RabbitLetter> next(from, from + static_cast<std::ptrdiff_t>(count));
        const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(2);
        for (;;) {
            try {
                broker_->publish(queue_, next);
                break;
            } catch (const std::runtime_error&) {
                if (std::chrono::steady_clock::now() > until) {
                    throw;
                }
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
                connect();
                ++unconfirmed_;
            }
        }
        produced_ += count;
    }
    /// How often some of it was sent again for want of a confirm.
    [[nodiscard]] unsigned unconfirmed() const noexcept { return unconfirmed_; }
    void produce_all() {
        while (has_more()) {
            produce(500);
        }
    }
    /// Anew, after the broker's restart.
    void connect() { broker_.emplace(server_.address()); }

    // ---- what is seen on the servers ------------------------------------------------------------
    PostgresSession& database() noexcept { return database_; }
    std::size_t effects() { return count("SELECT count(*) FROM effect"); }
    /// By any incarnation of that worker.
    std::size_t effects_of(const Member& worker) {
        return count("SELECT count(*) FROM effect WHERE worker LIKE '" + worker.name() + ".%'");
    }
    std::size_t count(const std::string& query) {
        return static_cast<std::size_t>(database_.number(query));
    }
    std::size_t doubles() { return effects() - count("SELECT count(DISTINCT id) FROM effect"); }
    /// Good ones without an effect.
    std::size_t lost() {
        return messages_.good.size() - count("SELECT count(DISTINCT id) FROM effect");
    }
    unsigned ready() { return broker_->ready(queue_); }
    unsigned consumers() { return broker_->consumers(queue_); }
    /// In the retry queues.
    unsigned waiting() {
        unsigned all = 0;
        for (const auto delay : detail::rabbit_retry_delays) {
            const auto name = queue_ + ".idem-retry-" + std::to_string(delay);
            if (RabbitSession::has(server_.address(), name)) {
                all += broker_->ready(name);
            }
        }
        return all;
    }
    [[nodiscard]] const std::string& queue() const noexcept { return queue_; }
    std::vector<RabbitLetter> dead_letters() {
        const auto name = queue_ + ".dead";
        return RabbitSession::has(server_.address(), name) ? broker_->drain(name)
                                                           : std::vector<RabbitLetter>();
    }

    /// Until it holds, as seen on the servers. Throws after minutes without it, or where a worker
    /// ends by itself. The producer goes on meanwhile.
    void await(const std::string& what, const std::function<bool()>& holds) {
        const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(5);
        while (!holds()) {
            for (auto& worker : workers_) {
                worker.member.require_running();
            }
            if (std::chrono::steady_clock::now() > until) {
                throw std::runtime_error("never: " + what + "; " + std::to_string(effects()) +
                                         " effects, " + std::to_string(ready()) + " ready; " +
                                         workers_.front().member.said());
            }
            if (has_more()) {
                produce(500);
            } else {
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            }
        }
    }
    void await_effects(std::size_t count) {
        await(std::to_string(count) + " effects", [&] { return effects() >= count; });
    }
    /// Until nothing is left: neither ready, nor in a retry queue, nor unacked (for nobody consumes
    /// any more). What a worker gives back at its end is left to the next round. How many it took.
    unsigned finish() {
        for (unsigned rounds = 1;; ++rounds) {
            await("an empty queue", [&] { return ready() == 0 && waiting() == 0; });
            for (auto& worker : workers_) {
                worker.member.end();
            }
            await("that its consumers are gone", [&] { return consumers() == 0; });
            if (ready() == 0 && waiting() == 0) {
                return rounds;
            }
            if (rounds == 20) {
                throw std::runtime_error("something stays in the queue");
            }
            for (auto& worker : workers_) {
                worker.member.start();
            }
        }
    }

private:
    static int& made() {
        static int count = 0;
        return count;
    }

    RabbitMessages messages_;
    RabbitServer& server_;
    testing_support::TemporaryDirectory directory_;
    std::string conninfo_, queue_ = "charges " + std::to_string(++made());
    PostgresSession database_;
    std::optional<RabbitSession> broker_;
    std::size_t produced_ = 0, most_ = messages_.letters.size();
    unsigned unconfirmed_ = 0;
    std::vector<RabbitWorker> workers_;
};

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_RABBITMQ_STAGE_HPP
