// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_PQ_STATEMENT_HPP
#define IDEM_DETAIL_PQ_STATEMENT_HPP

// A statement on its way to libpq.

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace idem::inline v0::detail {

/// The text of a statement, which a connection prepares at its first use. Copies share it.
class PqSql {
public:
    explicit PqSql(std::string text) : PqSql(std::move(text), true) {}
    /// Never prepared: a text that will hardly come again.
    [[nodiscard]] static PqSql once(std::string text) { return {std::move(text), false}; }

    [[nodiscard]] const std::string& text() const noexcept { return shared_->text; }
    [[nodiscard]] bool is_to_be_prepared() const noexcept { return shared_->prepare; }
    [[nodiscard]] bool operator==(const PqSql& other) const noexcept {
        return shared_ == other.shared_ ||
               (shared_->hash == other.shared_->hash && text() == other.text());
    }

    struct Hash {
        [[nodiscard]] std::size_t operator()(const PqSql& sql) const noexcept {
            return sql.shared_->hash;
        }
    };

private:
    struct Shared {
        std::string text;
        std::size_t hash;
        bool prepare;
    };
    PqSql(std::string text, bool prepare) {
        const auto hash = std::hash<std::string>{}(text);
        shared_ = std::make_shared<const Shared>(Shared{std::move(text), hash, prepare});
    }

    std::shared_ptr<const Shared> shared_;
};

/// Parameters in order. Text unless `binary`; their types are the server's to infer.
struct PqParameter {
    std::optional<std::string> value{};
    bool binary = false;
};

struct PqStatement {
    PqSql sql;
    std::vector<PqParameter> parameters{};
    bool binary_result = false;
};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_PQ_STATEMENT_HPP
