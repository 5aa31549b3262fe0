// SPDX-License-Identifier: Apache-2.0
// libannulus-compute-cuda.so as a worker loads it, on whatever machine this is.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "kernels/compute_plugin.h"

namespace annulus::kernels {
namespace {

TEST(CudaLibrary, LoadsAndOpensOrTellsWhyNot) {
  void* library = dlopen(ANNULUS_CUDA_PLUGIN_PATH, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto* api = static_cast<const annulusComputeV1*>(dlsym(library, ANNULUS_COMPUTE_V1_SYMBOL));
  ASSERT_NE(api, nullptr) << dlerror();
  EXPECT_EQ(api->struct_size, sizeof(annulusComputeV1));
  EXPECT_STREQ(api->name, "cuda");
  const annulusComputeOptions options = {sizeof(options), 0, 1};
  annulusDevice* device = nullptr;
  const annulusComputeStatus status = api->open(&options, &device);
  if (status == ANNULUS_COMPUTE_OK) {
    api->close(device);
  } else {
    // Without a driver: "cudaGetDeviceCount: CUDA driver version is insufficient ...".
    EXPECT_STRNE(api->last_error(), "");
    EXPECT_EQ(device, nullptr);
    std::printf("no device: %s\n", api->last_error());
  }
  dlclose(library);
}

}  // namespace
}  // namespace annulus::kernels
