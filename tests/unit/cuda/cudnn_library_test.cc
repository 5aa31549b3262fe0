// SPDX-License-Identifier: Apache-2.0
// libcudnn.so.9 as the provider finds it, on whatever machine this is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "kernels/cuda/cudnn/attention_graph.h"
#include "kernels/cuda/cudnn/library.h"

namespace annulus::kernels::cuda {
namespace {

using testing::HasSubstr;

// How cuDNN writes down an H100.
constexpr char kH100[] = R"({"maxGridSize": [2147483647, 65535, 65535],
    "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536, "multiProcessorCount": 132,
    "smClockRateKHz": 1980000, "memClockRateKHz": 2619000, "l2CacheSize": 52428800, "warpSize": 32,
    "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
    "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536, "pciDeviceId": 0,
    "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "isTccDriver": 0,
    "supportCoopLaunch": 1, "deviceVer": 900, "driverVer": 13000, "cudaDeviceId": 0,
    "totalGlobalMem": 85000000000, "deviceName": "NVIDIA H100 80GB HBM3"})";

AttentionShape Shape(AttentionPass pass, bool causal) {
  const AttentionStrides q = {1000 * 8 * 128, 8 * 128, 128};
  const AttentionStrides kv = {1100 * 2 * 128, 2 * 128, 128};
  return {pass, causal, ANNULUS_BF16, 2, 1000, 1100, 8, 2, 128, q, kv, kv, q};
}

TEST(CudnnLibrary, AMissingOrOldLibraryIsRefused) {
  const absl::Status missing = LoadCudnn("libcudnn_that_is_not_there.so").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(missing.message(), HasSubstr("libcudnn_that_is_not_there.so: cannot open"));
  EXPECT_THAT(missing.message(), HasSubstr("take another provider"));
  const absl::Status old = LoadCudnn(ANNULUS_OLD_CUDNN_PATH).status();
  EXPECT_EQ(old.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(old.message(), HasSubstr("is version 9.1.2, expected 9.16.0 or later"));
}

class RealCudnn : public testing::Test {
 protected:
  void SetUp() override {
    if (!library_.ok()) GTEST_SKIP() << library_.status().message();
  }
  const absl::StatusOr<CudnnLibrary> library_ = LoadCudnn();
};

TEST_F(RealCudnn, OpensOrTellsWhyNot) {
  EXPECT_GE(library_->GetVersion(), static_cast<size_t>(kCudnnVersionMin));
  std::printf("cuDNN %s\n", VersionText(library_->GetVersion()).c_str());
  const auto opened = OpenCudnn();
  if (opened.ok()) {
    EXPECT_EQ((*opened)->version(), VersionText(library_->GetVersion()));
  } else {
    EXPECT_EQ(opened.status().code(), absl::StatusCode::kInternal);
    EXPECT_THAT(opened.status().message(), HasSubstr("cudnnCreate: CUDNN_STATUS_"));
  }
}

TEST_F(RealCudnn, TakesEveryOperationOfTheGraphs) {
  for (const AttentionPass pass : {AttentionPass::kForward, AttentionPass::kBackward}) {
    for (const bool causal : {false, true}) {
      GraphBuilder builder(*library_);
      BuildAttentionGraph(Shape(pass, causal), &builder);
      EXPECT_TRUE(builder.status().ok()) << builder.status();
    }
  }
}

TEST_F(RealCudnn, AFailureOfTheGraphStays) {
  GraphBuilder builder(*library_);
  const GraphBuilder::Tensor a = builder.Virtual(CUDNN_DATA_FLOAT, {1, 1, 8, 8});
  const GraphBuilder::Tensor b = builder.Virtual(CUDNN_DATA_FLOAT, {1, 1, 7, 8});
  builder.Matmul(a, b, {1, 1, 8, 8});  // 8 columns by 7 rows
  EXPECT_THAT(builder.status().message(), HasSubstr("matmul operation: CUDNN_STATUS_"));
  builder.Matmul(a, a, {1, 1, 8, 8});
  EXPECT_THAT(builder.status().message(), HasSubstr("matmul operation: CUDNN_STATUS_"));
}

// Where there is a driver this compiles the kernels; without one it fails, and says what for.
TEST_F(RealCudnn, PlansForADeviceThatIsNotThere) {
  const auto api = OpenCudnnFor(kH100);
  ASSERT_TRUE(api.ok()) << api.status();
  const auto plan = (*api)->Build(Shape(AttentionPass::kForward, true));
  if (plan.ok()) return;
  EXPECT_THAT(plan.status().message(),
              HasSubstr("has no kernel for forward, causal, bf16, batch 2, 1000 x 1100 rows, 8/2 "
                        "heads of 128"));
  EXPECT_FALSE(OpenCudnnFor("{}").ok());
}

}  // namespace
}  // namespace annulus::kernels::cuda
