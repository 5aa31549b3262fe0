# SPDX-License-Identifier: Apache-2.0
# `cmake --install`: programs and plugins (component runtime); headers, libraries and what find_package(annulus) reads
# (component development). A user links annulus::client.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

foreach(target annulus annulus-coordinator annulus-worker annulus-compute-cpu annulus-compute-cuda annulus-transport-host
        annulus-transport-cuipc annulus-transport-nccl)
  if(TARGET ${target})
    install(TARGETS ${target} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime
                              LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime)
  endif()
endforeach()

foreach(name client ring proto tensor_frame base)
  set_target_properties(annulus_${name} PROPERTIES EXPORT_NAME ${name})
  install(TARGETS annulus_${name} EXPORT annulusTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
endforeach()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/client/include/annulus DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/annulus)
install(EXPORT annulusTargets NAMESPACE annulus:: DESTINATION ${package_folder} COMPONENT development)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/annulusConfig.cmake.in ${PROJECT_BINARY_DIR}/annulusConfig.cmake
                              INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/annulusConfigVersion.cmake VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/annulusConfig.cmake ${PROJECT_BINARY_DIR}/annulusConfigVersion.cmake DESTINATION ${package_folder}
        COMPONENT development)
