# SPDX-License-Identifier: MIT
# Finds rabbitmq-c, the C client of RabbitMQ, and defines rabbitmq::rabbitmq. Its own package files
# name other targets in other versions.

find_path(RabbitmqC_INCLUDE_DIR amqp.h)
find_library(RabbitmqC_LIBRARY rabbitmq)
mark_as_advanced(RabbitmqC_INCLUDE_DIR RabbitmqC_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(RabbitmqC REQUIRED_VARS RabbitmqC_LIBRARY RabbitmqC_INCLUDE_DIR)

if(RabbitmqC_FOUND AND NOT TARGET rabbitmq::rabbitmq)
    add_library(rabbitmq::rabbitmq UNKNOWN IMPORTED)
    set_target_properties(
        rabbitmq::rabbitmq
        PROPERTIES
            IMPORTED_LOCATION "${RabbitmqC_LIBRARY}"
            INTERFACE_INCLUDE_DIRECTORIES "${RabbitmqC_INCLUDE_DIR}"
    )
endif()
