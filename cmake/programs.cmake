# SPDX-License-Identifier: MIT
# One function for each kind of program: test, example, benchmark. A program that needs a component
# which is not built is left out.

# Sets <added> to whether all COMPONENTS are there and the executable was made.
function(idem_add_program added name)
    cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "SOURCES;COMPONENTS;LINK;DEFINITIONS")
    list(TRANSFORM arg_COMPONENTS PREPEND idem::)
    foreach(component IN LISTS arg_COMPONENTS)
        if(NOT TARGET ${component})
            message(STATUS "${name} is left out: it needs ${component}")
            set(${added} FALSE PARENT_SCOPE)
            return()
        endif()
    endforeach()
    add_executable(${name} ${arg_SOURCES})
    if("idem::kafka" IN_LIST arg_COMPONENTS AND CMAKE_CXX_FLAGS MATCHES "-fsanitize=thread")
        target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/support/tsan/kafka_threads.cpp)
    endif()
    target_link_libraries(${name} PRIVATE idem::idem ${arg_COMPONENTS} ${arg_LINK})
    target_compile_definitions(${name} PRIVATE ${arg_DEFINITIONS})
    set(${added} TRUE PARENT_SCOPE)
endfunction()

# idem_add_test(<name> <file>... LABEL <label> [COMPONENTS <component>...] [LINK <target>...]
#     [DEFINITIONS <definition>...] [TIMEOUT <seconds>])
# One executable; each TEST in it is a test of ctest, under its own name. Of label server: all in one.
function(idem_add_test name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "LABEL;TIMEOUT" "COMPONENTS;LINK;DEFINITIONS")
    foreach(file IN LISTS arg_UNPARSED_ARGUMENTS)
        set_property(GLOBAL APPEND PROPERTY IDEM_TEST_FILES ${CMAKE_CURRENT_SOURCE_DIR}/${file})
    endforeach()
    idem_add_program(
        added ${name}.test
        SOURCES ${arg_UNPARSED_ARGUMENTS}
        COMPONENTS ${arg_COMPONENTS}
        LINK ${arg_LINK} GTest::gtest_main
        DEFINITIONS ${arg_DEFINITIONS}
    )
    if(NOT added)
        return()
    endif()
    target_include_directories(${name}.test PRIVATE ${PROJECT_SOURCE_DIR}/tests)
    if(TARGET tests.precompiled AND NOT arg_DEFINITIONS)
        target_precompile_headers(${name}.test REUSE_FROM tests.precompiled)
    endif()
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 120)
    endif()
    # Tests of a server share the one that their program starts: one test of ctest for all of them.
    if(arg_LABEL STREQUAL "server")
        add_test(NAME ${name} COMMAND ${name}.test)
        set_tests_properties(${name} PROPERTIES LABELS server TIMEOUT 600)
        return()
    endif()
    # Found when ctest starts, so that a test that hangs does not stop the build.
    gtest_discover_tests(
        ${name}.test
        DISCOVERY_MODE PRE_TEST
        NO_PRETTY_TYPES
        NO_PRETTY_VALUES
        PROPERTIES LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT}
    )
endfunction()

# idem_add_example(<name> <file>... [COMPONENTS <component>...] [DEFINITIONS <definition>...])
function(idem_add_example name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "COMPONENTS;DEFINITIONS")
    idem_add_program(
        added ${name}
        SOURCES ${arg_UNPARSED_ARGUMENTS}
        COMPONENTS ${arg_COMPONENTS}
        DEFINITIONS ${arg_DEFINITIONS}
    )
endfunction()

# idem_add_bench(<name> <file>... [COMPONENTS <component>...])
# Its server, where it needs one, is that of the tests.
function(idem_add_bench name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "COMPONENTS;LINK")
    idem_add_program(
        added ${name}.bench
        SOURCES ${arg_UNPARSED_ARGUMENTS}
        COMPONENTS ${arg_COMPONENTS}
        LINK ${arg_LINK}
    )
    if(added)
        target_include_directories(${name}.bench PRIVATE ${PROJECT_SOURCE_DIR}/tests)
    endif()
endfunction()
