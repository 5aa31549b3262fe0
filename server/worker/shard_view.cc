// SPDX-License-Identifier: Apache-2.0
#include "server/worker/shard_view.h"

#include <algorithm>
#include <limits>

#include "server/worker/tensor_bounds.h"

namespace annulus::worker {

int64_t PlacedTensor::row_bytes() const { return heads * head_dim * ElementBytes(dtype); }

uint8_t* PlacedTensor::Row(int64_t batch_index, int64_t row) const {
  return data + (batch_index * batch_stride + row * row_stride) * ElementBytes(dtype);
}

PlacedTensor PlaceResolved(const ResolvedTensor& tensor) {
  const TensorRef& ref = tensor.ref;
  return {tensor.data,      ref.dtype,      ref.batch,       ref.heads,   std::max(ref.head_dim, 1),
          ref.batch_stride, ref.row_stride, ref.head_stride, &ref.tokens, tensor.memory};
}

PlacedTensor PlaceDense(uint8_t* data, annulusDtype dtype, int64_t batch, int64_t heads,
                        int64_t head_dim, const ring::TokenRanges* tokens) {
  const int64_t row = heads * head_dim;
  return {data, dtype,    batch,  heads,          head_dim, ring::TokenCount(*tokens) * row,
          row,  head_dim, tokens, Memory::kDevice};
}

annulusTensor View(const PlacedTensor& tensor, const Rows& view, int64_t rows) {
  return {tensor.Row(0, view.row),
          tensor.dtype,
          tensor.batch,
          rows,
          tensor.heads,
          tensor.head_dim,
          tensor.batch_stride,
          tensor.row_stride * view.row_step,
          tensor.head_stride};
}

annulusRowStat StatView(const PlacedTensor& tensor, const Rows& view, int64_t rows) {
  return {reinterpret_cast<float*>(tensor.Row(0, view.row)),
          tensor.batch,
          rows,
          tensor.heads,
          tensor.batch_stride,
          tensor.row_stride * view.row_step};
}

namespace {

// Calls visit(first byte in `tensor`, bytes, tokens' row index within the run) for pieces that are
// contiguous: a whole run where possible, else rows, else heads. Stops when visit returns false.
template <typename Visit>
bool ForEachPiece(const PlacedTensor& tensor, const RowRun& run, size_t which, int64_t batch_index,
                  const Visit& visit) {
  const Rows& rows = run.in[which];
  const int64_t row_elements = tensor.heads * tensor.head_dim;
  if (tensor.dense_rows() && tensor.row_stride * rows.row_step == row_elements) {
    return visit(tensor.Row(batch_index, rows.row), run.count * tensor.row_bytes());
  }
  for (int64_t i = 0; i < run.count; ++i) {
    uint8_t* row = tensor.Row(batch_index, rows.row + i * rows.row_step);
    if (tensor.dense_rows()) {
      if (!visit(row, tensor.row_bytes())) return false;
      continue;
    }
    const int64_t element_bytes = ElementBytes(tensor.dtype);
    for (int64_t head = 0; head < tensor.heads; ++head) {
      if (!visit(row + head * tensor.head_stride * element_bytes,
                 tensor.head_dim * element_bytes)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

bool AppendSegments(const PlacedTensor& tensor, std::span<const RowRun> runs, size_t which,
                    size_t most, std::vector<annulusSegment>* segments) {
  const auto append = [&](uint8_t* data, int64_t bytes) {
    if (!segments->empty()) {
      annulusSegment& last = segments->back();
      if (static_cast<uint8_t*>(last.data) + last.bytes == data) {
        last.bytes += static_cast<size_t>(bytes);
        return true;
      }
    }
    if (segments->size() == most) return false;
    segments->push_back({data, static_cast<size_t>(bytes)});
    return true;
  };
  for (int64_t b = 0; b < tensor.batch; ++b) {
    for (const RowRun& run : runs) {
      if (!ForEachPiece(tensor, run, which, b, append)) return false;
    }
  }
  return true;
}

namespace {

annulusCopyArgs CopyOf(uint8_t* to, const uint8_t* from, int64_t row_bytes, int64_t rows,
                       int64_t to_pitch, int64_t from_pitch) {
  if (to_pitch == row_bytes && from_pitch == row_bytes) {
    row_bytes *= rows;
    rows = 1;
  }
  if (rows == 1) to_pitch = from_pitch = row_bytes;
  return {sizeof(annulusCopyArgs),
          to,
          from,
          static_cast<size_t>(row_bytes),
          static_cast<size_t>(rows),
          static_cast<size_t>(to_pitch),
          static_cast<size_t>(from_pitch)};
}

}  // namespace

void AppendCopies(const PlacedTensor& from, const PlacedTensor& to, std::span<const RowRun> runs,
                  std::vector<annulusCopyArgs>* copies) {
  const int64_t element_bytes = ElementBytes(from.dtype);
  const auto pitch = [&](const PlacedTensor& tensor, const Rows& rows) {
    return tensor.row_stride * rows.row_step * element_bytes;
  };
  for (int64_t b = 0; b < from.batch; ++b) {
    for (const RowRun& run : runs) {
      if (from.dense_rows() && to.dense_rows()) {
        copies->push_back(CopyOf(to.Row(b, run.in[1].row), from.Row(b, run.in[0].row),
                                 from.row_bytes(), run.count, pitch(to, run.in[1]),
                                 pitch(from, run.in[0])));
        continue;
      }
      for (int64_t i = 0; i < run.count; ++i) {
        copies->push_back(CopyOf(to.Row(b, run.in[1].row + i * run.in[1].row_step),
                                 from.Row(b, run.in[0].row + i * run.in[0].row_step),
                                 from.head_dim * element_bytes, from.heads,
                                 to.head_stride * element_bytes, from.head_stride * element_bytes));
      }
    }
  }
}

uint64_t DenseBytes(int64_t batch, int64_t tokens, int64_t heads, int64_t head_dim,
                    annulusDtype dtype) {
  uint64_t bytes = static_cast<uint64_t>(ElementBytes(dtype));
  for (const int64_t factor : {batch, tokens, heads, head_dim}) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(factor), &bytes)) {
      return std::numeric_limits<uint64_t>::max();
    }
  }
  return bytes;
}

}  // namespace annulus::worker
