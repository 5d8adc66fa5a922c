// SPDX-License-Identifier: MIT
#ifndef IDEM_TESTS_SUPPORT_KAFKA_SERVER_HPP
#define IDEM_TESTS_SUPPORT_KAFKA_SERVER_HPP

// A Kafka server of the test's own: one node on two free loopback ports, gone when the test is.

#include <idem/detail/kafka_client.hpp>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "child_process.hpp"
#include "temporary_directory.hpp"

namespace idem::testing_support {

struct KafkaUser {
    std::string name, password;
};

struct KafkaServerOptions {
    std::vector<KafkaSetting> settings{}; ///< of server.properties, over those below
    /// None: everybody may do everything. Else clients say who they are (SASL, PLAIN, no TLS), and
    /// may do what the server was told to allow(); the first of them may do everything.
    std::vector<KafkaUser> users{};
};

/// What a client says of itself.
inline std::vector<KafkaSetting> kafka_credentials(const KafkaUser& user) {
    return {{"security.protocol", "SASL_PLAINTEXT"},
            {"sasl.mechanism", "PLAIN"},
            {"sasl.username", user.name},
            {"sasl.password", user.password}};
}

/// Quick to come back after an outage, and to give up a member that is gone.
inline std::vector<KafkaSetting> kafka_client_settings() {
    return {{"reconnect.backoff.ms", "20"},
            {"reconnect.backoff.max.ms", "100"},
            {"retry.backoff.ms", "2"},
            {"topic.metadata.refresh.fast.interval.ms", "50"},
            {"log_level", "0"}};
}

/// Concurrency: one thread, that which made it: the server does not outlive it.
class KafkaServer {
public:
    using Options = KafkaServerOptions;

    /// Why there can be no server here; empty where there can.
    static std::string missing() {
        if (!std::filesystem::exists(jars() / "kafka_2.13-3.9.2.jar")) {
            return "Kafka is not in " + jars().string() + "; run tests/support/kafka/fetch";
        }
        return std::system("java -version >/dev/null 2>&1") == 0 // NOLINT(concurrency-mt-unsafe)
                   ? std::string()
                   : "java is not on PATH (on Debian: apt-get install default-jre-headless)";
    }
    static std::filesystem::path jars() {
        const auto variable = [](const char* name) {
            const char* value = std::getenv(name);
            return std::filesystem::path(value == nullptr ? "" : value);
        };
        if (auto given = variable("IDEM_KAFKA"); !given.empty()) {
            return given;
        }
        const auto cache = variable("XDG_CACHE_HOME");
        return (cache.empty() ? variable("HOME") / ".cache" : cache) / "idem" / "kafka-3.9.2";
    }

    explicit KafkaServer(Options options = {}) : options_(std::move(options)) {
        for (int tries = 3;; --tries) { // somebody may take a port before the server does
            choose_ports();
            try {
                start();
                return;
            } catch (const std::runtime_error&) {
                process_.reset();
                if (tries == 1) {
                    throw;
                }
            }
        }
    }
    KafkaServer(const KafkaServer&) = delete;
    KafkaServer& operator=(const KafkaServer&) = delete;

    /// bootstrap.servers
    [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
    [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
    [[nodiscard]] std::filesystem::path log() const { return directory_ / "kafka.log"; }

    /// As a crash does.
    void kill() {
        server().kill(SIGCONT);
        server().kill(SIGKILL);
        if (!server().wait(std::chrono::seconds(30))) {
            throw std::runtime_error("Kafka does not die");
        }
        process_.reset();
    }
    /// Ready, transactions too, when it returns.
    void start() {
        launch();
        wait_until_ready();
    }
    /// Not ready yet when it returns.
    void launch() {
        ChildOptions options;
        options.output = log();
        process_.emplace(java({"-Xms64m", "-Xmx256m", "-Xshare:auto", "-Djava.awt.headless=true"},
                              {"kafka.Kafka", properties()}),
                         options);
    }
    void wait_until_ready() {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(120);
        auto config = client();
        config.set("transactional.id", "readiness");
        config.set("transaction.timeout.ms", "10000");
        const auto probe = std::move(config).make(RD_KAFKA_PRODUCER);
        while (!answers(probe.get())) {
            require_running(until);
        }
        for (;;) { // the coordinator of transactions comes about a second later
            const detail::KafkaError error(rd_kafka_init_transactions(probe.get(), 1'000));
            if (!error) {
                return;
            }
            if (rd_kafka_error_is_retriable(error.get()) == 0) {
                throw std::runtime_error(std::string("Kafka's transactions do not start: ") +
                                         rd_kafka_error_string(error.get()));
            }
            require_running(until);
        }
    }
    void restart() {
        kill();
        start();
    }
    /// It keeps its connections and answers nothing, as a machine that hangs.
    void pause() { server().kill(SIGSTOP); }
    void resume() { server().kill(SIGCONT); }

    /// The settings of a client of this server, for what a test does beside the library.
    [[nodiscard]] detail::KafkaConfig client() const {
        detail::KafkaConfig config;
        config.set(kafka_client_settings());
        config.set("bootstrap.servers", address());
        if (!options_.users.empty()) {
            config.set(kafka_credentials(options_.users.front()));
        }
        return config;
    }
    /// From its next start on.
    void set_users(std::vector<KafkaUser> users) {
        options_.users = std::move(users);
        write_properties();
    }
    /// Made when it returns.
    void create_topic(const std::string& name,
                      int partitions = 1,
                      const std::vector<KafkaSetting>& settings = {}) {
        char problem[512];
        auto* topic = rd_kafka_NewTopic_new(name.c_str(), partitions, 1, problem, sizeof problem);
        if (topic == nullptr) {
            throw std::invalid_argument(problem);
        }
        for (const auto& [setting, value] : settings) {
            rd_kafka_NewTopic_set_config(topic, setting.c_str(), value.c_str());
        }
        const detail::KafkaQueue answers(rd_kafka_queue_new(admin()));
        rd_kafka_CreateTopics(admin(), &topic, 1, nullptr, answers.get());
        rd_kafka_NewTopic_destroy(topic);
        const auto answer = answer_of(answers, "topic " + name + " was not made: ");
        std::size_t count = 0;
        const auto* const* results = rd_kafka_CreateTopics_result_topics(
            rd_kafka_event_CreateTopics_result(answer.get()), &count);
        if (rd_kafka_topic_result_error(results[0]) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            throw std::runtime_error("topic " + name + " was not made: " +
                                     rd_kafka_topic_result_error_string(results[0]));
        }
        await_partitions(name, partitions);
    }
    /// Allowed when it returns. `name`: of a topic, a group …
    void allow(const std::string& user,
               rd_kafka_AclOperation_t operation,
               rd_kafka_ResourceType_t type,
               const std::string& name) {
        char problem[512];
        auto* allowed = rd_kafka_AclBinding_new(type,
                                                name.c_str(),
                                                RD_KAFKA_RESOURCE_PATTERN_LITERAL,
                                                ("User:" + user).c_str(),
                                                "*",
                                                operation,
                                                RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                                                problem,
                                                sizeof problem);
        if (allowed == nullptr) {
            throw std::invalid_argument(problem);
        }
        const detail::KafkaQueue answers(rd_kafka_queue_new(admin()));
        rd_kafka_CreateAcls(admin(), &allowed, 1, nullptr, answers.get());
        rd_kafka_AclBinding_destroy(allowed);
        const auto answer = answer_of(answers, name + " was not allowed: ");
        std::size_t count = 0;
        const auto* const* results =
            rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(answer.get()), &count);
        if (const auto* error = rd_kafka_acl_result_error(results[0])) {
            throw std::runtime_error(name + " was not allowed: " + rd_kafka_error_string(error));
        }
    }

private:
    using Words = std::vector<std::string>;

    rd_kafka_t* admin() {
        if (!admin_) {
            admin_ = client().make(RD_KAFKA_PRODUCER);
        }
        return admin_.get();
    }
    static detail::KafkaEvent answer_of(const detail::KafkaQueue& answers,
                                        const std::string& problem) {
        detail::KafkaEvent answer(rd_kafka_queue_poll(answers.get(), 60'000));
        if (!answer || rd_kafka_event_error(answer.get()) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            throw std::runtime_error(problem + (answer ? rd_kafka_event_error_string(answer.get())
                                                       : std::string("no answer")));
        }
        return answer;
    }

    void choose_ports() {
        port_ = free_port();
        do {
            controller_port_ = free_port();
        } while (controller_port_ == port_);
        write_properties();
        std::filesystem::remove_all(directory_ / "data");
        ChildOptions options;
        options.output = log();
        run_program(java({"-Xmx128m"},
                         {"kafka.tools.StorageTool",
                          "format",
                          "-t",
                          "MkU3OEVBNTcwNTJENDM2Qg",
                          "-c",
                          properties()}),
                    options,
                    std::chrono::seconds(120));
    }
    [[nodiscard]] std::string properties() const {
        return (directory_ / "server.properties").string();
    }
    [[nodiscard]] static Words java(const Words& jvm, const Words& arguments) {
        Words argv{"java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"};
        argv.insert(argv.end(), jvm.begin(), jvm.end());
        argv.insert(
            argv.end(),
            {"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", (jars() / "*").string()});
        argv.insert(argv.end(), arguments.begin(), arguments.end());
        return argv;
    }
    void write_properties() const {
        const auto broker = address();
        const auto controller = "127.0.0.1:" + std::to_string(controller_port_);
        std::ofstream file(properties());
        file << "process.roles=broker,controller\nnode.id=1\n"
             << "controller.quorum.voters=1@" << controller << "\nlisteners=CLIENT://" << broker
             << ",CONTROLLER://" << controller << "\nadvertised.listeners=CLIENT://" << broker
             << "\nlog.dirs=" << (directory_ / "data").string()
             << "\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:"
             << (options_.users.empty() ? "PLAINTEXT" : "SASL_PLAINTEXT") << R"(
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT
num.partitions=1
default.replication.factor=1
auto.create.topics.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
log.cleaner.enable=false
num.network.threads=2
num.io.threads=2
background.threads=2
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=100
controller.quorum.election.timeout.ms=200
controller.quorum.election.backoff.max.ms=100
)";
        if (!options_.users.empty()) {
            write_users(file);
        }
        for (const auto& [name, value] : options_.settings) {
            file << name << '=' << value << '\n';
        }
    }
    /// The node itself is the first of them, and nobody where it is the controller.
    void write_users(std::ofstream& file) const {
        const auto& first = options_.users.front();
        file << "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n"
             << "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
             << "super.users=User:" << first.name << ";User:ANONYMOUS\n"
             << "listener.name.client.plain.sasl.jaas.config="
             << "org.apache.kafka.common.security.plain.PlainLoginModule required username=\""
             << first.name << "\" password=\"" << first.password << '"';
        for (const auto& [name, password] : options_.users) {
            file << " user_" << name << "=\"" << password << '"';
        }
        file << ";\n";
    }
    static bool answers(rd_kafka_t* client) {
        const rd_kafka_metadata_t* metadata = nullptr;
        if (rd_kafka_metadata(client, 0, nullptr, &metadata, 500) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return false;
        }
        const bool has_broker = metadata->broker_cnt > 0;
        rd_kafka_metadata_destroy(metadata);
        return has_broker;
    }
    /// Until clients can see the topic with a leader for each partition.
    void await_partitions(const std::string& name, int partitions) {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        auto* topic = rd_kafka_topic_new(admin(), name.c_str(), nullptr);
        for (bool all = false; !all && std::chrono::steady_clock::now() < until;) {
            const rd_kafka_metadata_t* metadata = nullptr;
            if (rd_kafka_metadata(admin(), 0, topic, &metadata, 1'000) !=
                RD_KAFKA_RESP_ERR_NO_ERROR) {
                continue;
            }
            all = metadata->topic_cnt == 1 && metadata->topics[0].partition_cnt == partitions;
            for (int i = 0; all && i < partitions; ++i) {
                all = metadata->topics[0].partitions[i].leader >= 0;
            }
            rd_kafka_metadata_destroy(metadata);
        }
        rd_kafka_topic_destroy(topic);
    }
    void require_running(std::chrono::steady_clock::time_point until) {
        if (std::chrono::steady_clock::now() < until && server().running()) {
            return;
        }
        std::ifstream file(log());
        std::string said{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
        if (said.size() > 2'000) {
            said.erase(0, said.size() - 2'000);
        }
        throw std::runtime_error("Kafka does not start:\n" + said);
    }
    ChildProcess& server() {
        if (!process_) {
            throw std::logic_error("this Kafka server is stopped");
        }
        return *process_;
    }

    Options options_;
    TemporaryDirectory directory_;
    std::uint16_t port_ = 0, controller_port_ = 0;
    std::optional<ChildProcess> process_; // after directory_: ended before its files go
    detail::KafkaHandle admin_;
};

/// One server for all tests of a program, started by the first that asks.
inline KafkaServer& shared_kafka() {
    static KafkaServer server;
    return server;
}

} // namespace idem::testing_support

#endif // IDEM_TESTS_SUPPORT_KAFKA_SERVER_HPP
