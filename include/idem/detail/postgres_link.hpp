// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_POSTGRES_LINK_HPP
#define IDEM_DETAIL_POSTGRES_LINK_HPP

// The connection of a transaction: one of the pool's, or the user's own.

#include <idem/detail/postgres_core.hpp>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace idem::inline v0::detail {

class PostgresLink {
public:
    explicit PostgresLink(PostgresCore& core) : core_(core), lent_(core.pool().take()) {}
    /// Throws: std::logic_error where the user has no open transaction.
    PostgresLink(PostgresCore& core, PGconn* users)
        : core_(core)
        , users_(PqConnection(users, false)) {
        if (PQpipelineStatus(users) != PQ_PIPELINE_OFF || users_->status() != PQTRANS_INTRANS) {
            throw std::logic_error("idem: join() needs an open transaction that did not fail, on a "
                                   "connection that is not busy and not in pipeline mode");
        }
    }

    [[nodiscard]] bool owned() const noexcept { return !users_; }
    [[nodiscard]] PqConnection& operator*() noexcept { return users_ ? *users_ : **lent_; }
    [[nodiscard]] PqConnection* operator->() noexcept { return &**this; }

    /// Runs what takes something back. Where that fails, the connection is broken.
    void undo(const std::vector<PqStatement>& statements) noexcept {
        try {
            // In text: what is prepared in the session may be what failed.
            if (!(**this).run(statements, false, core_.deadline()).ok()) {
                (**this).set_broken();
            }
        } catch (...) {
            (**this).set_broken();
        }
    }
    /// One of the pool's goes back, its session as it was, or is dropped.
    void give_back(bool reset_session) noexcept {
        if (!lent_) {
            return;
        }
        if (reset_session && (*lent_)->usable()) {
            (*lent_)->forget_prepared();
            undo({{.sql = PqSql::once("DISCARD ALL")}});
        }
        lent_.reset(); // the pool drops one that is in a transaction
    }
    /// What its session still does cannot be told here.
    void lose() noexcept {
        (**this).set_broken();
        lent_.reset();
    }

private:
    PostgresCore& core_;
    std::optional<PostgresCore::Pool::Handle> lent_{};
    std::optional<PqConnection> users_{};
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_POSTGRES_LINK_HPP
