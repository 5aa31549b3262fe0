// SPDX-License-Identifier: Apache-2.0
// The real libnccl through the seam, where there is one. Needs no GPU; with none, a communicator
// fails cleanly and in time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "server/transport/host/clock.h"
#include "server/transport/nccl/nccl_api.h"

namespace annulus::transport::nccl {
namespace {

TEST(LibraryNcclTest, AnswersWithItsVersionAndMintsIds) {
  if (!std::filesystem::exists(ANNULUS_NCCL_LIBRARY_PATH)) {
    GTEST_SKIP() << "no libnccl at " << ANNULUS_NCCL_LIBRARY_PATH;
  }
  ::setenv("ANNULUS_NCCL_LIBRARY", ANNULUS_NCCL_LIBRARY_PATH, 1);
  ::setenv("NCCL_RAS_ENABLE", "0", 1);
  ::setenv("NCCL_SOCKET_IFNAME", "lo", 0);
  const auto nccl = OpenNccl();
  ASSERT_TRUE(nccl.ok()) << nccl.status();
  EXPECT_GE((*nccl)->version(), kVersionMin);
  EXPECT_EQ((*nccl)->can_revoke(), (*nccl)->version() >= 22807);
  std::printf("NCCL %s\n", VersionWords((*nccl)->version()).c_str());
  UniqueId first{};
  UniqueId second{};
  ASSERT_EQ((*nccl)->GetUniqueId(&first), Result::kSuccess);
  ASSERT_EQ((*nccl)->GetUniqueId(&second), Result::kSuccess);
  EXPECT_NE(first, second);

  if (std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "this machine has a GPU";
  Comm comm = nullptr;
  Result result = (*nccl)->Init(&comm, 2, first, 0, {.name = "test", .max_ctas = 8});
  const int64_t limit_ns = NowNs() + int64_t{60'000'000'000};
  while (result == Result::kInProgress && NowNs() < limit_ns) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_EQ((*nccl)->AsyncError(comm, &result), Result::kSuccess);
  }
  EXPECT_NE(result, Result::kSuccess);
  EXPECT_NE(result, Result::kInProgress);
  EXPECT_NE((*nccl)->Words(result, comm), "");
  std::printf("without a GPU: %s\n", (*nccl)->Words(result, comm).c_str());
  if (comm != nullptr) (*nccl)->Abort(comm);
}

}  // namespace
}  // namespace annulus::transport::nccl
