// SPDX-License-Identifier: Apache-2.0
#include "server/worker/shard_view.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "server/worker/tensor_bounds.h"

namespace annulus::worker {

int64_t PlacedTensor::row_bytes() const { return heads * head_dim * ElementBytes(dtype); }

uint8_t* PlacedTensor::Row(int64_t batch_index, int64_t row) const {
  return data + (batch_index * batch_stride + row * row_stride) * ElementBytes(dtype);
}

PlacedTensor PlaceResolved(const ResolvedTensor& tensor) {
  const TensorRef& ref = tensor.ref;
  return {tensor.data,      ref.dtype,      ref.batch,       ref.heads,  std::max(ref.head_dim, 1),
          ref.batch_stride, ref.row_stride, ref.head_stride, &ref.tokens};
}

PlacedTensor PlaceDense(uint8_t* data, annulusDtype dtype, int64_t batch, int64_t heads,
                        int64_t head_dim, const ring::TokenRanges* tokens) {
  const int64_t row = heads * head_dim;
  return {data, dtype,    batch, heads, head_dim, ring::TokenCount(*tokens) * row,
          row,  head_dim, tokens};
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

void CopyRows(const PlacedTensor& from, const PlacedTensor& to, std::span<const RowRun> runs) {
  const int64_t element_bytes = ElementBytes(from.dtype);
  for (int64_t b = 0; b < from.batch; ++b) {
    for (const RowRun& run : runs) {
      for (int64_t i = 0; i < run.count; ++i) {
        const uint8_t* source = from.Row(b, run.in[0].row + i * run.in[0].row_step);
        uint8_t* target = to.Row(b, run.in[1].row + i * run.in[1].row_step);
        if (from.dense_rows() && to.dense_rows()) {
          std::memcpy(target, source, static_cast<size_t>(from.row_bytes()));
          continue;
        }
        for (int64_t head = 0; head < from.heads; ++head) {
          std::memcpy(target + head * to.head_stride * element_bytes,
                      source + head * from.head_stride * element_bytes,
                      static_cast<size_t>(from.head_dim * element_bytes));
        }
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
