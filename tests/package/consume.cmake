# SPDX-License-Identifier: MIT
# Configures CONSUMER; either this is REFUSED with a message that matches, or PROGRAMS build and run.

set(arguments)
string(REPLACE "," ";" WITHOUT "${WITHOUT}")
foreach(package IN LISTS WITHOUT)
    list(APPEND arguments -DCMAKE_DISABLE_FIND_PACKAGE_${package}=ON)
endforeach()
foreach(variable VERSION COMPONENTS PROGRAMS SUBDIRECTORY)
    list(APPEND arguments -D${variable}=${${variable}})
endforeach()

file(REMOVE_RECURSE ${WORK})
execute_process(
    COMMAND
        ${CMAKE_COMMAND} -G ${GENERATOR} -S ${CONSUMER} -B ${WORK}
        -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}
        -DCMAKE_PREFIX_PATH=${PREFIX} ${arguments}
    RESULT_VARIABLE result
    OUTPUT_VARIABLE output
    ERROR_VARIABLE output
    ECHO_OUTPUT_VARIABLE
)

if(REFUSED)
    # CMake folds long messages: compare with single spaces.
    string(REGEX REPLACE "[ \n]+" " " output "${output}")
    if(result EQUAL 0)
        message(FATAL_ERROR "not refused")
    elseif(NOT output MATCHES "${REFUSED}")
        message(FATAL_ERROR "refused, but not with: ${REFUSED}")
    endif()
    return()
endif()

if(NOT result EQUAL 0)
    message(FATAL_ERROR "the consumer does not configure")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK} COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "," ";" PROGRAMS "${PROGRAMS}")
foreach(program IN LISTS PROGRAMS)
    execute_process(
        COMMAND ./${program}
        WORKING_DIRECTORY ${WORK}
        COMMAND_ERROR_IS_FATAL ANY
    )
endforeach()
