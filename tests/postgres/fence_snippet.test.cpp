// SPDX-License-Identifier: MIT
// The README's fence in the user's own SQL: the text there is the text here, and a late owner's
// write changes nothing.

#include <idem/consumer.hpp>
#include <idem/store/postgres.hpp>
#include <idem/strategy/distributed_lock.hpp>

#include <algorithm>
#include <fstream>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/natural.hpp"
#include "postgres_test.hpp"

namespace idem::postgres_test {

struct Order {
    std::string id;
};

/// Prints labels, slowly: `meanwhile` runs before the first is there.
class Carrier {
public:
    std::string label_for(const Order& order, const std::string& key) {
        keys_.push_back(key);
        auto label = "label " + std::to_string(keys_.size()) + " of " + order.id;
        if (keys_.size() == 1) {
            meanwhile();
        }
        return label;
    }
    [[nodiscard]] const std::vector<std::string>& keys() const { return keys_; }

    std::function<void()> meanwhile = [] {};

private:
    std::vector<std::string> keys_;
};

/// The handler borrows all it is given.
template <class Consumer>
auto shipping(const Consumer& consumer,
              Carrier& carrier,
              Database& database,
              const char* const& fenced) {
    // clang-format off
    // README
    auto ship = consumer.wrap("shipping", &Order::id, [&](const Order& order, idem::Lease& lease) {
        const auto label = carrier.label_for(order, lease.derived_key("label")); // may outlast the lease
        const auto written =
            database.execute(fenced, {order.id, label, std::to_string(lease.fence())});
        if (written.affected == 0) { // somebody with a greater fence was here
            throw std::runtime_error("overtaken by a newer owner");
        }
    });
    // README
    // clang-format on
    return ship;
}

/// The lines of `file` from behind the first that is `from` up to the next that is `to`, without
/// `indent` spaces in front.
std::string lines(const std::string& file,
                  const std::string& from,
                  const std::string& to,
                  std::size_t indent = 0) {
    std::ifstream text(file);
    std::string found;
    bool inside = false;
    for (std::string line; std::getline(text, line);) {
        if (inside && line == to) {
            return found;
        }
        if (inside) {
            found += line.substr(std::min(indent, line.size())) + '\n';
        }
        inside = inside || line == from;
    }
    throw std::runtime_error("no such lines in " + file);
}

std::string readme_sql() {
    return lines(IDEM_README, "```sql", "```");
}

class FenceSnippet : public PostgresTest {
protected:
    void SetUp() override {
        PostgresTest::SetUp();
        if (!IsSkipped() && !HasFatalFailure()) {
            outside().run("CREATE TABLE shipment (order_id text PRIMARY KEY, label text, "
                          "fence bigint NOT NULL)");
            outside().run("INSERT INTO shipment VALUES ('order-7', NULL, 0), ('order-8', NULL, 0)");
        }
    }
    std::string shipped(const std::string& what) {
        return outside().run("SELECT " + what + " FROM shipment WHERE order_id = 'order-7'");
    }
};

TEST(FenceSnippetText, is_the_readmes_letter_for_letter) {
    std::ifstream text(IDEM_README);
    std::stringstream readme;
    readme << text.rdbuf();
    const auto snippet = lines(IDEM_SNIPPET, "    // README", "    // README", 4);
    ASSERT_FALSE(snippet.empty());
    EXPECT_NE(readme.str().find("```cpp\n" + snippet + "```\n"), std::string::npos)
        << "README has no block:\n"
        << snippet;
    EXPECT_NE(readme_sql().find("AND fence <= $"), std::string::npos);
}

TEST_F(FenceSnippet, r4_3_an_older_fence_changes_no_row_and_an_equal_or_greater_one_does) {
    Database database(conninfo());
    const auto sql = readme_sql();
    const struct {
        const char* fence;
        std::uint64_t affected;
    } writes[] = {{"7", 1}, {"7", 1}, {"6", 0}, {"8", 1}, {"7", 0}, {"8", 1}};
    int number = 0;
    for (const auto& write : writes) {
        const auto label = std::to_string(++number);
        EXPECT_EQ(database.execute(sql.c_str(), {"order-7", label, write.fence}).affected,
                  write.affected)
            << "write " << number;
        EXPECT_EQ(shipped("label") == label, write.affected == 1) << "write " << number;
    }
    EXPECT_EQ(outside().number("SELECT count(*) FROM shipment WHERE label IS NULL"), 1)
        << "the other order is as it was";
}

TEST_F(FenceSnippet, r4_3_a_late_owner_does_not_undo_what_the_newer_one_wrote) {
    const ConsumerOptions soon_given_up{.max_handler_time = milliseconds{100}};
    const DistributedLock brief{.lease = milliseconds{2'000}};
    PostgresStore other_store(conninfo());
    const IdempotentConsumer late{store(), brief, soon_given_up};
    const IdempotentConsumer newer{other_store, brief, soon_given_up};
    Carrier carrier;
    Database database(conninfo());
    const auto text = readme_sql();
    const char* const sql = text.c_str();
    const Order order{"order-7"};
    const auto late_ship = shipping(late, carrier, database, sql);
    const auto newer_ship = shipping(newer, carrier, database, sql);
    bool overtaken = false;
    carrier.meanwhile = [&] { // until the lease of the first has run out, by the server's clock
        overtaken =
            eventually([&] { return newer_ship.handle(order).status() == Status::executed; });
    };

    const auto outcome = late_ship.handle(order);
    ASSERT_TRUE(overtaken);
    EXPECT_EQ(carrier.keys().size(), 2U);
    EXPECT_EQ(carrier.keys().front(), carrier.keys().back()) << "the carrier sees one request";
    EXPECT_EQ(outcome.settlement().action, Action::retry);
    EXPECT_EQ(shipped("label"), "label 2 of order-7");
    const auto fence = store().find({"shipping", "order-7"})->fence;
    EXPECT_EQ(shipped("fence"), std::to_string(fence)) << "the newer owner's";
    EXPECT_EQ(late_ship.handle(order).settlement().action, Action::ack) << "its redelivery";
    EXPECT_EQ(carrier.keys().size(), 2U);
}

} // namespace idem::postgres_test
