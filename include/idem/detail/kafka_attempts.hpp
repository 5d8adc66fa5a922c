// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_ATTEMPTS_HPP
#define IDEM_DETAIL_KAFKA_ATTEMPTS_HPP

// Failed attempts of messages, counted in memory: Kafka keeps none.

#include <idem/key.hpp>

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace idem::inline v0::detail {

/// Concurrency: any thread.
class KafkaAttempts {
public:
    void add(const Position& position) {
        const std::lock_guard guard(mutex_);
        ++failed_[{std::string(position.partition), position.offset}];
    }
    [[nodiscard]] unsigned of(const Position& position) const {
        const std::lock_guard guard(mutex_);
        if (failed_.empty()) { // nearly always
            return 0;
        }
        const auto found = failed_.find({std::string(position.partition), position.offset});
        return found == failed_.end() ? 0 : found->second;
    }
    /// All before `next` are over.
    void forget(const std::string& partition, std::uint64_t next) {
        const std::lock_guard guard(mutex_);
        failed_.erase(failed_.lower_bound({partition, 0}), failed_.lower_bound({partition, next}));
    }

private:
    mutable std::mutex mutex_;
    std::map<std::pair<std::string, std::uint64_t>, unsigned> failed_;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_ATTEMPTS_HPP
