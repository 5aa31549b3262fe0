# SPDX-License-Identifier: Apache-2.0
# How every target of the project is declared: one function for libraries, one for plugins, one for programs, one for tests.

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE_PROGRAM})
endif()

add_library(annulus_options INTERFACE)
target_compile_options(annulus_options INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Wall -Wextra -Wpedantic -Werror -Wshadow
  -Wno-missing-field-initializers -Wno-restrict>)  # gcc 12 sees overlaps in plain string concatenation (GCC bug 105651)
if(ANNULUS_SANITIZE)
  add_compile_options(-fsanitize=${ANNULUS_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${ANNULUS_SANITIZE})
endif()

# annulus_library(NAME annulus_ring SRCS a.cc b.cc DEPS absl::status ...): a static library of one layer.
# With no SRCS it is header-only.
function(annulus_library)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(A_SRCS)
    add_library(${A_NAME} STATIC ${A_SRCS})
    target_include_directories(${A_NAME} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
    target_link_libraries(${A_NAME} PUBLIC ${A_DEPS} PRIVATE ${A_PRIVATE_DEPS} $<BUILD_INTERFACE:annulus_options>)
  else()
    add_library(${A_NAME} INTERFACE)
    target_include_directories(${A_NAME} INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
    target_link_libraries(${A_NAME} INTERFACE ${A_DEPS})
  endif()
endfunction()

# annulus_plugin(NAME transport-host SRCS plugin.cc DEPS annulus_transport_host): build/lib/libannulus-<name>.so.
# Only versioned entry symbols are exported.
function(annulus_plugin)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  set(target annulus-${A_NAME})
  add_library(${target} MODULE ${A_SRCS})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE ${A_DEPS} annulus_options)
  target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL -Wl,-z,defs)
endfunction()

# annulus_program(NAME annulus-worker SRCS main.cc DEPS ...): build/bin/<name>.
function(annulus_program)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${A_NAME} ${A_SRCS})
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} annulus_options)
endfunction()

# ccache takes precompiled headers when told so, given gcc's -fpch-preprocess. Sanitized code takes longest to
# compile; of a test's own lines gtest tells the number itself, without -g.
set(ANNULUS_TEST_OPTIONS -O1)
if(ANNULUS_SANITIZE)
  set(ANNULUS_TEST_OPTIONS -O0 -g0)
endif()
list(APPEND ANNULUS_TEST_OPTIONS -pthread $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)

# What nearly every test includes, compiled once. A test costs more to compile than to run, so it is compiled lightly; the
# libraries that it tests are not.
function(annulus_test_headers)
  add_executable(annulus_test_headers ${PROJECT_SOURCE_DIR}/cmake/test_headers.cc)
  set_target_properties(annulus_test_headers PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(annulus_test_headers PRIVATE absl::statusor GTest::gmock GTest::gtest GTest::gtest_main annulus_options)
  target_compile_options(annulus_test_headers PRIVATE ${ANNULUS_TEST_OPTIONS})
  target_precompile_headers(annulus_test_headers PRIVATE <absl/status/statusor.h> <gmock/gmock.h> <gtest/gtest.h>
                             <map> <random> <string> <vector>)
endfunction()

# Suites that do nothing but compute share the processors; any other has them to itself, for its deadlines' sake.
set(ANNULUS_COMPUTE_SUITES "/tests/(unit|property)/(coordinator|cuda|io|kernels|machine|metrics|ring|trace)$")

# How much longer tests may take than timeouts say.
set(ANNULUS_TEST_SLOWDOWN 1)
if(ANNULUS_SANITIZE)
  set(ANNULUS_TEST_SLOWDOWN 5)
endif()

# annulus_test(NAME ring_plan_test SRCS plan_test.cc DEPS annulus_ring [LABELS unit] [TIMEOUT 60]): a GoogleTest program
# registered with ctest. Labels: unit, property, contract, e2e, fuzz, tidy, install; "full" is left out of `make test`.
function(annulus_test)
  cmake_parse_arguments(A "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;ARGS" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  math(EXPR A_TIMEOUT "${ANNULUS_TEST_SLOWDOWN} * ${A_TIMEOUT}")
  add_executable(${A_NAME} ${A_SRCS})
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests UNITY_BUILD OFF)
  target_compile_options(${A_NAME} PRIVATE ${ANNULUS_TEST_OPTIONS})
  target_precompile_headers(${A_NAME} REUSE_FROM annulus_test_headers)
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} GTest::gmock GTest::gtest GTest::gtest_main annulus_options)
  add_test(NAME ${A_NAME} COMMAND ${A_NAME} ${A_ARGS})
  set_tests_properties(${A_NAME} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}")
  if(NOT CMAKE_CURRENT_SOURCE_DIR MATCHES ${ANNULUS_COMPUTE_SUITES})
    set_tests_properties(${A_NAME} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

# annulus_fuzz_test(NAME io_npy_fuzz SRCS npy_fuzz.cc DEPS annulus_io CORPUS dir [ITERATIONS 20000]): LLVMFuzzerTestOneInput
# run by tests/support/fuzz_main.cc over the corpus and mutations of it, always the same; label fuzz. Built with
# -fsanitize=fuzzer instead, the same source is a libFuzzer target.
function(annulus_fuzz_test)
  cmake_parse_arguments(A "" "NAME;CORPUS;ITERATIONS" "SRCS;DEPS" ${ARGN})
  if(NOT A_ITERATIONS)
    set(A_ITERATIONS 20000)
  endif()
  add_executable(${A_NAME} ${A_SRCS} ${PROJECT_SOURCE_DIR}/tests/support/fuzz_main.cc)
  target_compile_options(${A_NAME} PRIVATE ${ANNULUS_TEST_OPTIONS})
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} annulus_options)
  get_filename_component(corpus ${A_CORPUS} ABSOLUTE)
  add_test(NAME ${A_NAME} COMMAND ${A_NAME} ${corpus} ${A_ITERATIONS})
  math(EXPR timeout "${ANNULUS_TEST_SLOWDOWN} * 120")
  set_tests_properties(${A_NAME} PROPERTIES TIMEOUT ${timeout} LABELS fuzz)
endfunction()
