// SPDX-License-Identifier: Apache-2.0
#include "client/src/job.h"

#include <gtest/gtest.h>

#include <cmath>

namespace annulus::client {
namespace {

float memory[1];

Job GoodJob() {
  Job job;
  job.batch = 2;
  job.query_heads = 8;
  job.kv_heads = 2;
  job.head_dim = 64;
  job.operands = {
      {Role::kQ, {memory, DataType::kF32, 2, 100, 8, 64}, true, false, {}},
      {Role::kK, {memory, DataType::kF32, 2, 120, 2, 64}, false, false, {}},
      {Role::kLse, {memory, DataType::kF32, 2, 100, 8, 0}, true, true, {}},
  };
  return job;
}

std::string Refusal(const Job& job) {
  const absl::Status status = CheckJob(job, 100, 120);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  return std::string(status.message());
}

TEST(CheckJob, AGoodOnePasses) { EXPECT_TRUE(CheckJob(GoodJob(), 100, 120).ok()); }

TEST(CheckJob, NamesWhatWasExpectedAndWhatWasGot) {
  Job job = GoodJob();
  job.operands[1].view.rows = 121;
  EXPECT_EQ(Refusal(job), "k has shape [2, 121, 2, 64], expected [2, 120, 2, 64]");
  job = GoodJob();
  job.kv_heads = 3;
  EXPECT_NE(Refusal(job).find("multiple"), std::string::npos);
  job = GoodJob();
  job.head_dim = 20;
  EXPECT_NE(Refusal(job).find("16 to 256"), std::string::npos);
}

TEST(CheckJob, RefusesWrongTypesAndMissingMemory) {
  Job job = GoodJob();
  job.operands[2].view.dtype = DataType::kBf16;
  EXPECT_NE(Refusal(job).find("lse"), std::string::npos);
  job = GoodJob();
  job.operands[0].view.data = nullptr;
  EXPECT_EQ(Refusal(job), "q has no memory");
  job = GoodJob();
  job.options.softmax_scale = std::nanf("");
  Refusal(job);
}

TEST(CheckJob, AnEmptyShardNeedsNoMemory) {
  Job job = GoodJob();
  job.operands = {{Role::kQ, {nullptr, DataType::kF32, 2, 0, 8, 64}, true, false, {}}};
  EXPECT_TRUE(CheckJob(job, 0, 120).ok());
}

TEST(TensorView, BytesNeverOverflow) {
  const TensorView huge{nullptr, DataType::kF32, int64_t{1} << 40, int64_t{1} << 40, 1, 64};
  EXPECT_EQ(huge.bytes(), 0u);
  const TensorView negative{nullptr, DataType::kF32, -1, 4, 1, 64};
  EXPECT_EQ(negative.bytes(), 0u);
}

}  // namespace
}  // namespace annulus::client
