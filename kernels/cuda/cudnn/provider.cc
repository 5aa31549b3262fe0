// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/provider.h"

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "kernels/cuda/kernel_params.h"
#include "kernels/cuda/launch_plan.h"
#include "kernels/tensor_view.h"
#include "server/base/status_macros.h"

namespace annulus::kernels::cuda {
namespace {

constexpr int64_t kHeadDimMax = 128;  // cuDNN takes more on some devices only
constexpr int64_t kAlignmentBytes = 16;

// What cuDNN computes: one 16-bit format, rows that are 16-byte aligned.
bool Takes(std::initializer_list<const annulusTensor*> tensors) {
  const annulusTensor& first = **tensors.begin();
  if (first.dtype == ANNULUS_F32 || first.head_dim > kHeadDimMax) return false;
  for (const annulusTensor* tensor : tensors) {
    const int64_t each = kAlignmentBytes / 2;
    if (tensor->dtype != first.dtype || tensor->batch == 0 || tensor->heads == 0 ||
        reinterpret_cast<uintptr_t>(tensor->data) % kAlignmentBytes != 0 ||
        tensor->batch_stride % each != 0 || tensor->row_stride % each != 0 ||
        tensor->head_stride % each != 0) {
      return false;
    }
  }
  return true;
}

template <typename Params>
absl::Status LaunchAll(Driver* driver, const std::vector<PlannedLaunch<Params>>& launches,
                       Driver::Stream stream) {
  for (const PlannedLaunch<Params>& launch : launches) {
    ANNULUS_RETURN_IF_ERROR(driver->Launch(launch.kernel, launch.blocks, &launch.params, stream));
  }
  return absl::OkStatus();
}

absl::Status LaunchRows(Driver* driver, KernelId kernel, const PartialParams& params,
                        Driver::Stream stream) {
  ANNULUS_ASSIGN_OR_RETURN(const int64_t blocks, BlocksForRows(params.a));
  return driver->Launch(kernel, blocks, &params, stream);
}

// `count` rows from `row` on.
annulusTensor Rows(annulusTensor tensor, int64_t row, int64_t count) {
  tensor.data = const_cast<void*>(RowPointer(tensor, 0, row, 0));
  tensor.rows = count;
  return tensor;
}

annulusRowStat Rows(annulusRowStat stat, int64_t row, int64_t count) {
  stat.data += row * stat.row_stride;
  stat.rows = count;
  return stat;
}

// A tensor of the scratch memory, of the shape of `like`; `memory` is its address.
annulusTensor Packed(void* memory, const annulusTensor& like, annulusDtype dtype) {
  return ContiguousTensor(memory, dtype, like.batch, like.rows, like.heads, like.head_dim);
}

size_t PackedBytes(const annulusTensor& like) {
  return static_cast<size_t>(like.batch * like.rows * like.heads * like.head_dim) *
         DtypeBytes(like.dtype);
}

size_t StatBytes(const annulusTensor& like) {
  return static_cast<size_t>(like.batch * like.rows * like.heads) * sizeof(float);
}

AttentionStrides StridesOf(const annulusTensor& tensor) {
  return {tensor.batch_stride, tensor.row_stride, tensor.head_stride};
}

AttentionShape ShapeOfPiece(AttentionPass pass, bool causal, const annulusTensor& q,
                            const annulusTensor& k, const annulusTensor& v) {
  return {pass,      causal,  q.dtype,    q.batch,      q.rows,       k.rows,
          q.heads,   k.heads, q.head_dim, StridesOf(q), StridesOf(k), StridesOf(v),
          /*d_o=*/{}};
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudnnProvider>> CudnnProvider::Open(Driver* driver,
                                                                   bool deterministic) {
  ANNULUS_RETURN_IF_ERROR(driver->MakeCurrent());
  ANNULUS_ASSIGN_OR_RETURN(std::unique_ptr<CudnnApi> api, OpenCudnn());
  return std::unique_ptr<CudnnProvider>(new CudnnProvider(driver, std::move(api), deterministic));
}

absl::Status CudnnProvider::AttendPiece(const annulusAttendArgs& args, const CudnnPiece& piece,
                                        Driver::Stream stream) {
  const annulusTensor q = Rows(args.q, piece.q_row, piece.q_rows);
  const annulusTensor k = Rows(args.k, piece.kv_row, piece.kv_rows);
  const annulusTensor v = Rows(args.v, piece.kv_row, piece.kv_rows);
  ANNULUS_ASSIGN_OR_RETURN(
      AttentionPlan* const plan,
      plans_.Get(ShapeOfPiece(AttentionPass::kForward, piece.causal, q, k, v)));
  ScratchLayout layout;
  const size_t o_at = layout.Take(PackedBytes(q));
  const size_t stats_at = layout.Take(StatBytes(q));
  const size_t workspace_at = layout.Take(plan->workspace_bytes());
  ANNULUS_ASSIGN_OR_RETURN(char* const scratch, scratch_.Reserve(stream, layout.bytes()));

  AttentionBuffers buffers = {};
  buffers.q = q.data;
  buffers.k = k.data;
  buffers.v = v.data;
  buffers.o = scratch + o_at;
  buffers.stats = reinterpret_cast<float*>(scratch + stats_at);
  buffers.workspace = scratch + workspace_at;
  buffers.softmax_scale = args.softmax_scale;
  ANNULUS_RETURN_IF_ERROR(plan->Execute(buffers, stream));
  const int64_t o_row = piece.q_row + args.o_row_offset;
  return LaunchRows(driver_, KernelId::kMergePartial,
                    {Rows(args.o, o_row, piece.q_rows),
                     Packed(buffers.o, q, q.dtype),
                     Rows(args.lse, o_row, piece.q_rows),
                     {},
                     buffers.stats},
                    stream);
}

absl::Status CudnnProvider::Attend(const annulusAttendArgs& args, Driver::Stream stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ANNULUS_RETURN_IF_ERROR(driver_->MakeCurrent());
  if (!Takes({&args.q, &args.k, &args.v})) {
    ANNULUS_ASSIGN_OR_RETURN(const auto launches, PlanAttend(args));
    return LaunchAll(driver_, launches, stream);
  }
  const CallSplit split =
      SplitCall(args.q_spans, args.q_span_count, args.kv_spans, args.kv_span_count, args.mask);
  for (const CudnnPiece& piece : split.cudnn) {
    ANNULUS_RETURN_IF_ERROR(AttendPiece(args, piece, stream));
  }
  for (const PortablePiece& piece : split.portable) {
    annulusAttendArgs rest = args;
    rest.q_spans = &piece.q;
    rest.kv_spans = &piece.kv;
    rest.q_span_count = rest.kv_span_count = 1;
    ANNULUS_ASSIGN_OR_RETURN(const auto launches, PlanAttend(rest));
    ANNULUS_RETURN_IF_ERROR(LaunchAll(driver_, launches, stream));
  }
  return absl::OkStatus();
}

absl::Status CudnnProvider::BackwardPiece(const annulusAttendBackwardArgs& args,
                                          const CudnnPiece& piece, Driver::Stream stream) {
  const annulusTensor q = Rows(args.q, piece.q_row, piece.q_rows);
  const annulusTensor k = Rows(args.k, piece.kv_row, piece.kv_rows);
  const annulusTensor v = Rows(args.v, piece.kv_row, piece.kv_rows);
  const annulusTensor d_o = Rows(args.d_o, piece.q_row, piece.q_rows);
  AttentionShape shape = ShapeOfPiece(AttentionPass::kBackward, piece.causal, q, k, v);
  shape.d_o = StridesOf(d_o);
  ANNULUS_ASSIGN_OR_RETURN(AttentionPlan* const plan, plans_.Get(shape));
  ScratchLayout layout;
  const size_t o_at = layout.Take(PackedBytes(q));
  const size_t stats_at = layout.Take(StatBytes(q));
  const size_t dq_at = layout.Take(PackedBytes(q));
  const size_t dk_at = layout.Take(PackedBytes(k));
  const size_t dv_at = layout.Take(PackedBytes(v));
  const size_t workspace_at = layout.Take(plan->workspace_bytes());
  ANNULUS_ASSIGN_OR_RETURN(char* const scratch, scratch_.Reserve(stream, layout.bytes()));

  const AttentionBuffers buffers = {q.data,
                                    k.data,
                                    v.data,
                                    scratch + o_at,
                                    reinterpret_cast<float*>(scratch + stats_at),
                                    d_o.data,
                                    scratch + dq_at,
                                    scratch + dk_at,
                                    scratch + dv_at,
                                    scratch + workspace_at,
                                    args.softmax_scale};
  const int64_t dq_row = piece.q_row + args.dq_row_offset;
  const int64_t dkv_row = piece.kv_row + args.dkv_row_offset;
  const annulusRowStat lse = Rows(args.lse, dq_row, piece.q_rows);
  const annulusRowStat delta = Rows(args.delta, dq_row, piece.q_rows);
  ANNULUS_RETURN_IF_ERROR(
      LaunchRows(driver_, KernelId::kBackwardInputs,
                 {d_o, Packed(buffers.o, q, q.dtype), lse, delta, buffers.stats}, stream));
  ANNULUS_RETURN_IF_ERROR(plan->Execute(buffers, stream));
  const PartialParams sums[] = {
      {Rows(args.dq, dq_row, q.rows), Packed(buffers.dq, q, q.dtype), {}, {}, nullptr},
      {Rows(args.dk, dkv_row, k.rows), Packed(buffers.dk, k, k.dtype), {}, {}, nullptr},
      {Rows(args.dv, dkv_row, v.rows), Packed(buffers.dv, v, v.dtype), {}, {}, nullptr}};
  for (const PartialParams& sum : sums) {
    ANNULUS_RETURN_IF_ERROR(LaunchRows(driver_, KernelId::kAddRows, sum, stream));
  }
  return absl::OkStatus();
}

absl::Status CudnnProvider::AttendBackward(const annulusAttendBackwardArgs& args,
                                           Driver::Stream stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ANNULUS_RETURN_IF_ERROR(driver_->MakeCurrent());
  if (deterministic_ || !Takes({&args.q, &args.k, &args.v, &args.d_o})) {
    ANNULUS_ASSIGN_OR_RETURN(const auto launches, PlanAttendBackward(args));
    return LaunchAll(driver_, launches, stream);
  }
  const CallSplit split =
      SplitCall(args.q_spans, args.q_span_count, args.kv_spans, args.kv_span_count, args.mask);
  for (const CudnnPiece& piece : split.cudnn) {
    ANNULUS_RETURN_IF_ERROR(BackwardPiece(args, piece, stream));
  }
  for (const PortablePiece& piece : split.portable) {
    annulusAttendBackwardArgs rest = args;
    rest.q_spans = &piece.q;
    rest.kv_spans = &piece.kv;
    rest.q_span_count = rest.kv_span_count = 1;
    ANNULUS_ASSIGN_OR_RETURN(const auto launches, PlanAttendBackward(rest));
    ANNULUS_RETURN_IF_ERROR(LaunchAll(driver_, launches, stream));
  }
  return absl::OkStatus();
}

void CudnnProvider::Release(Driver::Stream stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  scratch_.Release(stream);
}

}  // namespace annulus::kernels::cuda
