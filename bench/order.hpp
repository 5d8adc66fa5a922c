// SPDX-License-Identifier: MIT
#ifndef IDEM_BENCH_ORDER_HPP
#define IDEM_BENCH_ORDER_HPP

// The message of all benchmarks, and the row that handling it writes.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace idem::bench {

struct Order {
    std::string id;
    int customer;
    std::string amount, note;
};

/// An order with an id of its own, of 36 characters in no order, as a random UUID's.
[[nodiscard]] inline Order order_number(std::uint64_t number) {
    auto mixed = [](std::uint64_t value) { // the finalizer of SplitMix64: no two have one image
        value = (value ^ value >> 30U) * 0xbf58476d1ce4e5b9U;
        value = (value ^ value >> 27U) * 0x94d049bb133111ebU;
        return value ^ value >> 31U;
    };
    constexpr std::uint64_t golden = 0x9e3779b97f4a7c15U;
    const std::uint64_t words[] = {mixed(number + golden), mixed(number + 2 * golden)};
    std::string id(36, '-');
    unsigned digit = 0;
    for (std::size_t at = 0; at < id.size(); ++at) {
        if (at != 8 && at != 13 && at != 18 && at != 23) {
            id[at] = "0123456789abcdef"[words[digit / 16] >> digit % 16 * 4 & 15U];
            ++digit;
        }
    }
    return {std::move(id), static_cast<int>(number % 10'000), "42.50", "two books and a lamp"};
}

/// The next one that no thread had before.
[[nodiscard]] inline Order fresh_order() {
    static std::atomic<std::uint64_t> next{0};
    return order_number(next.fetch_add(1, std::memory_order_relaxed));
}
[[nodiscard]] inline std::vector<Order> fresh_orders(std::size_t count) {
    std::vector<Order> orders;
    orders.reserve(count);
    while (orders.size() < count) {
        orders.push_back(fresh_order());
    }
    return orders;
}

} // namespace idem::bench

#endif // IDEM_BENCH_ORDER_HPP
