// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/forward.h"

#include <algorithm>

#include "kernels/cpu/forward_kernel.h"
#include "kernels/cpu/tile.h"

namespace annulus::kernels::cpu {
namespace {

// Packed keys of one round stay within the caches that the cores share.
constexpr int64_t kPackedFloatsMax = int64_t{6} << 20;
constexpr int64_t kTilesPerRoundMax = 32;
constexpr int64_t kHalfBlock = kQueryBlock / 2;
constexpr int64_t kLastBlocksPerThread = 2;

// (batch, KV head) pairs [first, first + count) against key tiles [tiles.begin, tiles.end).
struct Round {
  int64_t first_head = 0;
  int64_t head_count = 0;
  IndexRange tiles;
};

class ForwardPass {
 public:
  ForwardPass(const annulusAttendArgs& args, Workspace* workspace)
      : args_(args),
        workspace_(*workspace),
        head_dim_(args.q.head_dim),
        group_(args.q.heads / args.k.heads),
        tile_floats_(PackedFloats(kKeyTile, head_dim_)),
        choice_(
            ChooseArithmetic(workspace->multiplier, {args.q.dtype, args.k.dtype, args.v.dtype})) {}

  void Run() {
    workspace_.queries.Assign(args_.q_spans, args_.q_span_count);
    workspace_.keys.Assign(args_.kv_spans, args_.kv_span_count);
    CutTiles(workspace_.keys, kKeyTile, &workspace_.key_tiles);
    ReserveScratch();
    const int64_t tiles = static_cast<int64_t>(workspace_.key_tiles.size());
    const int64_t heads = args_.k.batch * args_.k.heads;
    for (int64_t tile = 0; tile < tiles; tile += tiles_per_round_) {
      for (int64_t head = 0; head < heads; head += heads_per_round_) {
        RunRound({head,
                  std::min(heads_per_round_, heads - head),
                  {tile, std::min(tile + tiles_per_round_, tiles)}});
      }
    }
  }

 private:
  void ReserveScratch() {
    const int64_t tiles = static_cast<int64_t>(workspace_.key_tiles.size());
    tiles_per_round_ = std::clamp<int64_t>(tiles, 1, kTilesPerRoundMax);
    heads_per_round_ = std::clamp<int64_t>(kPackedFloatsMax / (2 * tile_floats_ * tiles_per_round_),
                                           1, args_.k.batch * args_.k.heads);
    workspace_.packed_keys.Reserve(2 * tile_floats_ * tiles_per_round_ * heads_per_round_);
    workspace_.tiles.resize(tiles_per_round_ * heads_per_round_);
    for (AlignedBuffer& buffer : workspace_.per_thread) buffer.Reserve(ScratchFloats());
  }

  int64_t ScratchFloats() const {
    return PackedFloats(kKeyTile, head_dim_) + 2 * PackedFloats(kQueryBlock, head_dim_) +
           kGroupRowsMax * kScoreRowMax;
  }

  ForwardScratch ScratchOf(int thread) {
    float* base = workspace_.per_thread[thread].data();
    float* q_strips = base + PackedFloats(kKeyTile, head_dim_);
    float* output = q_strips + PackedFloats(kQueryBlock, head_dim_);
    return {base, q_strips, output + PackedFloats(kQueryBlock, head_dim_), output};
  }

  void RunRound(const Round& round) {
    const int64_t tiles = round.tiles.size();
    // The heads of a tile after one another: their rows are neighbours in memory.
    workspace_.pool.Parallel(round.head_count * tiles, [&](int64_t item, int thread) {
      Pack(round, item % round.head_count, item / round.head_count, thread);
    });
    // Head by head, so that its tiles stay near. Last blocks first: under a causal mask they see
    // most keys, so that the short ones fill the end.
    const int64_t heads = round.head_count * group_;
    const int64_t halves = LastHalves();
    const int64_t rest = workspace_.queries.size() - halves * kHalfBlock;
    const int64_t whole = CeilDiv(workspace_.queries.size(), kQueryBlock);
    const int64_t last = halves + CeilDiv(rest, kQueryBlock);
    workspace_.pool.Parallel((heads - 1) * whole + last, [&](int64_t item, int thread) {
      const int64_t head = std::min(item / whole, heads - 1);
      const bool is_last = head == heads - 1;
      const int64_t block = (is_last ? last : whole) - 1 - (item - head * whole);
      AttendOne(round, head / group_, head % group_, RowsOfBlock(block, is_last ? halves : 0),
                thread);
    });
  }

  // How many of the first blocks of the last head are half ones, so that threads end together. A
  // row's result does not depend on the block that it is in.
  int64_t LastHalves() const {
    const int threads = workspace_.pool.threads();
    if (threads == 1) return 0;
    const int64_t rows = workspace_.queries.size();
    return std::min(2 * kLastBlocksPerThread * threads, rows / kHalfBlock);
  }

  IndexRange RowsOfBlock(int64_t block, int64_t halves) const {
    const int64_t begin =
        block < halves ? block * kHalfBlock : halves * kHalfBlock + (block - halves) * kQueryBlock;
    const int64_t rows = block < halves ? kHalfBlock : kQueryBlock;
    return {begin, std::min(begin + rows, workspace_.queries.size())};
  }

  void Pack(const Round& round, int64_t head, int64_t index, int thread) {
    const int64_t batch = (round.first_head + head) / args_.k.heads;
    const int64_t kv_head = (round.first_head + head) % args_.k.heads;
    const IndexRange range = workspace_.key_tiles[round.tiles.begin + index];
    const int64_t* rows = workspace_.keys.rows.data() + range.begin;
    const int64_t slot = head * round.tiles.size() + index;
    KeyTile& tile = workspace_.tiles[slot];
    tile.k_columns = workspace_.packed_keys.data() + slot * 2 * tile_floats_;
    tile.v_panels = tile.k_columns + tile_floats_;
    tile.positions = workspace_.keys.positions.data() + range.begin;
    tile.count = range.size();
    PackKeyTile(GatherHead(args_.k, batch, kv_head, rows, range.size(), 0),
                GatherHead(args_.v, batch, kv_head, rows, range.size(), 0), choice_,
                ScratchOf(thread).staging, &tile);
  }

  void AttendOne(const Round& round, int64_t head, int64_t member, IndexRange block, int thread) {
    const int64_t batch = (round.first_head + head) / args_.k.heads;
    const int64_t kv_head = (round.first_head + head) % args_.k.heads;
    const int64_t q_head = kv_head * group_ + member;
    const int64_t* rows = workspace_.queries.rows.data() + block.begin;
    AttendBlock({GatherHead(args_.q, batch, q_head, rows, block.size(), 0),
                 GatherHead(args_.o, batch, q_head, rows, block.size(), args_.o_row_offset),
                 GatherStat(args_.lse, batch, q_head, rows, args_.o_row_offset),
                 workspace_.queries.positions.data() + block.begin, args_.mask, args_.softmax_scale,
                 choice_, workspace_.tiles.data() + head * round.tiles.size(), round.tiles.size()},
                ScratchOf(thread));
  }

  const annulusAttendArgs& args_;
  Workspace& workspace_;
  const int64_t head_dim_;
  const int64_t group_;
  const int64_t tile_floats_;
  const ArithmeticChoice choice_;
  int64_t tiles_per_round_ = 1;
  int64_t heads_per_round_ = 1;
};

}  // namespace

void Attend(const annulusAttendArgs& args, Workspace* workspace) {
  ForwardPass(args, workspace).Run();
}

}  // namespace annulus::kernels::cpu
