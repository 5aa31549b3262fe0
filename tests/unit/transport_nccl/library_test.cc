// SPDX-License-Identifier: Apache-2.0
// libannulus-transport-nccl.so as a worker loads it, on whatever machine this is.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "server/transport/host/clock.h"
#include "server/transport/nccl/profiler.h"
#include "server/transport/transport_plugin.h"

namespace annulus::transport::nccl {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

int64_t Soon() { return NowNs() + int64_t{60'000'000'000}; }

class NcclLibraryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    library_ = ::dlopen(ANNULUS_NCCL_PLUGIN_PATH, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library_, nullptr) << ::dlerror();
    table_ = static_cast<const annulusTransportV1*>(::dlsym(library_, ANNULUS_TRANSPORT_V1_SYMBOL));
    ASSERT_NE(table_, nullptr) << ::dlerror();
  }

  // Both ranks of a group of two; what both connects said, in words.
  std::vector<std::string> ConnectBoth() {
    std::vector<annulusTransport*> ranks(2);
    std::vector<annulusTransportHandle> handles(2);
    for (int32_t rank = 0; rank < 2; ++rank) {
      annulusTransportOptions options{};
      options.struct_size = sizeof(options);
      options.group = "library";
      options.rank = rank;
      options.size = 2;
      options.host_id = "host";
      const auto at = static_cast<size_t>(rank);
      EXPECT_EQ(table_->open(&options, &ranks[at], &handles[at]), ANNULUS_TRANSPORT_OK);
    }
    std::thread other([&] {
      EXPECT_NE(table_->connect(ranks[1], handles.data(), Soon()), ANNULUS_TRANSPORT_OK);
    });
    EXPECT_NE(table_->connect(ranks[0], handles.data(), Soon()), ANNULUS_TRANSPORT_OK);
    other.join();
    std::vector<std::string> words;
    for (annulusTransport* rank : ranks) {
      char text[1024] = "";
      table_->last_error(rank, text, sizeof(text), nullptr);
      words.emplace_back(text);
      table_->close(rank);
    }
    return words;
  }

  void* library_ = nullptr;
  const annulusTransportV1* table_ = nullptr;
};

TEST_F(NcclLibraryTest, SaysWhatItIs) {
  EXPECT_EQ(table_->struct_size, sizeof(annulusTransportV1));
  EXPECT_STREQ(table_->name, "nccl");
  EXPECT_EQ(table_->caps, uint64_t{ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY});
}

// As NCCL looks for it. The library is that of the transport, so the two meet in it.
TEST_F(NcclLibraryTest, IsAProfilerOfNcclAndTheOnlyOne) {
  const auto* const profiler = static_cast<const ProfilerV5*>(::dlsym(library_, "ncclProfiler_v5"));
  ASSERT_NE(profiler, nullptr) << ::dlerror();
  EXPECT_STREQ(profiler->name, "annulus");
  void* context = nullptr;
  int mask = 0;
  EXPECT_EQ(profiler->init(&context, 1, &mask, "group/0/inner", 1, 2, 0, nullptr), 0);
  EXPECT_EQ(mask, 0x44);
  EXPECT_NE(context, nullptr);
  EXPECT_EQ(profiler->finalize(context), 0);
  EXPECT_EQ(::dlsym(library_, "ncclProfiler_v4"), nullptr);
  void* const host = ::dlopen(ANNULUS_HOST_PLUGIN_PATH, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(host, nullptr) << ::dlerror();
  EXPECT_EQ(::dlsym(host, "ncclProfiler_v5"), nullptr);
  EXPECT_EQ(::dlsym(RTLD_DEFAULT, "ncclProfiler_v5"), nullptr);
}

TEST_F(NcclLibraryTest, OffersItselfAsProfilerOnlyWhereItIsAskedTo) {
  ::setenv("ANNULUS_NCCL_LIBRARY", "/nowhere/libnccl.so", 1);
  ::unsetenv("NCCL_PROFILER_PLUGIN");
  ConnectBoth();
  EXPECT_EQ(std::getenv("NCCL_PROFILER_PLUGIN"), nullptr);
  ::setenv("ANNULUS_NCCL_PROFILER", "1", 1);
  ConnectBoth();
  ASSERT_NE(std::getenv("NCCL_PROFILER_PLUGIN"), nullptr);
  EXPECT_EQ(::dlopen(std::getenv("NCCL_PROFILER_PLUGIN"), RTLD_NOW | RTLD_LOCAL), library_);
  ::unsetenv("ANNULUS_NCCL_PROFILER");
  ::unsetenv("NCCL_PROFILER_PLUGIN");
}

TEST_F(NcclLibraryTest, WithoutALibraryConnectSaysSoOnEveryRank) {
  ::setenv("ANNULUS_NCCL_LIBRARY", "/nowhere/libnccl.so", 1);
  for (const std::string& words : ConnectBoth()) {
    EXPECT_THAT(words, HasSubstr("no NCCL: /nowhere/libnccl.so"));
    EXPECT_THAT(words, HasSubstr("ANNULUS_NCCL_LIBRARY"));
  }
}

// A library that is no NCCL at all, and one without a GPU behind it.
TEST_F(NcclLibraryTest, WithoutAGpuConnectSaysSoOnEveryRank) {
  if (std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "this machine has a GPU";
  ::setenv("ANNULUS_NCCL_LIBRARY", "libc.so.6", 1);
  for (const std::string& words : ConnectBoth()) EXPECT_THAT(words, HasSubstr("ncclGetVersion"));
  if (!std::filesystem::exists(ANNULUS_NCCL_LIBRARY_PATH)) {
    GTEST_SKIP() << "no libnccl at " << ANNULUS_NCCL_LIBRARY_PATH;
  }
  ::setenv("ANNULUS_NCCL_LIBRARY", ANNULUS_NCCL_LIBRARY_PATH, 1);
  for (const std::string& words : ConnectBoth())
    EXPECT_THAT(words, HasSubstr("cudaGetDeviceCount"));
}

}  // namespace
}  // namespace annulus::transport::nccl
