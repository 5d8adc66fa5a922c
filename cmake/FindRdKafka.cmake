# SPDX-License-Identifier: MIT
# Finds librdkafka, the C client of Kafka, and defines rdkafka::rdkafka. Its own package files define
# no target in Debian 12.

find_path(RdKafka_INCLUDE_DIR librdkafka/rdkafka.h)
find_library(RdKafka_LIBRARY rdkafka)
mark_as_advanced(RdKafka_INCLUDE_DIR RdKafka_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(RdKafka REQUIRED_VARS RdKafka_LIBRARY RdKafka_INCLUDE_DIR)

if(RdKafka_FOUND AND NOT TARGET rdkafka::rdkafka)
    add_library(rdkafka::rdkafka UNKNOWN IMPORTED)
    set_target_properties(
        rdkafka::rdkafka
        PROPERTIES
            IMPORTED_LOCATION "${RdKafka_LIBRARY}"
            INTERFACE_INCLUDE_DIRECTORIES "${RdKafka_INCLUDE_DIR}"
    )
endif()
