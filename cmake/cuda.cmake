# SPDX-License-Identifier: Apache-2.0
# The CUDA toolkit, if this machine has one. ANNULUS_CUDA says whether; without it only the CUDA plugin is missing.
# Sanitizer builds leave it out: they run what runs on the host.
set(ANNULUS_CUDA OFF)
if(ANNULUS_WITH_CUDA AND NOT ANNULUS_SANITIZE)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)  # what comes after 9.0 is compiled by the driver
    if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
    endif()
    enable_language(CUDA)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25.1 drops the standard silently
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_EXTENSIONS OFF)
    find_package(CUDAToolkit REQUIRED)
    set(ANNULUS_CUDA ON)
  endif()
endif()
if(ANNULUS_WITH_CUDA AND NOT ANNULUS_CUDA AND NOT ANNULUS_SANITIZE)
  message(STATUS "No CUDA toolkit: the plugin compute-cuda is left out")
endif()
