// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/compute_plugin.h"
#include "server/ring/plan.h"
#include "server/transport/transport_plugin.h"
#include "server/worker/device.h"
#include "server/worker/row_runs.h"
#include "server/worker/session.h"

namespace annulus::worker {

// A tensor in memory with the tokens of its rows: a caller's, or a dense part of a slot. Does not
// own; `tokens` outlives it. heads of head_dim elements are contiguous; LSE and delta have head_dim
// 1 and head_stride 1. Strides in elements.
struct PlacedTensor {
  uint8_t* data = nullptr;
  annulusDtype dtype = ANNULUS_F32;
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t batch_stride = 0;
  int64_t row_stride = 0;
  int64_t head_stride = 0;
  const ring::TokenRanges* tokens = nullptr;
  Memory memory = Memory::kDevice;
  bool leased = false;  // lies in a client's region, not in memory of the worker's own

  // Whether the elements of a row lie next to each other.
  bool dense_rows() const { return head_stride == head_dim || heads == 1; }
  int64_t row_bytes() const;
  uint8_t* Row(int64_t batch_index, int64_t row) const;
};

PlacedTensor PlaceResolved(const ResolvedTensor& tensor);
// [batch, tokens, heads, head_dim] without gaps from `data` on.
PlacedTensor PlaceDense(uint8_t* data, annulusDtype dtype, int64_t batch, int64_t heads,
                        int64_t head_dim, const ring::TokenRanges* tokens);

// `rows` rows of the tensor: view.row, view.row + view.row_step, ...
annulusTensor View(const PlacedTensor& tensor, const Rows& view, int64_t rows);
annulusRowStat StatView(const PlacedTensor& tensor, const Rows& view, int64_t rows);

// The bytes of the runs' rows in tensor number `which` of the runs, batch by batch in run order,
// as pieces of memory; neighbours are joined. False, with `segments` undefined, when it would take
// more than `most`.
bool AppendSegments(const PlacedTensor& tensor, std::span<const RowRun> runs, size_t which,
                    size_t most, std::vector<annulusSegment>* segments);

// Appends what copies the rows of tensor 0 of the runs to those of tensor 1; both of the same shape
// and type. A copy takes a run of rows, as one piece where they lie next to each other on both
// sides, or the heads of a row.
void AppendCopies(const PlacedTensor& from, const PlacedTensor& to, std::span<const RowRun> runs,
                  std::vector<annulusCopyArgs>* copies);

// Bytes of [batch, tokens, heads, head_dim] elements; saturates instead of overflowing.
uint64_t DenseBytes(int64_t batch, int64_t tokens, int64_t heads, int64_t head_dim,
                    annulusDtype dtype);

}  // namespace annulus::worker
