// SPDX-License-Identifier: Apache-2.0
// libannulus-transport-cuipc.so as a worker loads it, on whatever machine this is.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "server/transport/transport.h"

namespace annulus::transport {
namespace {

TEST(CuipcLibrary, LoadsAndOpensOrTellsWhyNot) {
  void* library = dlopen(ANNULUS_CUIPC_PLUGIN_PATH, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto* table =
      static_cast<const annulusTransportV1*>(dlsym(library, ANNULUS_TRANSPORT_V1_SYMBOL));
  ASSERT_NE(table, nullptr) << dlerror();
  EXPECT_EQ(table->struct_size, sizeof(annulusTransportV1));
  EXPECT_STREQ(table->name, "cuipc");
  {
    const auto opened =
        Transport::Open(table, {.group = "g", .host_id = "host", .device_ordinal = 0});
    if (!opened.ok()) {
      // Without a driver: "... cudaGetDeviceCount: CUDA driver version is insufficient ...".
      EXPECT_NE(opened.status().message().find("device"), std::string::npos) << opened.status();
      std::printf("not opened: %s\n", std::string(opened.status().message()).c_str());
    }
  }
  dlclose(library);
}

}  // namespace
}  // namespace annulus::transport
