# SPDX-License-Identifier: Apache-2.0
# Installs the development files to a fresh prefix, configures, builds and runs the stranger's project against it.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${ARGN}: ${result}\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${SCRATCH})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${SCRATCH}/prefix --component development)
set(flags)
if(FLAGS)
  set(flags "-DCMAKE_CXX_FLAGS=-fsanitize=${FLAGS}")
endif()
run(${CMAKE_COMMAND} -S ${STRANGER} -B ${SCRATCH}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${SCRATCH}/prefix -DCMAKE_CXX_COMPILER=${CXX} ${flags})
run(${CMAKE_COMMAND} --build ${SCRATCH}/build)
run(${SCRATCH}/build/stranger)
file(REMOVE_RECURSE ${SCRATCH})
