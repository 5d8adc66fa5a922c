// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_SCOPE_HPP
#define IDEM_DETAIL_POSTGRES_SCOPE_HPP

// An open transaction of ours, or a savepoint in one that the user has open: what is sent in it,
// what is posted, and how it ends.

#include <idem/detail/nonce.hpp>
#include <idem/detail/postgres_failure.hpp>
#include <idem/detail/postgres_link.hpp>
#include <idem/detail/postgres_sql.hpp>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

class PostgresScope {
public:
    explicit PostgresScope(PostgresCore& core) : core_(core), link_(core) {}
    PostgresScope(PostgresCore& core, PGconn* users) : core_(core), link_(core, users) {}
    PostgresScope(const PostgresScope&) = delete;
    PostgresScope& operator=(const PostgresScope&) = delete;
    ~PostgresScope() { rollback(); }

    [[nodiscard]] bool owned() const noexcept { return link_.owned(); }
    [[nodiscard]] bool begun() const noexcept { return begun_; }
    [[nodiscard]] bool conflicted() const noexcept { return conflicted_; }
    [[nodiscard]] bool native_given() const noexcept { return native_given_; }
    [[nodiscard]] const std::string& nonce() const noexcept { return nonce_; }
    /// Throws: std::logic_error.
    void require_open() const {
        if (ended_) {
            throw std::logic_error("idem: the transaction has ended");
        }
    }
    [[nodiscard]] PGconn* native() noexcept {
        native_given_ = reset_session_ = true;
        return link_->native();
    }
    void set_conflicted() noexcept { conflicted_ = true; }
    void reset_session_afterwards() noexcept { reset_session_ = true; }

    /// Waits for the next leg.
    void post(PostgresStep step) { pending_.push_back(std::move(step)); }
    [[nodiscard]] bool has_posted() const noexcept {
        return std::any_of(pending_.begin(), pending_.end(), [](const auto& step) {
            return step.origin == PostgresOrigin::handler;
        });
    }
    [[nodiscard]] bool has_pending() const noexcept { return !pending_.empty(); }
    /// Nothing was sent and nothing waits: the next statement of ours may open the transaction.
    [[nodiscard]] bool fresh() const noexcept { return !begun_ && pending_.empty(); }
    /// For how long a transaction of ours may idle, as the server takes it.
    [[nodiscard]] PqParameter idle_bound() const {
        return number_parameter(core_.options().max_handler_time.count());
    }
    /// What marks a transaction of ours before somebody else may end it.
    [[nodiscard]] PostgresStep marking() const {
        return {.statement = {.sql = core_.sql().mark,
                              .parameters = {PqParameter{.value = hexadecimal(nonce_)}}}};
    }

    /// Sends the opening of the transaction, what was posted, and `steps`; returns the results of
    /// `steps`. One trip.
    /// Throws: as fail().
    std::vector<PqResult> run(PostgresSteps steps) {
        const auto count = static_cast<std::ptrdiff_t>(steps.size());
        auto leg = attempt(steps, false);
        if (!leg.ok()) {
            fail(leg, steps);
        }
        leg.results.erase(leg.results.begin(), leg.results.end() - count);
        return std::move(leg.results);
    }
    /// The same without judging; `steps` becomes all that was sent, for fail(). `bounded`: they bound
    /// the transaction's idleness themselves.
    /// Throws: std::logic_error where the handler left the connection busy, or ended the
    /// transaction.
    PqLeg attempt(PostgresSteps& steps, bool bounded) {
        require_idle();
        PostgresSteps all = opening(bounded);
        std::move(pending_.begin(), pending_.end(), std::back_inserter(all));
        std::move(steps.begin(), steps.end(), std::back_inserter(all));
        pending_.clear();
        steps = std::move(all);
        std::vector<PqStatement> statements;
        statements.reserve(steps.size());
        bool patient = false;
        for (auto& step : steps) {
            statements.push_back(std::move(step.statement));
            patient = patient || step.origin == PostgresOrigin::handler;
        }
        const auto until = PqConnection::Clock::now() +
                           (patient ? core_.options().max_handler_time : core_.options().deadline);
        auto leg = link_->run(statements, owned() && core_.prepared(), until);
        if (!begun_ && leg.failed == std::size_t{0} && !leg.link_lost &&
            is_unprepared(leg.sqlstate)) { // another session than the last: nothing has happened
            core_.stop_preparing();
            leg = link_->run(statements, false, until);
        }
        begun_ = begun_ || (!leg.link_lost && leg.failed != std::size_t{0});
        require_tags(leg, steps);
        return leg;
    }
    /// Throws: as throw_failure(). Requires: nothing was committed.
    [[noreturn]] void fail(const PqLeg& leg, const PostgresSteps& steps) {
        conflicted_ = conflicted_ || is_worth_a_rerun(leg);
        if (is_unprepared(leg.sqlstate)) {
            core_.stop_preparing();
        }
        if (owned() && (leg.sqlstate == "0A000" || leg.sqlstate == "25006")) {
            link_->set_broken(); // a stale plan, a standby: not to be met again
        }
        const auto blame = blame_for(leg, steps);
        conflicted_ = conflicted_ || blame == PostgresBlame::record_changed;
        if (blame == PostgresBlame::handler && !failure_) {
            failure_.emplace(leg.sqlstate,
                             explained(leg.sqlstate, leg.message, "a statement of the handler"));
        }
        throw_failure(blame, leg);
    }

    /// Before the end: a statement that failed, and that the handler swallowed, fails it all.
    /// Throws: PostgresError, std::logic_error.
    void require_sound() {
        require_open();
        if (failure_) {
            throw PostgresError(std::string(failure_->sqlstate()),
                                std::string(failure_->what()) + " (and the handler went on)");
        }
        require_idle();
        if (!begun_) {
            return;
        }
        if (link_->status() == PQTRANS_INERROR) {
            throw PostgresError("25P02", "idem: a statement of the handler failed, and it went on");
        }
        if (link_->status() == PQTRANS_IDLE) {
            throw std::logic_error(ended_by_handler);
        }
    }

    /// A place to come back to, for one message of several. Sent with the next statement. Those of
    /// earlier messages stay below it: to release each would be a statement more.
    void savepoint() {
        require_open();
        if (PostgresSteps due; has_posted()) { // of the message before: its failure, nobody else's
            if (const auto leg = attempt(due, false); !leg.ok()) {
                keep_failure(leg, due);
            }
        }
        ruined_ = ruined_ || failure_ || (begun_ && link_->status() == PQTRANS_INERROR);
        post({.statement = {.sql = core_.sql().begin_message}});
    }
    /// Sent with the next statement. Where an earlier message, which counts as handled, ruined the
    /// transaction, there is nothing to come back to: the commit will fail.
    void back_to_savepoint() {
        require_open();
        if (ruined_) {
            return;
        }
        failure_.reset();
        for (auto step = pending_.begin(); step != pending_.end(); ++step) {
            if (step->statement.sql == core_.sql().begin_message) { // it was never sent
                pending_.erase(step, pending_.end());
                return;
            }
        }
        pending_.clear();
        post({.statement = {.sql = core_.sql().back_to_message}});
        if (native_given_ && owned()) {
            post(marking()); // it may have gone back with the message; the savepoint proves it ours
        }
    }

    /// The statement that ends it well, and its tag.
    [[nodiscard]] PostgresStep ending() const {
        return {.statement = {.sql = owned() ? core_.sql().commit
                                             : PqSql::once("RELEASE SAVEPOINT " + name_)},
                .origin = PostgresOrigin::end};
    }
    [[nodiscard]] const char* ending_tag() const noexcept { return owned() ? "COMMIT" : "RELEASE"; }

    /// After the end.
    void finish() noexcept {
        ended_ = true;
        link_.give_back(reset_session_);
    }
    /// Where the end is not known.
    void lose() noexcept {
        ended_ = true;
        link_.lose();
    }
    void rollback() noexcept {
        if (ended_) {
            return;
        }
        if (begun_ && owned()) {
            undo({{.sql = core_.sql().rollback}});
        } else if (begun_) {
            undo({{.sql = PqSql::once("ROLLBACK TO SAVEPOINT " + name_)},
                  {.sql = PqSql::once("RELEASE SAVEPOINT " + name_)}});
        }
        finish();
    }
    /// Ends a transaction of ours that holds nothing but a claim that found its key taken, and asks
    /// `statement` outside it, in the same trip; the next statement begins anew.
    /// Throws: as fail().
    PqResult read_after_undo(PqStatement statement) {
        begun_ = false;
        PostgresSteps steps;
        steps.push_back({.statement = {.sql = core_.sql().rollback}});
        steps.push_back({.statement = std::move(statement)});
        const std::vector<PqStatement> both{steps[0].statement, steps[1].statement};
        auto leg = link_->run(both, core_.prepared(), core_.deadline());
        for (int again = 0; again < 2 && is_unprepared(leg.sqlstate); ++again) {
            core_.stop_preparing();
            leg = link_->run(std::span(both).subspan(leg.results.size()), false, core_.deadline());
        }
        if (!leg.ok()) {
            fail(leg, steps);
        }
        return std::move(leg.results.back());
    }
    /// After a first claim that failed: the transaction is again as before it. False: it is not.
    bool undo_claim() {
        if (owned()) {
            undo({{.sql = core_.sql().rollback}});
            begun_ = false;
            return link_->status() == PQTRANS_IDLE;
        }
        undo({{.sql = PqSql::once("ROLLBACK TO SAVEPOINT " + name_)}});
        return link_->status() == PQTRANS_INTRANS;
    }

private:
    void require_idle() {
        require_open();
        if (native_given_ && (link_->status() == PQTRANS_ACTIVE ||
                              PQpipelineStatus(link_->native()) != PQ_PIPELINE_OFF)) {
            throw std::logic_error("idem: the handler left the connection busy");
        }
        if (native_given_ && begun_ && link_->status() == PQTRANS_IDLE) {
            throw std::logic_error(ended_by_handler); // outside of it a statement would stand alone
        }
    }
    [[nodiscard]] PostgresSteps opening(bool bounded) const {
        PostgresSteps steps;
        if (!begun_ && owned()) {
            steps.push_back({.statement = {.sql = core_.begin()}});
            if (!bounded) {
                steps.push_back(
                    {.statement = {.sql = core_.sql().bound, .parameters = {idle_bound()}}});
            }
        } else if (!begun_) {
            steps.push_back({.statement = {.sql = PqSql::once("SAVEPOINT " + name_)}});
        }
        return steps;
    }
    /// Should the first words of a statement have deceived us.
    void require_tags(const PqLeg& leg, const PostgresSteps& steps) {
        for (std::size_t at = 0; at < leg.results.size(); ++at) {
            if (steps[at].origin == PostgresOrigin::handler &&
                is_transaction_tag(PQcmdStatus(leg.results[at].get()))) {
                failure_.emplace("25000", ended_by_handler);
                ruined_ = true;
                throw std::logic_error(ended_by_handler);
            }
        }
    }
    void keep_failure(const PqLeg& leg, const PostgresSteps& steps) {
        try {
            fail(leg, steps);
        } catch (const PostgresError&) { // commit() throws it
        }
    }
    void undo(const std::vector<PqStatement>& statements) noexcept {
        pending_.clear();
        link_.undo(statements);
    }

    PostgresCore& core_;
    PostgresLink link_;
    std::string nonce_ = draw_nonce();
    std::string name_ = "idem_" + hexadecimal(nonce_); ///< of the savepoint in a user's transaction
    PostgresSteps pending_;
    std::optional<PostgresError> failure_; ///< the first statement of the handler that failed
    bool begun_ = false, ended_ = false, conflicted_ = false, native_given_ = false,
         reset_session_ = false, ruined_ = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_SCOPE_HPP
