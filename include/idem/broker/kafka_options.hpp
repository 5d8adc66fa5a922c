// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_KAFKA_OPTIONS_HPP
#define IDEM_BROKER_KAFKA_OPTIONS_HPP

// Which topics and group, how patient, and what librdkafka is told beside it.

#include <idem/broker/offset_keeper.hpp>
#include <idem/detail/kafka_client.hpp>
#include <idem/error.hpp>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace idem::inline v0 {

/// What happens to what a consumer has when another joins or leaves the group. All members of a
/// group must agree; a change takes a stop of all.
enum class KafkaRebalance {
    eager,      ///< everything is given back and assigned anew (range, roundrobin)
    cooperative ///< only what moves is given back (cooperative-sticky)
};

/// Where a partition starts of which the group has no offset, or one that is gone.
enum class KafkaStart { earliest, latest, refuse };

struct KafkaOptions {
    std::string servers; ///< host:port,host:port; of librdkafka: bootstrap.servers
    std::string group;
    /// One that begins with ^ is a pattern, a POSIX extended regular expression. It takes in topics
    /// that are made later, within topic.metadata.refresh.interval.ms (5 minutes), and leaves out
    /// Kafka's own and dead letters: dead_letter_topic, or else all that end in ".dead".
    std::vector<std::string> topics;
    std::string dead_letter_topic{}; ///< default: that of the message + ".dead"
    std::string topic_epoch{};       ///< to be changed when a topic is made anew
    KafkaRebalance rebalance = KafkaRebalance::eager;
    KafkaStart start = KafkaStart::earliest;
    bool ordered = true;         ///< false: messages of one partition are handled at the same time
    std::size_t count = 500;     ///< messages per receive(time), at most
    std::size_t window = 10'000; ///< of a partition: from the lowest unfinished on
    std::size_t commit_count = 500;          ///< finished in a partition: its offset is committed
    milliseconds commit_interval{1'000};     ///< the longest wait of what is finished
    milliseconds max_poll_interval{300'000}; ///< without receive(): the group takes all away
    milliseconds deadline{10'000};           ///< of a dead letter, a commit at the end, a query
    OffsetKeeper* offsets = nullptr;         ///< borrowed; who keeps offsets beside the broker
    std::vector<KafkaSetting> settings{};    ///< of librdkafka: security, timeouts, fetch sizes …
};

namespace detail {

/// What the source decides by itself, and where the user says it instead; null: nowhere.
struct KafkaOwnSetting {
    std::string_view name;
    const char* option;
};
inline constexpr KafkaOwnSetting kafka_own_settings[] = {
    {"bootstrap.servers", "servers"},
    {"metadata.broker.list", "servers"},
    {"group.id", "group"},
    {"partition.assignment.strategy", "rebalance"},
    {"auto.offset.reset", "start"},
    {"max.poll.interval.ms", "max_poll_interval"},
    {"enable.auto.commit", nullptr},
    {"auto.commit.enable", nullptr},
    {"auto.commit.interval.ms", "commit_interval"},
    {"enable.auto.offset.store", nullptr},
    {"offset.store.method", nullptr},
    {"enable.partition.eof", nullptr},
    {"enable.idempotence", nullptr},
    {"transactional.id", nullptr},
    {"transaction.timeout.ms", nullptr},
    {"message.timeout.ms", "deadline"},
    {"delivery.timeout.ms", "deadline"},
    {"acks", nullptr},
    {"request.required.acks", nullptr},
};

[[nodiscard]] inline bool is_kafka_pattern(std::string_view topic) noexcept {
    return topic.starts_with('^');
}
/// What librdkafka is to be told never to match: dead letters would come back for ever, each time
/// as those of a new topic. In its form, a list of patterns; empty: no pattern is asked for.
[[nodiscard]] inline std::string kafka_unmatched(const KafkaOptions& options) {
    if (std::none_of(options.topics.begin(), options.topics.end(), is_kafka_pattern)) {
        return {};
    }
    std::string unmatched;
    for (const auto& [name, value] : options.settings) {
        if (name == "topic.blacklist" && !value.empty()) {
            unmatched = value + ',';
        }
    }
    unmatched += "^__consumer_offsets$,^__transaction_state$,";
    if (options.dead_letter_topic.empty()) {
        return unmatched + "[.]dead$";
    }
    unmatched += '^';
    for (const char each :
         options.dead_letter_topic) { // of a name's characters one means something
        unmatched += each == '.' ? std::string("[.]") : std::string(1, each);
    }
    unmatched += '$';
    return unmatched;
}
/// Throws: std::invalid_argument in librdkafka's words.
inline void require_kafka_pattern(const std::string& pattern) {
    if (pattern.find(',') == std::string::npos) { // else a list of them; subscribe refuses it later
        KafkaConfig().set("topic.blacklist", pattern);
    }
}

/// Throws: std::invalid_argument naming what is wrong with the topics.
inline void require_kafka_topics(const KafkaOptions& options) {
    const auto refuse = [](const std::string& problem) {
        throw std::invalid_argument("idem: KafkaOptions." + problem);
    };
    if (options.topics.empty()) {
        refuse("topics is empty");
    }
    const bool leaves_out = options.dead_letter_topic.empty() && !kafka_unmatched(options).empty();
    for (auto topic = options.topics.begin(); topic != options.topics.end(); ++topic) {
        if (topic->empty()) {
            refuse("topics has an empty name");
        }
        if (*topic == options.dead_letter_topic) {
            refuse("dead_letter_topic is one of topics: " + *topic);
        }
        for (auto other = options.topics.begin(); other != topic; ++other) {
            if (*other == *topic) {
                refuse("topics has " + *topic + " twice");
            }
        }
        if (is_kafka_pattern(*topic)) {
            try {
                require_kafka_pattern(*topic);
            } catch (const std::invalid_argument& error) {
                refuse("topics has a pattern that is none: " + std::string(error.what()));
            }
        } else if (leaves_out && topic->ends_with(".dead")) {
            refuse("topics has " + *topic +
                   " beside a pattern, which leaves out what ends in .dead; take two sources, or "
                   "say dead_letter_topic");
        }
    }
}

/// Throws: std::invalid_argument naming the field, or the setting.
inline KafkaOptions checked(KafkaOptions options) {
    const auto refuse = [](const std::string& problem) {
        throw std::invalid_argument("idem: KafkaOptions." + problem);
    };
    if (options.servers.empty()) {
        refuse("servers is empty; host:port of a broker is needed");
    }
    if (options.group.empty()) {
        refuse("group is empty");
    }
    require_kafka_topics(options);
    if (options.offsets != nullptr && !options.ordered) {
        refuse(
            "ordered is false, but offsets keeps one offset of a partition: what a later message "
            "passed would never be handled");
    }
    if (options.count == 0 || options.window == 0 || options.commit_count == 0) {
        refuse("count, window and commit_count must be at least 1");
    }
    if (options.commit_interval < milliseconds{1} || options.deadline < milliseconds{1}) {
        refuse("commit_interval and deadline must be at least 1 ms");
    }
    for (const auto& [name, value] : options.settings) {
        for (const auto& own : kafka_own_settings) {
            if (own.name == name) {
                refuse("settings has " + name + ", which the source decides" +
                       (own.option == nullptr
                            ? std::string()
                            : "; say it by KafkaOptions." + std::string(own.option)));
            }
        }
    }
    return options;
}

inline KafkaConfig kafka_consumer_config(const KafkaOptions& options) {
    KafkaConfig config;
    config.set(options.settings);
    config.set("bootstrap.servers", options.servers);
    config.set("group.id", options.group);
    if (const auto unmatched = kafka_unmatched(options); !unmatched.empty()) {
        config.set("topic.blacklist", unmatched);
    }
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    config.set("max.poll.interval.ms", std::to_string(options.max_poll_interval.count()));
    config.set("partition.assignment.strategy",
               options.rebalance == KafkaRebalance::cooperative ? "cooperative-sticky"
                                                                : "range,roundrobin");
    const bool refuses = options.offsets != nullptr || options.start == KafkaStart::refuse;
    config.set("auto.offset.reset",
               refuses ? "error" : (options.start == KafkaStart::latest ? "latest" : "earliest"));
    return config;
}

/// What a producer beside the consumer takes over of its settings: how to reach the cluster.
inline KafkaConfig kafka_producer_config(const KafkaOptions& options) {
    constexpr std::string_view shared[] = {"security.",
                                           "sasl.",
                                           "ssl.",
                                           "enable.ssl",
                                           "enable.sasl",
                                           "socket.",
                                           "broker.",
                                           "metadata.",
                                           "topic.metadata",
                                           "reconnect.",
                                           "retry.backoff",
                                           "client.",
                                           "connections.",
                                           "api.version",
                                           "log",
                                           "debug",
                                           "plugin.",
                                           "message.max.bytes",
                                           "compression"};
    KafkaConfig config;
    for (const auto& [name, value] : options.settings) {
        for (const auto prefix : shared) {
            if (name.starts_with(prefix)) {
                config.set(name, value);
                break;
            }
        }
    }
    config.set("bootstrap.servers", options.servers);
    return config;
}

} // namespace detail

} // namespace idem::inline v0

#endif // IDEM_BROKER_KAFKA_OPTIONS_HPP
