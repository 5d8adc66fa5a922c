// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_KAFKA_OUTPUT_HPP
#define IDEM_DETAIL_KAFKA_OUTPUT_HPP

// Whose fault it is that an output was not taken.

#include <idem/broker/kafka_sink_options.hpp>
#include <idem/detail/kafka_client.hpp>

#include <string>

namespace idem::inline v0::detail {

/// By what it is, not by the state of broker or link.
[[nodiscard]] inline bool is_kafka_output_refused(rd_kafka_resp_err_t code) noexcept {
    switch (code) {
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_INVALID_MSG:
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
    case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR__INVALID_ARG:
        return true;
    default:
        return false;
    }
}
[[nodiscard]] inline KafkaOutputError kafka_output_error(rd_kafka_resp_err_t code,
                                                         const std::string& topic) {
    return {code, kafka_error("output to " + topic, code).what()};
}

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_KAFKA_OUTPUT_HPP
