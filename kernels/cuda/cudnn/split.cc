// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/split.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/tile_schedule.h"

namespace annulus::kernels::cuda {
namespace {

annulusSpan Part(const annulusSpan& span, int64_t first, int64_t count) {
  return {span.row + first, count, span.position + first * span.stride, span.stride};
}

int64_t LastPosition(const annulusSpan& span) {
  return span.position + (span.count - 1) * span.stride;
}

bool SeesAll(const annulusMask& mask, const annulusSpan& q, const annulusSpan& kv) {
  const bool causal = mask.kind == ANNULUS_MASK_CAUSAL;
  if (causal && LastPosition(kv) > q.position + mask.causal_offset) return false;
  return mask.window_left < 0 ||
         kv.position >= LastPosition(q) + mask.causal_offset - mask.window_left;
}

bool SeesNothing(const annulusMask& mask, const annulusSpan& q, const annulusSpan& kv) {
  const bool causal = mask.kind == ANNULUS_MASK_CAUSAL;
  if (causal && kv.position > LastPosition(q) + mask.causal_offset) return true;
  return mask.window_left >= 0 &&
         LastPosition(kv) < q.position + mask.causal_offset - mask.window_left;
}

// What follows another piece without a gap, and sees all of it, becomes one with it.
bool Joined(const CudnnPiece& next, CudnnPiece* last) {
  if (next.causal || last->causal) return false;
  const bool same_q = next.q_row == last->q_row && next.q_rows == last->q_rows;
  const bool same_kv = next.kv_row == last->kv_row && next.kv_rows == last->kv_rows;
  if (same_q && next.kv_row == last->kv_row + last->kv_rows) {
    last->kv_rows += next.kv_rows;
    return true;
  }
  if (same_kv && next.q_row == last->q_row + last->q_rows) {
    last->q_rows += next.q_rows;
    return true;
  }
  return false;
}

void AddCudnn(const CudnnPiece& piece, std::vector<CudnnPiece>* pieces) {
  for (CudnnPiece& last : *pieces) {
    if (Joined(piece, &last)) return;
  }
  pieces->push_back(piece);
}

void Add(const annulusSpan& q, const annulusSpan& kv, bool causal, CallSplit* split) {
  if (q.count == 0 || kv.count == 0) return;
  if (q.count < kCudnnRowsMin || kv.count < kCudnnRowsMin) {
    split->portable.push_back({q, kv});
  } else {
    AddCudnn({q.row, q.count, kv.row, kv.count, causal}, &split->cudnn);
  }
}

// A pair of one stride under a causal mask without a window, of which something is seen.
void AddDiagonal(const annulusMask& mask, annulusSpan q, annulusSpan kv, CallSplit* split) {
  int64_t d = FloorDivide(q.position + mask.causal_offset - kv.position, q.stride);
  if (d < 0) {
    q = Part(q, -d, q.count + d);
    d = 0;
  }
  kv = Part(kv, 0, std::min(kv.count, d + q.count));
  Add(q, Part(kv, 0, d), false, split);
  Add(q, Part(kv, d, kv.count - d), true, split);
}

void AddPair(const annulusMask& mask, const annulusSpan& q, const annulusSpan& kv,
             CallSplit* split) {
  if (q.count == 0 || kv.count == 0 || SeesNothing(mask, q, kv)) return;
  if (SeesAll(mask, q, kv)) {
    Add(q, kv, false, split);
  } else if (mask.window_left < 0 && q.stride == kv.stride) {
    AddDiagonal(mask, q, kv, split);
  } else {
    split->portable.push_back({q, kv});
  }
}

}  // namespace

CallSplit SplitCall(const annulusSpan* q_spans, size_t q_span_count, const annulusSpan* kv_spans,
                    size_t kv_span_count, const annulusMask& mask) {
  CallSplit each;
  for (size_t i = 0; i < q_span_count; ++i) {
    for (size_t j = 0; j < kv_span_count; ++j) {
      AddPair(mask, q_spans[i], kv_spans[j], &each);
    }
  }
  // Rows of keys were joined first; what has the same keys now may be joined over its queries.
  CallSplit split;
  for (const CudnnPiece& piece : each.cudnn) AddCudnn(piece, &split.cudnn);
  split.portable = std::move(each.portable);
  return split;
}

}  // namespace annulus::kernels::cuda
