// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_PROOF_KAFKA_WORKER_HPP
#define IDEM_TESTS_PROOF_KAFKA_WORKER_HPP

// What a member of a KafkaSite is told.

#include <idem/broker/kafka_options.hpp>
#include <idem/error.hpp>

#include <cstddef>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "proof/numbered.hpp"
#include "proof/worker_main.hpp"
#include "support/kafka_server.hpp"

namespace idem::proof {

/// Design, servers, group, input, where to write to, name of the member, name of this incarnation.
struct KafkaWorker {
    explicit KafkaWorker(const std::vector<std::string>& words)
        : design(words.at(0))
        , servers(words.at(1))
        , group(words.at(2))
        , input(words.at(3))
        , place(words.at(4))
        , id(words.at(5))
        , name(words.at(6)) {}
    /// The group soon gives up a member that is gone.
    [[nodiscard]] KafkaOptions source() const {
        KafkaOptions options{.servers = servers, .group = group, .topics = {input}};
        options.settings = testing_support::kafka_client_settings();
        options.settings.emplace_back("session.timeout.ms", "2500");
        options.settings.emplace_back("heartbeat.interval.ms", "250");
        options.settings.emplace_back("fetch.wait.max.ms", "20");
        return options;
    }

    std::string design, servers, group, input, place, id, name;
};

/// How a handler begins. Throws: Unprocessable where there is no number; for some, the first time
/// in this process, what makes them come again.
class Temper {
public:
    void begin(std::string_view payload) {
        const auto number = number_of(payload);
        if (!number) {
            throw Unprocessable("no number");
        }
        if (*number % 3'000 == 1'700 && failed_.insert(*number).second) {
            throw std::runtime_error("the first call fails");
        }
    }

private:
    std::set<std::size_t> failed_; // one handler at a time
};

} // namespace idem::proof

#endif // IDEM_TESTS_PROOF_KAFKA_WORKER_HPP
