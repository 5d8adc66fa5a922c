// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_REDIS_STREAM_GROUP_HPP
#define IDEM_BROKER_REDIS_STREAM_GROUP_HPP

// The commands of one consumer in a group of a Redis stream.

#include <idem/broker/redis_stream_delivery.hpp>
#include <idem/broker/redis_stream_options.hpp>
#include <idem/detail/hiredis.hpp>
#include <idem/detail/redis_address.hpp>
#include <idem/detail/redis_stream_scripts.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// Concurrency: one thread.
class RedisStreamGroup {
public:
    RedisStreamGroup(RedisAddress address, RedisStreamOptions options)
        : address_(std::move(address))
        , options_(checked(std::move(options))) {}

    [[nodiscard]] const RedisStreamOptions& options() const noexcept { return options_; }
    [[nodiscard]] milliseconds look_every() const noexcept {
        constexpr milliseconds longest{5'000};
        const auto quarter = options_.claim_idle / 4;
        return quarter < longest ? quarter : longest;
    }

    /// True: for the first time, or anew since the last call. Throws: StoreError.
    bool is_new_connection() {
        connect();
        return std::exchange(is_new_, false);
    }

    /// XREADGROUP from `id`; ">": new entries, waited for at most `time`.
    RedisReply read(std::string_view id, std::size_t count, milliseconds time) {
        auto reply = read_once(id, count, time);
        const auto code = reply.value().code();
        if (code == "NOGROUP" || code == "UNBLOCKED") { // somebody deleted group or stream
            make_group();
            reply = read_once(id, count, milliseconds{0});
        }
        require(reply.value(), options_.stream);
        return reply;
    }

    RedisReply take_over(std::size_t count) {
        const auto idle = std::to_string(options_.claim_idle.count());
        const auto most = std::to_string(count);
        auto reply = call(redis_stream_take_over,
                          {options_.stream,
                           options_.dead_stream,
                           options_.group,
                           options_.consumer,
                           idle,
                           most,
                           header::reason,
                           reason::trimmed,
                           header::origin});
        const auto code = reply.value().code();
        if (code == "NOGROUP" || code == "OOM") { // there is none; or what is new can go on
            return RedisReply();
        }
        require(reply.value(), options_.stream + " or " + options_.dead_stream);
        return reply;
    }

    /// False: it is not this consumer's any more.
    bool keep(const RedisStreamDelivery& delivery) {
        return is_done(
            script(redis_stream_keep,
                   {options_.stream, options_.group, options_.consumer, delivery.entry_id(), "0"}));
    }
    /// Pending still, and as idle as makes it everybody's after `delay`.
    Settled give_back(const RedisStreamDelivery& delivery, milliseconds delay) {
        const auto idle =
            delay < options_.claim_idle ? options_.claim_idle - delay : milliseconds{0};
        const auto text = std::to_string(idle.count());
        return carried_out([&] {
            return is_done(script(redis_stream_keep,
                                  {options_.stream,
                                   options_.group,
                                   options_.consumer,
                                   delivery.entry_id(),
                                   text}))
                       ? Settled::yes
                       : Settled::lost;
        });
    }
    std::vector<Settled> acknowledge(const std::vector<std::string_view>& ids) {
        std::vector<std::string_view> arguments{options_.stream, options_.group, options_.consumer};
        arguments.insert(arguments.end(), ids.begin(), ids.end());
        std::vector<Settled> answers(ids.size(), Settled::in_doubt);
        static_cast<void>(carried_out([&] {
            const auto reply = script(redis_stream_ack, arguments);
            for (std::size_t i = 0; i < ids.size(); ++i) {
                answers[i] = reply.value()[i].integer() == 1 ? Settled::yes : Settled::lost;
            }
            return Settled::yes;
        }));
        return answers;
    }
    Settled dead_letter(const RedisStreamDelivery& delivery, const Settlement& settlement) {
        const auto attempts = std::to_string(settlement.attempts);
        std::vector<std::string_view> arguments{options_.stream,
                                                options_.dead_stream,
                                                options_.group,
                                                options_.consumer,
                                                delivery.entry_id()};
        for (std::size_t at = 0; at < delivery.fields(); ++at) {
            const auto [name, value] = delivery.field(at);
            if (!is_of_dead_letters(name)) { // a letter that was sent back and died again
                arguments.insert(arguments.end(), {name, value});
            }
        }
        arguments.insert(arguments.end(),
                         {header::reason,
                          settlement.reason,
                          header::detail,
                          settlement.detail,
                          header::attempts,
                          attempts,
                          header::origin,
                          delivery.entry_id()});
        constexpr std::size_t most = 7'900; // arguments that Lua's unpack can pass on
        return carried_out([&] {
            if (arguments.size() > most) {
                return dead_letter_in_steps(delivery, arguments);
            }
            return is_done(script(redis_stream_dead_letter, arguments)) ? Settled::yes
                                                                        : Settled::lost;
        });
    }

private:
    using Arguments = std::vector<std::string_view>;

    [[nodiscard]] Deadline within(milliseconds more) const {
        return std::chrono::steady_clock::now() + options_.deadline + more;
    }
    static bool is_of_dead_letters(std::string_view name) noexcept {
        return name == header::reason || name == header::detail || name == header::attempts ||
               name == header::origin || name == header::scope;
    }
    static bool is_done(const RedisReply& reply) { return reply.value().integer() == 1; }

    /// What broke while the answer was due may have happened: it is said, not thrown.
    template <class Step>
    static Settled carried_out(const Step& step) {
        try {
            return step();
        } catch (const StoreError& error) {
            if (error.fault() != Fault::in_doubt) {
                throw;
            }
            return Settled::in_doubt;
        }
    }

    void require(RedisValue reply, const std::string& what) {
        if (!reply.is_error()) {
            return;
        }
        const std::string where = connection_->where() + " (stream " + what + ")";
        if (reply.code() == "READONLY" || reply.code() == "MASTERDOWN") {
            connection_.reset(); // the next may lead to the new primary
        }
        throw redis_error(where, reply.text());
    }
    void make_group() {
        const auto reply = connection_->command(
            {"XGROUP", "CREATE", options_.stream, options_.group, options_.start, "MKSTREAM"},
            within(milliseconds{0}));
        if (reply.value().code() != "BUSYGROUP") { // it is there
            require(reply.value(), options_.stream);
        }
    }
    /// Confirmed, then acked: between the two another consumer may come to write it too.
    Settled dead_letter_in_steps(const RedisStreamDelivery& delivery, const Arguments& arguments) {
        if (!keep(delivery)) {
            return Settled::lost;
        }
        Arguments words{"XADD", options_.dead_stream, "*"};
        words.insert(words.end(), arguments.begin() + 5, arguments.end());
        require(connection_->command(words, within(milliseconds{0})).value(), options_.dead_stream);
        return acknowledge({delivery.entry_id()})[0];
    }
    RedisReply read_once(std::string_view id, std::size_t count, milliseconds time) {
        const auto most = std::to_string(count), block = std::to_string(time.count());
        Arguments words{"XREADGROUP", "GROUP", options_.group, options_.consumer, "COUNT", most};
        if (time > milliseconds{0}) { // BLOCK 0 would wait for ever
            words.insert(words.end(), {"BLOCK", block});
        }
        words.insert(words.end(), {"STREAMS", options_.stream, id});
        return connection_->command(words, within(time));
    }
    RedisReply call(const RedisScript& which, const Arguments& arguments) {
        connect();
        auto replies = which.run_all(
            *connection_,
            1,
            [&](std::size_t) -> const Arguments& { return arguments; },
            within(milliseconds{0}));
        return std::move(replies[0]);
    }
    /// An answer of nothing where the group is gone: then nothing is pending for us.
    RedisReply script(const RedisScript& which, const Arguments& arguments) {
        auto reply = call(which, arguments);
        if (reply.value().code() == "NOGROUP") {
            return RedisReply();
        }
        require(reply.value(), options_.stream + " or " + options_.dead_stream);
        return reply;
    }
    void connect() {
        if (!connection_ || !connection_->usable()) {
            connection_.reset();
            connection_.emplace(address_, within(milliseconds{0}));
            is_new_ = true;
        }
    }

    RedisAddress address_;
    RedisStreamOptions options_;
    std::optional<RedisConnection> connection_;
    bool is_new_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_BROKER_REDIS_STREAM_GROUP_HPP
