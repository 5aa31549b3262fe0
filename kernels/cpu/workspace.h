// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/backward_kernel.h"
#include "kernels/cpu/few_rows_kernel.h"
#include "kernels/cpu/forward_kernel.h"
#include "kernels/cpu/multiplier.h"
#include "kernels/cpu/pair_order.h"
#include "kernels/cpu/row_map.h"
#include "kernels/cpu/thread_pool.h"

namespace annulus::kernels::cpu {

// The compute threads of a device and the memory they work in, kept from call to call so that a
// steady state allocates nothing, and what it multiplies by. Used by one call at a time.
struct Workspace {
  Workspace(Multiplier by, int threads, std::vector<int> cpus)
      : multiplier(by), pool(threads, std::move(cpus)), per_thread(threads) {}

  const Multiplier multiplier;
  ThreadPool pool;
  std::vector<AlignedBuffer> per_thread;
  AlignedBuffer packed_keys;
  AlignedBuffer packed_queries;
  RowMap queries;
  RowMap keys;
  std::vector<IndexRange> key_tiles;
  std::vector<KeyTile> tiles;
  std::vector<BackwardKeys> backward_keys;
  std::vector<BackwardQueries> backward_queries;
  PairOrder pair_order;
  std::vector<float> partial_states;
  std::vector<FewRowsPartial> partials;
  std::vector<annulusSpan> few_rows_tiles;
  std::vector<IndexRange> few_rows_chunks;
  std::vector<int64_t> row_positions;
};

}  // namespace annulus::kernels::cpu
