// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "annulus/v1/types.pb.h"
#include "server/worker/engine.h"

namespace annulus::rpc {

// No extent, stride or token index of a tensor exceeds this.
inline constexpr int64_t kMaxExtent = int64_t{1} << 40;
// Token ranges of one tensor.
inline constexpr int kMaxTokenRanges = 65536;

// What a tensor must be in the call that names it.
struct TensorShape {
  int64_t batch = 1;
  int heads = 1;
  int head_dim = 0;  // 0: LSE, [batch, rows, heads]
  v1::Dtype dtype = v1::DTYPE_UNSPECIFIED;
  bool may_be_f32 = false;
};

absl::StatusOr<annulusDtype> DtypeFromProto(absl::string_view field, v1::Dtype dtype);

// INVALID_ARGUMENT names the field (`name` first): a location that is missing or malformed, another
// shape or type than `shape`, a size or stride out of its range, tokens that do not add up to
// `rows`. UNIMPLEMENTED: position_ids. Whether the elements lie within their memory is the engine's
// to judge.
absl::StatusOr<worker::TensorRef> TensorRefFromProto(absl::string_view name,
                                                     const v1::TensorRef& ref,
                                                     const TensorShape& shape);

// Bytes of the elements that `ref` names, padding between them left out.
double ElementBytes(const worker::TensorRef& ref);

}  // namespace annulus::rpc
