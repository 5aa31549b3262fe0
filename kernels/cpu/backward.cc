// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/backward.h"

#include <algorithm>

#include "kernels/cpu/backward_kernel.h"
#include "kernels/cpu/tile.h"

namespace annulus::kernels::cpu {
namespace {

constexpr int64_t kTilesPerRoundMax = 16;
// Threads that share a head begin and end a round one after the other: theirs are longer.
constexpr int64_t kBlocksPerRound = 8;
constexpr int64_t kSharedBlocksPerRoundMax = 48;
constexpr int64_t kPackedFloatsMax = int64_t{12} << 20;
constexpr int64_t kPackedFormsOfKeys = 3;
constexpr int64_t kPackedFormsOfQueries = 4;
constexpr int64_t kMatrixFloats = kQueryBlock * kScoreRowMax;
constexpr int64_t kGroupFloats = kGroupRowsMax * kScoreRowMax;

// A round packs some key tiles and some query blocks of a few (batch, KV head) pairs, and works
// off all pairs of them (pair_order.h). A query block of a round is one of any head of the KV
// head's group.
struct Round {
  int64_t first_head = 0;
  int64_t head_count = 0;
  IndexRange tiles;
  IndexRange blocks;  // of group * blocks of the sequence
};

class BackwardPass {
 public:
  BackwardPass(const annulusAttendBackwardArgs& args, Workspace* workspace)
      : args_(args),
        workspace_(*workspace),
        head_dim_(args.q.head_dim),
        group_(args.q.heads / args.k.heads),
        choice_(ChooseArithmetic(workspace->multiplier,
                                 {args.q.dtype, args.k.dtype, args.v.dtype, args.d_o.dtype})),
        block_rows_(BackwardBlockRows(choice_)),
        tile_floats_(PackedFloats(kKeyTile, head_dim_)),
        block_floats_(PackedFloats(block_rows_, head_dim_)),
        key_floats_(kPackedFormsOfKeys * tile_floats_ + 2 * SumFloats(kKeyTile)),
        query_floats_(kPackedFormsOfQueries * block_floats_ + SumFloats(block_rows_)) {}

  void Run() {
    workspace_.queries.Assign(args_.q_spans, args_.q_span_count);
    workspace_.keys.Assign(args_.kv_spans, args_.kv_span_count);
    CutTiles(workspace_.keys, kKeyTile, &workspace_.key_tiles);
    blocks_ = CeilDiv(workspace_.queries.size(), block_rows_);
    const int64_t tiles = static_cast<int64_t>(workspace_.key_tiles.size());
    const int64_t all_blocks = blocks_ * group_;
    if (tiles == 0 || all_blocks == 0) return;
    ReserveScratch(tiles, all_blocks);
    const int64_t heads = args_.k.batch * args_.k.heads;
    for (int64_t head = 0; head < heads; head += heads_per_round_) {
      const int64_t head_count = std::min(heads_per_round_, heads - head);
      for (int64_t tile = 0; tile < tiles; tile += tiles_per_round_) {
        const IndexRange tile_range = {tile, std::min(tile + tiles_per_round_, tiles)};
        PackKeys({head, head_count, tile_range, {}});
        for (int64_t block = 0; block < all_blocks; block += blocks_per_round_) {
          const IndexRange block_range = {block, std::min(block + blocks_per_round_, all_blocks)};
          RunRound({head, head_count, tile_range, block_range});
        }
        FinishKeys(head_count * tile_range.size());
      }
    }
  }

 private:
  int64_t SumFloats(int64_t rows) const { return rows * PaddedHeadDim(head_dim_); }

  void ReserveScratch(int64_t tiles, int64_t all_blocks) {
    const int64_t threads = workspace_.pool.threads();
    const int64_t heads = args_.k.batch * args_.k.heads;
    tiles_per_round_ = std::min(tiles, kTilesPerRoundMax);
    const int64_t floats_of_keys = key_floats_ * tiles_per_round_;
    const int64_t least_floats = floats_of_keys + query_floats_ * kBlocksPerRound;
    // A head for each thread: what more heads pack would not stay near until it is used.
    heads_per_round_ =
        std::clamp<int64_t>(kPackedFloatsMax / least_floats, 1, std::min(threads, heads));
    const int64_t room = (kPackedFloatsMax / heads_per_round_ - floats_of_keys) / query_floats_;
    const int64_t blocks = heads_per_round_ == threads
                               ? kBlocksPerRound
                               : std::clamp(room, kBlocksPerRound, kSharedBlocksPerRoundMax);
    blocks_per_round_ = std::min(all_blocks, blocks);
    workspace_.packed_keys.Reserve(floats_of_keys * heads_per_round_);
    workspace_.packed_queries.Reserve(query_floats_ * blocks_per_round_ * heads_per_round_);
    workspace_.backward_keys.resize(tiles_per_round_ * heads_per_round_);
    workspace_.backward_queries.resize(blocks_per_round_ * heads_per_round_);
    for (AlignedBuffer& buffer : workspace_.per_thread) {
      buffer.Reserve(2 * (kMatrixFloats + kGroupFloats) + std::max(tile_floats_, block_floats_));
    }
  }

  BackwardScratch ScratchOf(int thread) {
    float* base = workspace_.per_thread[thread].data();
    float* groups = base + 2 * kMatrixFloats;
    return {base, base + kMatrixFloats, groups, groups + kGroupFloats, groups + 2 * kGroupFloats};
  }

  void PackKeys(const Round& round) {
    const int64_t tiles = round.tiles.size();
    workspace_.pool.Parallel(round.head_count * tiles, [&](int64_t item, int thread) {
      PackOneTile(round, item / tiles, item % tiles, thread);
    });
  }

  void RunRound(const Round& round) {
    const int64_t tiles = round.tiles.size();
    const int64_t blocks = round.blocks.size();
    workspace_.pool.Parallel(round.head_count * blocks, [&](int64_t item, int thread) {
      PackOneBlock(round, item / blocks, item % blocks, thread);
    });
    PairOrder& order = workspace_.pair_order;
    order.Reset(round.head_count, tiles, blocks, workspace_.pool.threads());
    workspace_.pool.Parallel(order.size(), [&](int64_t item, int thread) {
      const PairOrder::Pair pair = order.At(item);
      order.Begin(pair);
      AttendBackwardPair(workspace_.backward_queries[pair.head * blocks + pair.block],
                         workspace_.backward_keys[pair.head * tiles + pair.tile], args_.mask,
                         args_.softmax_scale, choice_, ScratchOf(thread));
      order.End(pair);
    });
    workspace_.pool.Parallel(round.head_count * blocks, [&](int64_t item, int) {
      FinishBackwardQueries(workspace_.backward_queries[item], args_.softmax_scale);
    });
  }

  void FinishKeys(int64_t count) {
    workspace_.pool.Parallel(count, [&](int64_t item, int thread) {
      FinishBackwardKeys(workspace_.backward_keys[item], args_.softmax_scale, choice_,
                         ScratchOf(thread).staging);
    });
  }

  void PackOneTile(const Round& round, int64_t head, int64_t index, int thread) {
    const int64_t batch = (round.first_head + head) / args_.k.heads;
    const int64_t kv_head = (round.first_head + head) % args_.k.heads;
    const IndexRange range = workspace_.key_tiles[round.tiles.begin + index];
    const int64_t* rows = workspace_.keys.rows.data() + range.begin;
    const int64_t count = range.size();
    const int64_t slot = head * round.tiles.size() + index;
    BackwardKeys& keys = workspace_.backward_keys[slot];
    keys.k_columns = workspace_.packed_keys.data() + slot * key_floats_;
    keys.v_columns = keys.k_columns + tile_floats_;
    keys.k_panels = keys.v_columns + tile_floats_;
    keys.dk_sums = keys.k_panels + tile_floats_;
    keys.dv_sums = keys.dk_sums + SumFloats(kKeyTile);
    keys.dk = GatherHead(args_.dk, batch, kv_head, rows, count, args_.dkv_row_offset);
    keys.dv = GatherHead(args_.dv, batch, kv_head, rows, count, args_.dkv_row_offset);
    keys.positions = workspace_.keys.positions.data() + range.begin;
    keys.count = count;
    PackBackwardKeys(GatherHead(args_.k, batch, kv_head, rows, count, 0),
                     GatherHead(args_.v, batch, kv_head, rows, count, 0), choice_,
                     ScratchOf(thread).staging, &keys);
  }

  void PackOneBlock(const Round& round, int64_t head, int64_t index, int thread) {
    const int64_t batch = (round.first_head + head) / args_.k.heads;
    const int64_t kv_head = (round.first_head + head) % args_.k.heads;
    const int64_t member = (round.blocks.begin + index) / blocks_;
    const int64_t begin = (round.blocks.begin + index) % blocks_ * block_rows_;
    const int64_t q_head = kv_head * group_ + member;
    const int64_t* rows = workspace_.queries.rows.data() + begin;
    const int64_t count = std::min(block_rows_, workspace_.queries.size() - begin);
    const int64_t slot = head * round.blocks.size() + index;
    BackwardQueries& queries = workspace_.backward_queries[slot];
    queries.q_strips = workspace_.packed_queries.data() + slot * query_floats_;
    queries.do_strips = queries.q_strips + block_floats_;
    queries.q_panels = queries.do_strips + block_floats_;
    queries.do_panels = queries.q_panels + block_floats_;
    queries.dq_sums = queries.do_panels + block_floats_;
    queries.dq = GatherHead(args_.dq, batch, q_head, rows, count, args_.dq_row_offset);
    queries.lse = GatherStat(args_.lse, batch, q_head, rows, args_.dq_row_offset);
    queries.delta = GatherStat(args_.delta, batch, q_head, rows, args_.dq_row_offset);
    queries.positions = workspace_.queries.positions.data() + begin;
    queries.count = count;
    PackBackwardQueries(GatherHead(args_.q, batch, q_head, rows, count, 0),
                        GatherHead(args_.d_o, batch, q_head, rows, count, 0), args_.softmax_scale,
                        choice_, ScratchOf(thread).staging, &queries);
  }

  const annulusAttendBackwardArgs& args_;
  Workspace& workspace_;
  const int64_t head_dim_;
  const int64_t group_;
  const ArithmeticChoice choice_;
  const int64_t block_rows_;
  const int64_t tile_floats_;
  const int64_t block_floats_;
  const int64_t key_floats_;
  const int64_t query_floats_;
  int64_t blocks_ = 0;
  int64_t tiles_per_round_ = 1;
  int64_t blocks_per_round_ = 1;
  int64_t heads_per_round_ = 1;
};

}  // namespace

void AttendBackward(const annulusAttendBackwardArgs& args, Workspace* workspace) {
  BackwardPass(args, workspace).Run();
}

}  // namespace annulus::kernels::cpu
