// SPDX-License-Identifier: Apache-2.0
// Any Attend request: it is refused, or what the engine is given lies within the limits that it may
// rely on.
#include <google/protobuf/stubs/logging.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "server/rpc/worker_convert.h"
#include "server/rpc/worker_tensor_ref.h"

namespace {

using annulus::worker::AttendCall;
using annulus::worker::TensorRef;

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckRef(const TensorRef& ref) {
  using annulus::rpc::kMaxExtent;
  Require(ref.region.has_value() != !ref.tensor_id.empty());
  Require(ref.rows >= 0 && ref.rows <= kMaxExtent);
  for (const int64_t stride : {ref.batch_stride, ref.row_stride, ref.head_stride}) {
    Require(stride >= 0 && stride <= kMaxExtent);
  }
  int64_t tokens = 0;
  for (const auto& range : ref.tokens) {
    Require(range.begin >= 0 && range.end <= kMaxExtent && range.stride >= 1);
    tokens += range.count();
  }
  Require(tokens == ref.rows);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // The library would print every malformed input.
  static const bool kSilenced = (google::protobuf::SetLogHandler(nullptr), true);
  (void)kSilenced;
  annulus::v1::AttendRequest request;
  if (!request.ParseFromArray(data, static_cast<int>(size))) return 0;
  (void)annulus::rpc::CallTimeout(request).ok();
  const auto call = annulus::rpc::AttendCallFromProto(request);
  if (!call.ok()) return 0;
  Require(call->query_heads % call->kv_heads == 0);
  Require(call->head_dim >= 16 && call->head_dim <= 256 && call->head_dim % 8 == 0);
  Require(std::isfinite(call->softmax_scale));
  Require(call->q && call->k && call->v && call->o && call->lse);
  Require(call->dq.has_value() == call->dk.has_value());
  for (const auto* ref : {&call->q, &call->k, &call->v, &call->o, &call->lse, &call->d_o, &call->dq,
                          &call->dk, &call->dv}) {
    if (*ref) CheckRef(**ref);
  }
  Require(std::isfinite(annulus::rpc::RegionBytes(*call)));
  return 0;
}
