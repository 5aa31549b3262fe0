# SPDX-License-Identifier: Apache-2.0
# Every outside package, found once. docs/dependencies.md says why each is here.
find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)
find_package(prometheus-cpp REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(hwy REQUIRED IMPORTED_TARGET libhwy)
pkg_check_modules(isal REQUIRED IMPORTED_TARGET libisal)
if(ANNULUS_WITH_GRPC)
  find_package(Protobuf REQUIRED)  # FindProtobuf must come before gRPC's config
  find_package(gRPC CONFIG REQUIRED)
  find_package(CLI11 REQUIRED)
endif()
if(ANNULUS_TESTS)
  find_package(GTest REQUIRED)
endif()
