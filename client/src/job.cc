// SPDX-License-Identifier: Apache-2.0
#include "client/src/job.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::client {
namespace {

constexpr int64_t kBatchMax = 1 << 20;
constexpr int kHeadsMax = 1 << 16;

std::string ShapeText(const TensorView& view) {
  std::string text = absl::StrCat("[", view.batch, ", ", view.rows, ", ", view.heads);
  if (view.head_dim != 0) absl::StrAppend(&text, ", ", view.head_dim);
  return text + "]";
}

absl::Status CheckHeads(const Job& job) {
  if (job.batch < 1 || job.batch > kBatchMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("batch size ", job.batch, ": expected 1 to ", kBatchMax));
  }
  if (job.kv_heads < 1 || job.query_heads < 1 || job.query_heads > kHeadsMax ||
      job.query_heads % job.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(job.query_heads,
                                                   " query heads: expected a multiple of the ",
                                                   job.kv_heads, " KV heads, 1 to ", kHeadsMax));
  }
  if (job.head_dim < 16 || job.head_dim > 256 || job.head_dim % 8 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("head size ", job.head_dim, ": supported are 16 to 256 in steps of 8"));
  }
  const float scale = job.options.softmax_scale;
  if (!std::isfinite(scale)) return absl::InvalidArgumentError("softmax scale must be finite");
  return absl::OkStatus();
}

absl::Status CheckOperand(const Job& job, const Operand& operand, int64_t rows) {
  const TensorView& view = operand.view;
  const bool lse = operand.role == Role::kLse;
  TensorView expected{nullptr,
                      lse ? DataType::kF32 : job.dtype,
                      job.batch,
                      rows,
                      operand.query_side ? job.query_heads : job.kv_heads,
                      lse ? 0 : job.head_dim};
  // A float32 o beside short inputs keeps what the backward needs unrounded.
  const bool wide_o = operand.role == Role::kO && view.dtype == DataType::kF32;
  if (view.dtype != expected.dtype && !wide_o) {
    return absl::InvalidArgumentError(absl::StrCat(
        RoleName(operand.role), " is not of the expected data type: ",
        lse ? "lse is float32" : "all tensors but lse have the type of q; o may be float32"));
  }
  if (ShapeText(view) != ShapeText(expected)) {
    return absl::InvalidArgumentError(absl::StrCat(RoleName(operand.role), " has shape ",
                                                   ShapeText(view), ", expected ",
                                                   ShapeText(expected)));
  }
  if (rows > 0 && view.bytes() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(RoleName(operand.role), " of shape ", ShapeText(view), " is too large"));
  }
  if (rows > 0 && view.data == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(RoleName(operand.role), " has no memory"));
  }
  return absl::OkStatus();
}

}  // namespace

const char* RoleName(Role role) {
  static constexpr const char* kNames[] = {"q", "k", "v", "do", "o", "lse", "dq", "dk", "dv"};
  return kNames[static_cast<int>(role)];
}

absl::Status CheckJob(const Job& job, int64_t query_rows, int64_t kv_rows) {
  ANNULUS_RETURN_IF_ERROR(CheckHeads(job));
  for (const Operand& operand : job.operands) {
    ANNULUS_RETURN_IF_ERROR(CheckOperand(job, operand, operand.query_side ? query_rows : kv_rows));
  }
  return absl::OkStatus();
}

}  // namespace annulus::client
