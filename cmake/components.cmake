# SPDX-License-Identifier: MIT
# A component is a set of headers with what they need: an INTERFACE target, an option to leave it
# out, and an export set of its own, so that nobody looks for a client library they do not use.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# Where package files go: headers are the same on every architecture.
set(IDEM_PACKAGE_DIR ${CMAKE_INSTALL_DATADIR}/cmake/idem)

# idem_add_component(<component>
#     [TARGET <name>]     of the target idem::<name>; default: the component's
#     PACKAGE <name>      what find_package is asked for
#     [DEBIAN <name>]     the Debian package that brings it, for the message when it is missing
#     LINK <target>...    what PACKAGE defines
#     HEADERS <file>...)  below include/idem
# Every component but core has an option IDEM_<COMPONENT>, ON in the project itself.
function(idem_add_component component)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "TARGET;PACKAGE;DEBIAN" "LINK;HEADERS")
    if(NOT arg_TARGET)
        set(arg_TARGET ${component})
    endif()

    # What the installed package says about a component that somebody asks for.
    set_property(GLOBAL APPEND PROPERTY IDEM_COMPONENTS ${component})
    string(
        CONCAT facts
        "set(_idem_package_${component} ${arg_PACKAGE})\n"
        "set(_idem_debian_${component} ${arg_DEBIAN})\n"
    )
    set_property(GLOBAL APPEND_STRING PROPERTY IDEM_COMPONENT_FACTS ${facts})
    set_property(GLOBAL PROPERTY IDEM_PACKAGE_${component} ${arg_PACKAGE})
    set(headers ${arg_HEADERS})
    list(TRANSFORM headers PREPEND idem/)
    set_property(GLOBAL APPEND PROPERTY IDEM_HEADERS ${headers})

    if(NOT component STREQUAL "core")
        string(TOUPPER IDEM_${component} option)
        option(${option} "Offer idem::${arg_TARGET}, which needs ${arg_PACKAGE}" ${PROJECT_IS_TOP_LEVEL})
        set_property(GLOBAL APPEND PROPERTY IDEM_OPTIONS -D${option}=${${option}})
        if(NOT ${option})
            return()
        endif()
        set(way_out ", or configure with -D${option}=OFF")
    endif()

    list(APPEND CMAKE_MODULE_PATH ${PROJECT_SOURCE_DIR}/cmake)
    find_package(${arg_PACKAGE} GLOBAL)
    if(NOT ${arg_PACKAGE}_FOUND)
        message(
            FATAL_ERROR
            "idem: component ${component} needs ${arg_PACKAGE}, which was not found.\n"
            "Install it (on Debian: apt-get install ${arg_DEBIAN})${way_out}."
        )
    endif()

    set(target idem_${arg_TARGET})
    set_property(GLOBAL APPEND PROPERTY IDEM_TARGETS ${target})
    add_library(${target} INTERFACE)
    add_library(idem::${arg_TARGET} ALIAS ${target})
    list(TRANSFORM headers PREPEND ${PROJECT_SOURCE_DIR}/include/)
    target_sources(
        ${target}
        INTERFACE FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/include FILES ${headers}
    )
    target_compile_features(${target} INTERFACE cxx_std_20)
    target_link_libraries(${target} INTERFACE ${arg_LINK})
    if(NOT component STREQUAL "core")
        target_link_libraries(${target} INTERFACE idem::idem)
    endif()
    set_target_properties(
        ${target}
        PROPERTIES
            EXPORT_NAME ${arg_TARGET}
            VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL}
    )

    if(IDEM_INSTALL)
        install(TARGETS ${target} EXPORT idem-${component} FILE_SET HEADERS)
        install(
            EXPORT idem-${component}
            FILE idem-${component}-targets.cmake
            NAMESPACE idem::
            DESTINATION ${IDEM_PACKAGE_DIR}
        )
    endif()
endfunction()

# idem_install_package(): after the last component, the files that find_package(idem) reads.
function(idem_install_package)
    if(NOT IDEM_INSTALL)
        return()
    endif()
    get_property(components GLOBAL PROPERTY IDEM_COMPONENTS)
    get_property(component_facts GLOBAL PROPERTY IDEM_COMPONENT_FACTS)
    configure_package_config_file(
        cmake/idem-config.cmake.in
        idem-config.cmake
        INSTALL_DESTINATION ${IDEM_PACKAGE_DIR}
        NO_SET_AND_CHECK_MACRO
        NO_CHECK_REQUIRED_COMPONENTS_MACRO
    )
    write_basic_package_version_file(
        idem-config-version.cmake
        COMPATIBILITY SameMajorVersion
        ARCH_INDEPENDENT
    )
    install(
        FILES
            ${PROJECT_BINARY_DIR}/idem-config.cmake
            ${PROJECT_BINARY_DIR}/idem-config-version.cmake
            cmake/FindHiredis.cmake
            cmake/FindRabbitmqC.cmake
            cmake/FindRdKafka.cmake
        DESTINATION ${IDEM_PACKAGE_DIR}
    )
endfunction()
