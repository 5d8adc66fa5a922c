// SPDX-License-Identifier: MIT
// What MemoryStore costs beside the best hash map at hand that holds the same record, and beside
// the map and mutex that people write; and what the library adds to the store's own calls.

#include <idem/idem.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <malloc.h>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <time.h>
#include <utility>
#include <variant>
#include <vector>

#include "memory_rivals.hpp"
#include "report.hpp"

namespace {

using namespace idem::bench;
using idem::milliseconds;
using idem::seconds;

constexpr unsigned at_once = 16;
constexpr seconds retention{1'000};

/// Calls `claim` and then `complete` on sixteen ids that nobody had before.
template <class Store>
std::uint64_t claim_and_complete(Store& store, Ids& ids) {
    typename Store::Ticket tickets[at_once];
    store.enter();
    for (auto& ticket : tickets) {
        ticket = store.claim(ids.next());
    }
    for (const auto& ticket : tickets) {
        store.complete(ticket);
    }
    return at_once;
}

/// MemoryStore as a rival of the others: fresh keys, void results.
class Ours {
public:
    using Store = idem::BasicMemoryStore<TickingClock>;
    using Ticket = Store::Ticket;
    Ours(bool compact, std::size_t live)
        : started_((TickingClock::use(time_), true))
        , store_({.max_records = 3 * live, .compact = compact})
        , requests_(at_once)
        , texts_(at_once) {}

    void enter() noexcept { TickingClock::use(time_); }
    Ticket claim(std::string_view id) {
        TickingClock::tick();
        return ticket_of(store_.claim(request(id)));
    }
    void complete(const Ticket& ticket) { require(store_.complete(ticket, {})); }

    std::uint64_t batch(Ids& ids) {
        enter();
        for (unsigned i = 0; i < at_once; ++i) {
            TickingClock::tick();
            texts_[i] = ids.next();
            requests_[i] = request(texts_[i]);
        }
        auto claims = store_.claim(std::span<const idem::ClaimRequest>(requests_));
        tickets_.clear();
        for (const auto& claim : claims) {
            tickets_.push_back(ticket_of(claim));
        }
        for (const auto state : store_.complete(std::span<const Ticket>(tickets_),
                                                std::span<const std::string>(results_))) {
            require(state);
        }
        return at_once;
    }
    Store& store() { return store_; }

private:
    static idem::ClaimRequest request(std::string_view id) {
        return {.key = {"billing", id}, .retention = retention};
    }
    static Ticket ticket_of(const idem::Claim<Ticket>& claim) {
        return std::get<idem::Claimed<Ticket>>(claim).ticket;
    }
    static void require(idem::TicketState state) {
        if (state == idem::TicketState::outdated) {
            throw std::logic_error("a ticket of a moment ago is outdated");
        }
    }

    TickingClock::rep time_ = 1'000'000'000;
    bool started_; // the clock, before the store asks it
    Store store_;
    std::vector<idem::ClaimRequest> requests_;
    std::vector<std::string> texts_;
    std::vector<Ticket> tickets_;
    std::vector<std::string> results_{at_once};
};

/// Claims and completes twice as many keys as live at a time: from then on, as many end as come.
template <class Store>
void fill(Store& store, Ids& ids, std::size_t live) {
    for (std::size_t count = 0; count < 2 * live; count += at_once) {
        claim_and_complete(store, ids);
    }
}

void row_of_live_keys(Report& report, std::size_t live, const std::string& name, bool with_naive) {
    const auto row = "claim + complete, " + name + " live keys, TTL";
    if (!report.wants(row)) {
        return;
    }
    TickingClock::set_step(std::chrono::nanoseconds(retention) / static_cast<long>(live));
    Ids ids;
    BestMap best(retention);
    Ours compact(true, live), exact(false, live), batched(true, live);
    std::optional<NaiveMap> naive;
    fill(best, ids, live);
    fill(compact, ids, live);
    fill(exact, ids, live);
    fill(batched, ids, live);
    std::vector<Variant> variants{
        {BestMap::name, [&](unsigned) { return claim_and_complete(best, ids); }},
        {"MemoryStore, compact",
         [&](unsigned) { return claim_and_complete(compact, ids); },
         time_at_most(1.4)},
        {"MemoryStore", [&](unsigned) { return claim_and_complete(exact, ids); }}};
    if (with_naive) {
        naive.emplace(retention);
        fill(*naive, ids, live);
        variants.push_back(
            {NaiveMap::name, [&](unsigned) { return claim_and_complete(*naive, ids); }});
    }
    variants.push_back({"the ids alone", [&](unsigned) {
                            for (unsigned i = 0; i < at_once; ++i) {
                                keep(ids.next().data());
                            }
                            return std::uint64_t{at_once};
                        }});
    report.run({.name = row, .variants = std::move(variants)});
    report.run(
        {.name = "the same, compact, in batches",
         .variants = {
             {"one by one", [&](unsigned) { return claim_and_complete(compact, ids); }},
             {"16 at once", [&](unsigned) { return batched.batch(ids); }, time_at_most(0.5)}}});
}

/// Bytes that the program holds of the allocator's.
double allocated() {
    const auto figures = ::mallinfo2();
    return static_cast<double>(figures.uordblks + figures.hblkhd);
}
/// Of processor, of this thread: what others do to the machine is not counted.
double thread_milliseconds() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

/// Keeps nothing: how long the machine makes one wait that does nothing.
struct NoStore {
    using Ticket = std::string_view;
    static void enter() noexcept {}
    static Ticket claim(std::string_view id) noexcept { return id; }
    static void complete(Ticket id) { keep(id.data()); }
};

/// Claims and completes so many keys, from none. Prints what one takes and the longest claims: what
/// a store does now and then shows in the 20th too, what the machine does in the longest alone.
template <class Store>
void grow(Report& report,
          Store& store,
          const std::string& name,
          std::size_t keys,
          std::optional<double> most_bytes,
          std::optional<double> longest_pause) {
    Ids ids;
    std::array<double, 20> longest{}; // the shortest of them in front
    store.enter();
    const auto before = allocated();
    for (std::size_t count = 0; count < keys; ++count) {
        const auto began = thread_milliseconds();
        store.complete(store.claim(ids.next()));
        const auto took = thread_milliseconds() - began;
        if (took > longest.front()) {
            std::ranges::pop_heap(longest, std::greater<>());
            longest.back() = took;
            std::ranges::push_heap(longest, std::greater<>());
        }
    }
    const double of_all = *std::ranges::max_element(longest);
    report.count(name + ": B/key", (allocated() - before) / static_cast<double>(keys), most_bytes);
    report.count(name + ": longest claim, ms", of_all, longest_pause);
    report.count(name + ": the 20th longest, ms", longest.front());
}

void grow_to(Report& report, std::size_t keys, const std::string& name) {
    const auto row = "growing to " + name + " keys, void results";
    if (!report.wants(row)) {
        return;
    }
    TickingClock::set_step(std::chrono::nanoseconds(1));
    std::printf("%s\n", row.c_str());
    {
        Ours compact(true, keys);
        grow(report, compact, "MemoryStore, compact", keys, 100, 1);
        report.count("MemoryStore, compact: bytes()/key",
                     static_cast<double>(compact.store().bytes()) / static_cast<double>(keys));
    }
    {
        Ours exact(false, keys);
        grow(report, exact, "MemoryStore", keys, {}, 1);
    }
    {
        BestMap best(retention);
        grow(report, best, BestMap::name, keys, {}, {});
    }
    NoStore nothing;
    grow(report, nothing, "nothing", keys, {}, {});
}

struct Message {
    std::string id;
};

/// The whole call less the bare store calls: the median of the rounds' differences.
template <class Strategy>
void row_of_whole_call(Report& report,
                       const Options& options,
                       const std::string& name,
                       const Strategy& strategy,
                       std::string_view result,
                       double at_most) {
    const auto row = "whole call, " + name;
    if (!report.wants(row)) {
        return;
    }
    constexpr std::size_t live = 10'000;
    TickingClock::set_step(std::chrono::nanoseconds(retention) / static_cast<long>(live));
    Ids ids;
    Ours bare(true, live), whole(true, live);
    fill(bare, ids, live);
    fill(whole, ids, live);
    idem::IdempotentConsumer consumer{whole.store(), strategy, {.retention = retention}};
    auto handle = consumer.wrap(
        "billing", &Message::id, [](const Message& message) { keep(message.id.data()); });
    Message message;
    auto each = [&](Ours& store, const auto& step) {
        store.enter();
        for (unsigned i = 0; i < at_once; ++i) {
            TickingClock::tick();
            message.id = ids.next();
            step();
        }
        return std::uint64_t{at_once};
    };
    const Row measured{
        .name = row,
        .variants = {{"claim + complete",
                      [&](unsigned) {
                          return each(bare, [&] {
                              const auto claim = bare.store().claim(
                                  {.key = {"billing", message.id}, .retention = retention});
                              static_cast<void>(
                                  bare.store().complete(std::get<0>(claim).ticket, result));
                          });
                      }},
                     {"call", [&](unsigned) {
                          return each(whole, [&] {
                              if (handle(message).status() != idem::Status::executed) {
                                  throw std::logic_error("not executed");
                              }
                          });
                      }}}};
    const auto series = measure(measured,
                                options.rounds,
                                std::chrono::duration<double>(options.seconds),
                                options.seed,
                                [](unsigned) {});
    std::vector<double> calls, differences;
    for (std::size_t round = 0; round < series[0].slices.size(); ++round) {
        const auto call = 1e9 / series[1].slices[round].rate;
        calls.push_back(call);
        differences.push_back(call - 1e9 / series[0].slices[round].rate);
    }
    std::printf("%s\n", row.c_str());
    report.count("the call, ns", spread_of(calls).median);
    report.count("less claim + complete, ns", spread_of(differences).median, at_most);
}

int run(const Options& options) {
    Report report(options);
    row_of_live_keys(report, 1'000'000, "1M", true);
    row_of_live_keys(report, 10'000'000, "10M", true);
    grow_to(report, 1'000'000, "1M");
    grow_to(report, 10'000'000, "10M");
    row_of_whole_call(
        report, options, "AtMostOnce", idem::AtMostOnce{}, idem::omitted_result(), 50);
    row_of_whole_call(report, options, "DistributedLock", idem::DistributedLock{}, {}, 150);
    return report.end();
}

} // namespace

int main(int argc, char** argv) {
    return bench_main(argc, argv, "MemoryStore beside maps with the same record.", {}, run);
}
