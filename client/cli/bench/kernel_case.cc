// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bench/kernel_case.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/element_types.h"
#include "client/cli/random_fill.h"
#include "kernels/tensor_view.h"
#include "server/base/status_macros.h"
#include "server/ring/mask.h"

namespace annulus::cli::bench {

absl::Status KernelCase::CheckSupported(const ComputeDevice& device, const AttentionShape& shape,
                                        bool backward) {
  const Problem& p = shape.problem;
  const annulusComputeV1& api = device.api();
  if (backward && (api.caps & ANNULUS_COMPUTE_CAP_BACKWARD) == 0) {
    return absl::UnimplementedError(
        absl::StrCat("compute device \"", api.name, "\" has no backward"));
  }
  if (shape.mask.window_left >= 0 && (api.caps & ANNULUS_COMPUTE_CAP_SLIDING_WINDOW) == 0) {
    return absl::UnimplementedError(
        absl::StrCat("compute device \"", api.name, "\" has no sliding window"));
  }
  return device.Check(
      api.supports(device.device(), ToKernels(p.dtype), p.head_dim, p.query_heads, p.kv_heads));
}

absl::StatusOr<std::unique_ptr<KernelCase>> KernelCase::Create(ComputeDevice* device,
                                                               const AttentionShape& shape,
                                                               bool backward, uint64_t seed) {
  std::unique_ptr<KernelCase> made(new KernelCase(device, shape));
  ANNULUS_RETURN_IF_ERROR(made->MakeTensors(backward, seed));
  return made;
}

absl::StatusOr<annulusTensor> KernelCase::NewTensor(annulusDtype dtype, bool of_queries) {
  const Problem& p = shape_.problem;
  const int64_t rows = of_queries ? p.query_length : p.kv_length;
  const int64_t heads = of_queries ? p.query_heads : p.kv_heads;
  ANNULUS_ASSIGN_OR_RETURN(
      ComputeDevice::Memory memory,
      device_->Allocate(static_cast<size_t>(p.batch * rows * heads * p.head_dim) *
                        kernels::DtypeBytes(dtype)));
  memory_.push_back(std::move(memory));
  return kernels::ContiguousTensor(memory_.back().get(), dtype, p.batch, rows, heads, p.head_dim);
}

absl::StatusOr<annulusRowStat> KernelCase::NewRowStat() {
  const Problem& p = shape_.problem;
  ANNULUS_ASSIGN_OR_RETURN(
      ComputeDevice::Memory memory,
      device_->Allocate(static_cast<size_t>(p.batch * p.query_length * p.query_heads) *
                        sizeof(float)));
  memory_.push_back(std::move(memory));
  return kernels::ContiguousRowStat(static_cast<float*>(memory_.back().get()), p.batch,
                                    p.query_length, p.query_heads);
}

absl::Status KernelCase::MakeTensors(bool backward, uint64_t seed) {
  const Problem& p = shape_.problem;
  const annulusDtype dtype = ToKernels(p.dtype);
  const auto fill = [&](const annulusTensor& t, const char* name) {
    client::TensorView drawn{nullptr,   p.dtype, t.batch, t.rows, static_cast<int32_t>(t.heads),
                             p.head_dim};
    std::vector<char> bytes(drawn.bytes());
    drawn.data = bytes.data();
    FillNormal(drawn, seed, name);
    return device_->Copy({sizeof(annulusCopyArgs), t.data, drawn.data, bytes.size(), 1, 0, 0});
  };
  annulusAttendArgs& f = forward_;
  f.struct_size = sizeof(f);
  ANNULUS_ASSIGN_OR_RETURN(f.q, NewTensor(dtype, true));
  ANNULUS_ASSIGN_OR_RETURN(f.k, NewTensor(dtype, false));
  ANNULUS_ASSIGN_OR_RETURN(f.v, NewTensor(dtype, false));
  ANNULUS_ASSIGN_OR_RETURN(f.o, NewTensor(ANNULUS_F32, true));
  ANNULUS_ASSIGN_OR_RETURN(f.lse, NewRowStat());
  ANNULUS_RETURN_IF_ERROR(fill(f.q, "q"));
  ANNULUS_RETURN_IF_ERROR(fill(f.k, "k"));
  ANNULUS_RETURN_IF_ERROR(fill(f.v, "v"));
  q_span_ = {0, p.query_length, 0, 1};
  kv_span_ = {0, p.kv_length, 0, 1};
  f.q_spans = &q_span_;
  f.kv_spans = &kv_span_;
  f.q_span_count = f.kv_span_count = 1;
  f.mask.kind =
      shape_.mask.kind == ring::MaskKind::kCausal ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL;
  f.mask.causal_offset = ring::CausalOffset(p.query_length, p.kv_length);
  f.mask.window_left = shape_.mask.window_left;
  f.softmax_scale = 1 / std::sqrt(static_cast<float>(p.head_dim));
  if (!backward) return absl::OkStatus();
  annulusAttendBackwardArgs& b = backward_;
  b.struct_size = sizeof(b);
  b.q = f.q;
  b.k = f.k;
  b.v = f.v;
  b.lse = f.lse;
  ANNULUS_ASSIGN_OR_RETURN(b.d_o, NewTensor(dtype, true));
  ANNULUS_ASSIGN_OR_RETURN(b.dq, NewTensor(ANNULUS_F32, true));
  ANNULUS_ASSIGN_OR_RETURN(b.dk, NewTensor(ANNULUS_F32, false));
  ANNULUS_ASSIGN_OR_RETURN(b.dv, NewTensor(ANNULUS_F32, false));
  ANNULUS_ASSIGN_OR_RETURN(b.delta, NewRowStat());
  ANNULUS_RETURN_IF_ERROR(fill(b.d_o, "do"));
  b.q_spans = f.q_spans;
  b.kv_spans = f.kv_spans;
  b.q_span_count = b.kv_span_count = 1;
  b.mask = f.mask;
  b.softmax_scale = f.softmax_scale;
  return absl::OkStatus();
}

absl::StatusOr<double> KernelCase::Run(ring::Direction direction) {
  return direction == ring::Direction::kBackward ? RunBackward() : RunForward();
}

absl::StatusOr<double> KernelCase::RunForward() {
  const annulusComputeV1& api = device_->api();
  ANNULUS_RETURN_IF_ERROR(
      device_->Time([&] { return api.reset(device_->stream(), &forward_.o, &forward_.lse); })
          .status());
  forward_done_ = true;
  return device_->Time([&] { return api.attend(device_->stream(), &forward_); });
}

absl::StatusOr<double> KernelCase::RunBackward() {
  const annulusComputeV1& api = device_->api();
  if (!forward_done_) ANNULUS_RETURN_IF_ERROR(RunForward().status());
  if (!delta_done_) {
    const auto prepare = [&] {
      return api.backward_prepare(device_->stream(), &backward_.d_o, &forward_.o, &backward_.delta);
    };
    ANNULUS_RETURN_IF_ERROR(device_->Time(prepare).status());
    delta_done_ = true;
  }
  return device_->Time([&] { return api.attend_backward(device_->stream(), &backward_); });
}

}  // namespace annulus::cli::bench
