# SPDX-License-Identifier: MIT
# Configures SOURCE with CONFIGURE, installs it, and moves the tree: what it holds must not name
# the place it was installed to.

string(REPLACE "," ";" CONFIGURE "${CONFIGURE}")
file(REMOVE_RECURSE ${WORK})
execute_process(
    COMMAND
        ${CMAKE_COMMAND} -G ${GENERATOR} -S ${SOURCE} -B ${WORK}/build
        -DCMAKE_CXX_COMPILER=${COMPILER} -DIDEM_BUILD_TESTS=OFF -DIDEM_BUILD_EXAMPLES=OFF
        ${CONFIGURE}
    COMMAND_ERROR_IS_FATAL ANY
)
execute_process(
    COMMAND ${CMAKE_COMMAND} --install ${WORK}/build --prefix ${WORK}/first
    COMMAND_ERROR_IS_FATAL ANY
)
file(RENAME ${WORK}/first ${WORK}/prefix)
