// SPDX-License-Identifier: MIT
#ifndef IDEM_BENCH_RAW_POSTGRES_HPP
#define IDEM_BENCH_RAW_POSTGRES_HPP

// What a user would write with libpq alone: prepared statements, and no more than has to be.

#include <libpq-fe.h>

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "support/postgres_server.hpp"

namespace idem::bench {

/// A parameter: text, which ends with NUL, or bytes.
struct RawValue {
    RawValue(const std::string& text) : data(text.c_str()) {} // NOLINT: as libpq takes them
    RawValue(const char* text) : data(text) {}                // NOLINT
    RawValue(const char* bytes, std::size_t count)
        : data(bytes)
        , size(static_cast<int>(count))
        , binary(1) {}
    const char* data;
    int size = 0, binary = 0;
};
[[nodiscard]] inline RawValue raw_bytes(std::string_view bytes) {
    return {bytes.data(), bytes.size()};
}

/// One thread at a time.
class RawConnection {
public:
    struct End {
        void operator()(PGresult* result) const noexcept { PQclear(result); }
    };
    using Result = std::unique_ptr<PGresult, End>;
    using Values = std::initializer_list<RawValue>;

    explicit RawConnection(const std::string& conninfo) : session_(conninfo) {}

    void prepare(const char* name, const std::string& sql) {
        require(Result(PQprepare(native(), name, sql.c_str(), 0, nullptr)));
    }
    /// By the simple protocol. One trip.
    void command(const char* sql) { require(Result(PQexec(native(), sql))); }
    /// One trip.
    Result execute(const char* name, Values values) {
        fill(values);
        return require(Result(PQexecPrepared(native(),
                                             name,
                                             static_cast<int>(values.size()),
                                             data_.data(),
                                             sizes_.data(),
                                             formats_.data(),
                                             0)));
    }

    /// From here on send() and receive() alone.
    void enter_pipeline() { require(PQenterPipelineMode(native()) == 1); }
    void send(const char* name, Values values, bool binary_result = false) {
        fill(values);
        require(PQsendQueryPrepared(native(),
                                    name,
                                    static_cast<int>(values.size()),
                                    data_.data(),
                                    sizes_.data(),
                                    formats_.data(),
                                    binary_result ? 1 : 0) == 1);
        ++due_;
    }
    /// Of all that was sent; the last one's is returned. One trip.
    Result receive() {
        require(PQpipelineSync(native()) == 1);
        Result last;
        for (; due_ > 0; --due_) {
            last = require(Result(PQgetResult(native())));
            require(PQgetResult(native()) == nullptr);
        }
        const Result sync(PQgetResult(native()));
        require(PQresultStatus(sync.get()) == PGRES_PIPELINE_SYNC);
        return last;
    }

private:
    [[nodiscard]] PGconn* native() const noexcept { return session_.native(); }
    void fill(Values values) {
        data_.clear();
        sizes_.clear();
        formats_.clear();
        for (const auto& value : values) {
            data_.push_back(value.data);
            sizes_.push_back(value.size);
            formats_.push_back(value.binary);
        }
    }
    void require(bool done) const {
        if (!done) {
            throw std::runtime_error(PQerrorMessage(native()));
        }
    }
    Result require(Result result) const {
        const auto status = PQresultStatus(result.get());
        require(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK);
        return result;
    }

    testing_support::PostgresSession session_;
    std::vector<const char*> data_;
    std::vector<int> sizes_, formats_;
    std::size_t due_ = 0;
};

} // namespace idem::bench

#endif // IDEM_BENCH_RAW_POSTGRES_HPP
