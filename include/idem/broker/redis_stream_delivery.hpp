// SPDX-License-Identifier: MIT
#ifndef IDEM_BROKER_REDIS_STREAM_DELIVERY_HPP
#define IDEM_BROKER_REDIS_STREAM_DELIVERY_HPP

// An entry of a Redis stream, as a consumer group delivered it.

#include <idem/broker/delivery.hpp>
#include <idem/outcome.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idem::inline v0 {

/// Owns the entry's fields. Lives no longer than the source that gave it.
/// Concurrency: read by any thread, also while the source extends it.
class RedisStreamDelivery {
public:
    /// The value of the payload field.
    [[nodiscard]] std::string_view payload() const noexcept {
        return header(*payload_field_).value_or(std::string_view{});
    }
    /// The first field of that name. Any bytes.
    [[nodiscard]] std::optional<std::string_view> header(std::string_view name) const noexcept {
        for (std::size_t at = 0; at < fields(); ++at) {
            if (field(at).first == name) {
                return field(at).second;
            }
        }
        return {};
    }
    [[nodiscard]] std::size_t fields() const noexcept { return ends_.size() / 2; }
    /// Name and value, in the entry's order.
    [[nodiscard]] std::pair<std::string_view, std::string_view>
    field(std::size_t at) const noexcept {
        return {part(2 * at), part(2 * at + 1)};
    }

    /// The id is that of the field header::key, else header::message_id, else empty. Borrows from
    /// this. It has no position: a stream promises no order to a group.
    [[nodiscard]] Identity identity() const {
        const auto given = header(header::key);
        const auto id = given ? given : header(header::message_id);
        const auto body = payload();
        return {.id = Id(id.value_or(std::string_view{})),
                .fingerprint = body.empty() ? Fingerprint{} : fingerprint_of(body),
                .created = detail::created_of(header(header::created)),
                .redelivered = redelivered()};
    }
    /// stream/entry-id: what delivery_position takes for an id.
    [[nodiscard]] std::string position() const { return *stream_ + '/' + entry_id_; }
    [[nodiscard]] const std::string& entry_id() const noexcept { return entry_id_; }
    /// How often the group gave it to somebody, from 1.
    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
    [[nodiscard]] bool redelivered() const noexcept { return count_ > 1; }

    /// A payload field that is missing or empty, and an entry that was trimmed while it was
    /// pending, have a dead letter for settlement: no handler can take them.
    [[nodiscard]] std::optional<Settlement> defect() const {
        const auto letter = [this](std::string_view reason, const std::string& what) {
            return Settlement{Action::dead_letter,
                              milliseconds{0},
                              reason,
                              "idem: entry " + position() + what,
                              static_cast<unsigned>(count_)};
        };
        if (ends_.empty()) {
            return letter(reason::trimmed, " was trimmed from the stream before it was acked");
        }
        if (payload_field_->empty()) {
            return {};
        }
        const auto body = header(*payload_field_);
        if (!body) {
            return letter(reason::undecodable, " has no field " + *payload_field_);
        }
        if (body->empty()) {
            return letter(reason::undecodable, " has an empty field " + *payload_field_);
        }
        return {};
    }

private:
    friend class RedisStreamSource;
    RedisStreamDelivery(const std::string& stream,
                        const std::string& payload_field,
                        std::string_view entry_id,
                        std::uint64_t count)
        : stream_(&stream)
        , payload_field_(&payload_field)
        , entry_id_(entry_id)
        , count_(count) {}

    void add(std::string_view name_or_value) {
        bytes_ += name_or_value;
        ends_.push_back(bytes_.size());
    }
    [[nodiscard]] std::string_view part(std::size_t at) const noexcept {
        const std::size_t begin = at == 0 ? 0 : ends_[at - 1];
        return std::string_view(bytes_).substr(begin, ends_[at] - begin);
    }

    const std::string* stream_;
    const std::string* payload_field_;
    std::string entry_id_;
    std::string bytes_;             // names and values, one after the other
    std::vector<std::size_t> ends_; // of each in bytes_; none: trimmed
    std::uint64_t count_;
    std::uint64_t turn_ = 0;     // which assignment of the entry to us
    bool dead_lettered_ = false; // by the take-over that found it trimmed
};

static_assert(KeyedDelivery<RedisStreamDelivery>);

} // namespace idem::inline v0

#endif // IDEM_BROKER_REDIS_STREAM_DELIVERY_HPP
