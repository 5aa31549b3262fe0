// SPDX-License-Identifier: Apache-2.0
#include "client/cli/exit_code.h"

#include <gtest/gtest.h>

#include "server/base/fault_info.h"

namespace annulus::cli {
namespace {

TEST(ExitCode, TellsUsageRefusalAndFaultApart) {
  EXPECT_EQ(ExitCodeFor(absl::OkStatus()), kDone);
  EXPECT_EQ(ExitCodeFor(UsageError("bad flag")), kUsage);
  EXPECT_EQ(ExitCodeFor(UsageError(absl::NotFoundError("no file"))), kUsage);
  EXPECT_EQ(ExitCodeFor(absl::InvalidArgumentError("the service's word")), kRefused);
  EXPECT_EQ(ExitCodeFor(absl::ResourceExhaustedError("memory limit")), kRefused);
  EXPECT_EQ(ExitCodeFor(absl::FailedPreconditionError("other options")), kRefused);
  EXPECT_EQ(ExitCodeFor(absl::UnavailableError("gone")), kFault);
  EXPECT_EQ(ExitCodeFor(absl::DeadlineExceededError("late")), kFault);
  EXPECT_EQ(ExitCodeFor(absl::InternalError("bug")), kFault);
}

TEST(ExitCode, TooFewWorkersIsARefusal) {
  EXPECT_EQ(ExitCodeFor(WithFaultInfo(absl::UnavailableError("2 of 4 workers"),
                                      {"NOT_ENOUGH_WORKERS", {}})),
            kRefused);
}

}  // namespace
}  // namespace annulus::cli
