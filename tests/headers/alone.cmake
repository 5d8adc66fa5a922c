# SPDX-License-Identifier: MIT
# Each header compiles alone with clang 14, all warnings being errors: the preset clang in a build
# tree of its own, which keeps what did not change. Skipped without that compiler, but not in CI.

find_program(compiler clang++-14)
if(NOT compiler)
    if(DEFINED ENV{CI})
        message(FATAL_ERROR "clang++-14 is not installed (on Debian: apt-get install clang-14)")
    endif()
    message("SKIPPED: clang++-14 is not installed (on Debian: apt-get install clang-14)")
    return()
endif()

execute_process(
    COMMAND
        ${CMAKE_COMMAND} --preset clang -B ${WORK} -DIDEM_BUILD_TESTS=OFF -DIDEM_BUILD_EXAMPLES=OFF
        -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} ${OPTIONS}
    WORKING_DIRECTORY ${SOURCE}
    OUTPUT_QUIET
    COMMAND_ERROR_IS_FATAL ANY
)
execute_process(
    COMMAND ${CMAKE_COMMAND} --build ${WORK} -j 2 --target all_verify_interface_header_sets -- -k 0
    COMMAND_ERROR_IS_FATAL ANY
)
