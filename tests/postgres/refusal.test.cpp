// SPDX-License-Identifier: MIT
// What is wrong with options, connection string, schema and rights: each refused with what to do.

#include <idem/consumer.hpp>
#include <idem/strategy/dedup_table.hpp>

#include <thread>
#include <vector>

#include "postgres_test.hpp"

namespace idem::postgres_test {

/// Without a table of records.
class PostgresRefusal : public PostgresTest {
protected:
    void SetUp() override {
        PostgresTest::SetUp();
        if (!IsSkipped() && !HasFatalFailure()) {
            outside().run("DROP TABLE idem_record");
            outside().run("DROP SEQUENCE idem_record_fence");
        }
    }
    /// What begin and claim say.
    static std::optional<StoreError> refusal(PostgresStore& store) {
        return thrown<StoreError>([&] {
            auto tx = store.begin();
            static_cast<void>(tx.claim(request()));
        });
    }
    static void expect(const std::optional<StoreError>& error, Fault fault, std::string_view text) {
        ASSERT_TRUE(error);
        EXPECT_EQ(error->fault(), fault) << error->what();
        EXPECT_NE(std::string(error->what()).find(text), std::string::npos) << error->what();
    }
    std::string verdict() {
        PostgresStore store(conninfo_override_.empty() ? conninfo() : conninfo_override_);
        const auto error = thrown<StoreError>([&] { store.verify(); });
        if (!error) {
            return {};
        }
        EXPECT_EQ(error->fault(), Fault::rejected);
        return error->what();
    }
    std::string conninfo_override_;
};

TEST_F(PostgresRefusal, a_missing_table_is_rejected_and_names_migrate) {
    expect(refusal(store()), Fault::rejected, "migrate()");
    const auto peeked = thrown<StoreError>([&] { static_cast<void>(store().peek(request())); });
    expect(peeked, Fault::rejected, "migrate()");
    store().record_failure(request(), "nothing to count in, and no exception");
    unsigned ran = 0;
    IdempotentConsumer consumer(store(), DedupTable{});
    auto bill = consumer.wrap(
        "billing",
        [](const std::string& id) { return id; },
        [&](const std::string&, PostgresTransaction&) { ++ran; });
    EXPECT_EQ(bill.handle("m-1", {}).settlement().action, Settlement::stop);
    EXPECT_EQ(ran, 0U);
    store().migrate();
    EXPECT_EQ(bill("m-1").status(), Status::executed);
}

TEST_F(PostgresRefusal, a_connection_string_that_is_none_is_rejected_and_shown) {
    PostgresStore wrong("hots=localhost");
    expect(refusal(wrong), Fault::rejected, "hots=localhost");
    PostgresStore option(conninfo() + " sslmode=sometimes");
    expect(refusal(option), Fault::rejected, "sslmode");
}

TEST_F(PostgresRefusal, a_password_is_never_shown) {
    for (const std::string text : {"password=geheim hots=x",
                                   "postgresql://user:geheim@/x?hots=y",
                                   "PASSWORD= 'geheim",
                                   "host=/nowhere password=geheim",
                                   "postgresql://user:geheim@localhost:1/shop"}) {
        PostgresStore store(text);
        const auto error = refusal(store);
        ASSERT_TRUE(error);
        EXPECT_EQ(std::string(error->what()).find("geheim"), std::string::npos) << error->what();
    }
}

TEST_F(PostgresRefusal, nobody_listening_is_unavailable) {
    PostgresStore nowhere("host=/nowhere user=x dbname=shop");
    expect(refusal(nowhere), Fault::unavailable, "dbname=shop");
    PostgresStore closed("host=127.0.0.1 user=x port=" +
                         std::to_string(testing_support::free_port()));
    expect(refusal(closed), Fault::unavailable, "127.0.0.1");
}

TEST_F(PostgresRefusal, a_database_or_a_role_that_does_not_exist_is_rejected) {
    PostgresStore database(shared_postgres().conninfo("no_such_database"));
    expect(refusal(database), Fault::rejected, "3D000");
    if (shared_postgres().owned()) {
        PostgresStore role(conninfo() + " user=nobody_such");
        expect(refusal(role), Fault::rejected, "28000");
    }
}

TEST_F(PostgresRefusal, a_server_without_a_connection_to_spare_is_unavailable) {
    const auto name = outside().run("SELECT current_database()");
    outside().run("CREATE ROLE limited_" + name + " LOGIN CONNECTION LIMIT 0");
    PostgresStore store(conninfo() + " user=limited_" + name);
    expect(refusal(store), Fault::unavailable, "53300");
    outside().run("DROP ROLE limited_" + name);
}

TEST_F(PostgresRefusal, r8_a_server_that_takes_no_writes_is_unavailable) {
    store().migrate();
    PostgresStore reader(conninfo() + " options='-c default_transaction_read_only=on'");
    expect(refusal(reader), Fault::unavailable, "read-only");
    PostgresStore careless(conninfo() + " target_session_attrs=any "
                                        "options='-c default_transaction_read_only=on'");
    expect(refusal(careless), Fault::unavailable, "25006");
}

TEST_F(PostgresRefusal, options_out_of_range_are_refused_by_the_constructor) {
    for (const std::string table : {"", "Idem", "a.b.c", "a.", ".a", "a\"b", "1a", "a-b", "a b"}) {
        EXPECT_THROW(PostgresStore("", {.table = table}), std::invalid_argument) << table;
        EXPECT_THROW(static_cast<void>(PostgresStore::schema_sql({.table = table})),
                     std::invalid_argument);
    }
    EXPECT_THROW(PostgresStore("", {.table = std::string(58, 'a')}), std::invalid_argument);
    EXPECT_THROW(PostgresStore("", {.connections = 0}), std::invalid_argument);
    EXPECT_THROW(PostgresStore("", {.deadline = milliseconds{0}}), std::invalid_argument);
}

TEST_F(PostgresRefusal, keys_past_the_limits_are_refused_before_anything_is_written) {
    store().migrate();
    const std::string long_id(max_id + 1, 'x'), long_scope(max_scope + 1, 'x');
    for (const Key key : {Key{"s", ""}, Key{"", "i"}, Key{"s", long_id}, Key{long_scope, "i"}}) {
        auto tx = store().begin();
        EXPECT_THROW(static_cast<void>(tx.claim({.key = key})), std::invalid_argument);
        EXPECT_THROW(static_cast<void>(store().peek({.key = key})), std::invalid_argument);
        store().record_failure({.key = key}, "failed");
    }
    EXPECT_EQ(records(), 0);
}

TEST_F(PostgresRefusal, any_number_of_instances_may_migrate_at_once) {
    std::vector<std::jthread> instances;
    instances.reserve(10);
    std::atomic<int> failed{0};
    for (int i = 0; i < 10; ++i) {
        instances.emplace_back([&] {
            try {
                PostgresStore own(conninfo());
                own.migrate();
                own.migrate();
            } catch (const std::exception& error) {
                ADD_FAILURE() << error.what();
                ++failed;
            }
        });
    }
    instances.clear();
    EXPECT_EQ(failed, 0);
    store().verify();
    handle(request());
}

TEST_F(PostgresRefusal, schema_sql_applied_by_hand_is_what_verify_wants) {
    outside().run("CREATE SCHEMA shop");
    const PostgresOptions options{.table = "shop.idem_record"};
    outside().run(PostgresStore::schema_sql(options));
    PostgresStore store(conninfo(), options);
    store.verify();
    store.migrate();
    auto tx = store.begin();
    ASSERT_TRUE(is_claimed(tx.claim(request())));
    tx.execute("SET LOCAL search_path = pg_catalog");
    tx.complete(request(), "\1x");
    tx.commit();
    EXPECT_EQ(outside().number("SELECT count(*) FROM shop.idem_record"), 1);
}

TEST_F(PostgresRefusal, a_schema_that_is_missing_is_rejected) {
    PostgresStore store(conninfo(), {.table = "shop.idem_record"});
    const auto error = thrown<StoreError>([&] { store.migrate(); });
    expect(error, Fault::rejected, "3F000");
}

TEST_F(PostgresRefusal, verify_names_all_that_is_wrong_with_the_table) {
    EXPECT_NE(verdict().find("migrate()"), std::string::npos);
    outside().run("CREATE UNLOGGED TABLE idem_record (scope bytea, id text, format smallint)");
    const auto said = verdict();
    for (const char* text : {"unlogged",
                             "id must be bytea, is text",
                             "fence must be bigint, is missing",
                             "unique index on (scope, id)",
                             "idem_record_fence is missing"}) {
        EXPECT_NE(said.find(text), std::string::npos) << text << " in " << said;
    }
}

TEST_F(PostgresRefusal, verify_wants_a_full_unique_index) {
    store().migrate();
    outside().run("ALTER TABLE idem_record DROP CONSTRAINT idem_record_pkey");
    outside().run("CREATE UNIQUE INDEX ON idem_record (scope, id) WHERE state = 2");
    outside().run("CREATE UNIQUE INDEX ON idem_record (scope, id, state)");
    EXPECT_NE(verdict().find("unique index"), std::string::npos);
    expect(refusal(store()), Fault::rejected, "42P10");
    outside().run("CREATE UNIQUE INDEX ON idem_record (id, scope)");
    store().verify();
    handle(request());
}

TEST_F(PostgresRefusal, r1_7_verify_refuses_lazy_commits_and_servers_that_take_no_writes) {
    store().migrate();
    conninfo_override_ = conninfo() + " options='-c synchronous_commit=off'";
    EXPECT_NE(verdict().find("synchronous_commit"), std::string::npos);
    conninfo_override_ = conninfo() + " options='-c default_transaction_read_only=on'";
    EXPECT_NE(verdict().find("takes no writes"), std::string::npos);
}

TEST_F(PostgresRefusal, a_role_without_rights_is_rejected_and_verify_names_them) {
    store().migrate();
    const auto role = "worker_" + outside().run("SELECT current_database()");
    outside().run("CREATE ROLE " + role + " LOGIN");
    outside().run("GRANT SELECT, INSERT ON idem_record TO " + role);
    conninfo_override_ = conninfo() + " user=" + role;
    const auto said = verdict();
    EXPECT_NE(said.find("UPDATE, DELETE"), std::string::npos) << said;
    EXPECT_NE(said.find("USAGE"), std::string::npos) << said;
    PostgresStore store(conninfo_override_);
    store.migrate(); // it is there: no right to create is needed
    outside().run("REVOKE ALL ON idem_record FROM " + role);
    expect(refusal(store), Fault::rejected, "GRANT");
    outside().run("GRANT SELECT, INSERT, UPDATE, DELETE ON idem_record TO " + role);
    outside().run("GRANT SELECT, INSERT, UPDATE ON idem_record_offset TO " + role);
    outside().run("GRANT USAGE ON SEQUENCE idem_record_fence TO " + role);
    PostgresStore granted(conninfo_override_);
    granted.verify();
    auto tx = granted.begin();
    EXPECT_TRUE(is_claimed(tx.claim(request())));
    tx.rollback();
    outside().run("DROP OWNED BY " + role);
    outside().run("DROP ROLE " + role);
}

} // namespace idem::postgres_test
