// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/few_rows.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/few_rows_kernel.h"
#include "kernels/cpu/gather.h"
#include "kernels/cpu/row_map.h"
#include "kernels/cpu/tile.h"
#include "kernels/tensor_view.h"

namespace annulus::kernels::cpu {
namespace {

// Keys of a chunk, which one thread attends: large enough that merging it costs nothing beside it,
// small enough that 32K keys of one head make work for a dozen threads.
constexpr int64_t kChunkKeys = 2 * kKeyTile;

// Whether `next` goes on where `span` ends, which then holds both.
bool Join(const annulusSpan& next, annulusSpan* span) {
  if (next.row != span->row + span->count) return false;
  const int64_t step = next.position - (span->position + (span->count - 1) * span->stride);
  const bool goes_on = step >= 1 && (span->count == 1 || span->stride == step) &&
                       (next.count == 1 || next.stride == step);
  if (!goes_on) return false;
  span->stride = step;
  span->count += next.count;
  return true;
}

// Tiles of at most kKeyTile keys, and chunks of tiles, out of spans.
class KeyCutter {
 public:
  KeyCutter(std::vector<annulusSpan>* tiles, std::vector<IndexRange>* chunks)
      : tiles_(*tiles), chunks_(*chunks) {
    tiles_.clear();
    chunks_.clear();
  }

  void Cut(const annulusSpan* spans, size_t span_count) {
    annulusSpan joined = {};
    for (size_t s = 0; s < span_count; ++s) {
      if (spans[s].count == 0 || (joined.count > 0 && Join(spans[s], &joined))) continue;
      AddTiles(joined);
      joined = spans[s];
    }
    AddTiles(joined);
  }

 private:
  void AddTiles(const annulusSpan& span) {
    for (int64_t key = 0; key < span.count; key += kKeyTile) {
      const int64_t count = std::min(kKeyTile, span.count - key);
      AddTile({span.row + key, count, span.position + key * span.stride, span.stride});
    }
  }

  void AddTile(const annulusSpan& tile) {
    const auto index = static_cast<int64_t>(tiles_.size());
    tiles_.push_back(tile);
    if (tile.count > room_) {
      chunks_.push_back({index, index});
      room_ = kChunkKeys;
    }
    ++chunks_.back().end;
    room_ -= tile.count;
  }

  std::vector<annulusSpan>& tiles_;
  std::vector<IndexRange>& chunks_;
  int64_t room_ = 0;  // of the last chunk, in keys
};

class FewRowsPass {
 public:
  FewRowsPass(const annulusAttendArgs& args, Workspace* workspace)
      : args_(args),
        workspace_(*workspace),
        head_dim_(args.q.head_dim),
        group_(args.q.heads / args.k.heads),
        stride_(PaddedHeadDim(head_dim_)) {}

  void Run() {
    workspace_.queries.Assign(args_.q_spans, args_.q_span_count);
    KeyCutter(&workspace_.few_rows_tiles, &workspace_.few_rows_chunks)
        .Cut(args_.kv_spans, args_.kv_span_count);
    rows_ = workspace_.queries.size() * group_;
    chunks_ = static_cast<int64_t>(workspace_.few_rows_chunks.size());
    if (rows_ == 0 || chunks_ == 0) return;
    const int64_t heads = args_.k.batch * args_.k.heads;
    Reserve(heads);
    workspace_.pool.Parallel(heads, [&](int64_t head, int) { Pack(head); });
    const int64_t sets = CeilDiv(args_.k.heads, kFewRowsHeads);
    workspace_.pool.Parallel(args_.k.batch * sets * chunks_, [&](int64_t item, int thread) {
      const int64_t batch = item / sets % args_.k.batch;
      AttendChunk(batch, item % sets * kFewRowsHeads, item / sets / args_.k.batch, thread);
    });
    workspace_.pool.Parallel(heads, [&](int64_t head, int) { Merge(head); });
  }

 private:
  void Reserve(int64_t heads) {
    workspace_.packed_queries.Reserve(heads * rows_ * stride_);
    workspace_.packed_keys.Reserve(heads * chunks_ * rows_ * stride_);
    workspace_.partial_states.resize(heads * chunks_ * 2 * kFewRowsStates);
    workspace_.partials.resize(heads * chunks_);
    workspace_.row_positions.resize(rows_);
    for (AlignedBuffer& buffer : workspace_.per_thread) buffer.Reserve(kFewRowsScratch);
    for (int64_t i = 0; i < heads * chunks_; ++i) {
      float* const states = workspace_.partial_states.data() + i * 2 * kFewRowsStates;
      workspace_.partials[i] = {states, states + kFewRowsStates,
                                workspace_.packed_keys.data() + i * rows_ * stride_};
    }
    const int64_t queries = workspace_.queries.size();
    for (int64_t row = 0; row < rows_; ++row) {
      workspace_.row_positions[row] = workspace_.queries.positions[row % queries];
    }
  }

  float* PackedQueries(int64_t head) const {
    return workspace_.packed_queries.data() + head * rows_ * stride_;
  }

  // The rows of a KV head: its group's first head's queries, its second head's, ...
  void Pack(int64_t head) {
    const int64_t count = workspace_.queries.size();
    for (int64_t member = 0; member < group_; ++member) {
      const HeadRows rows = GatherHead(args_.q, Batch(head), QueryHead(head, member),
                                       workspace_.queries.rows.data(), count, 0);
      PackFewRows(rows, args_.softmax_scale, PackedQueries(head) + member * count * stride_);
    }
  }

  // Up to kFewRowsHeads KV heads from `first_head` of the batch entry on.
  void AttendChunk(int64_t batch, int64_t first_head, int64_t chunk, int thread) {
    const int64_t head_count = std::min(kFewRowsHeads, args_.k.heads - first_head);
    FewRowsHead heads[kFewRowsHeads];
    for (int64_t i = 0; i < head_count; ++i) {
      const int64_t kv_head = first_head + i;
      const int64_t head = batch * args_.k.heads + kv_head;
      heads[i] = {PackedQueries(head), RowPointer(args_.k, batch, 0, kv_head),
                  RowPointer(args_.v, batch, 0, kv_head),
                  workspace_.partials[head * chunks_ + chunk]};
    }
    const IndexRange tiles = workspace_.few_rows_chunks[chunk];
    AttendFewRows(heads, head_count,
                  {args_.k.dtype, head_dim_, args_.k.row_stride, args_.v.row_stride,
                   workspace_.row_positions.data(), rows_,
                   workspace_.few_rows_tiles.data() + tiles.begin, tiles.size(), args_.mask},
                  workspace_.per_thread[thread].data());
  }

  void Merge(int64_t head) {
    const int64_t count = workspace_.queries.size();
    for (int64_t row = 0; row < rows_; ++row) {
      const int64_t q_head = QueryHead(head, row / count);
      const int64_t at = workspace_.queries.rows[row % count] + args_.o_row_offset;
      MergeFewRows(workspace_.partials.data() + head * chunks_, chunks_, row, head_dim_,
                   FloatRow(args_.o, Batch(head), at, q_head),
                   &RowStatAt(args_.lse, Batch(head), at, q_head));
    }
  }

  int64_t Batch(int64_t head) const { return head / args_.k.heads; }
  int64_t QueryHead(int64_t head, int64_t member) const {
    return head % args_.k.heads * group_ + member;
  }

  const annulusAttendArgs& args_;
  Workspace& workspace_;
  const int64_t head_dim_;
  const int64_t group_;
  const int64_t stride_;
  int64_t rows_ = 0;    // of a KV head
  int64_t chunks_ = 0;  // of the keys
};

}  // namespace

bool HasFewRows(const annulusAttendArgs& args) {
  if (args.k.dtype != args.v.dtype) return false;
  int64_t queries = 0;
  for (size_t i = 0; i < args.q_span_count; ++i) queries += args.q_spans[i].count;
  return queries * (args.q.heads / args.k.heads) <= kFewRowsMax;
}

void AttendFewRows(const annulusAttendArgs& args, Workspace* workspace) {
  FewRowsPass(args, workspace).Run();
}

}  // namespace annulus::kernels::cpu
