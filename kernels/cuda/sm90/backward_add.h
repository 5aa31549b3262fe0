// SPDX-License-Identifier: Apache-2.0
#pragma once

// The adding side of the backward kernel: one warp that adds each tile's dq from shared memory to
// dq in global memory, a row at a time, with the copy engine. No register holds it, no thread of
// the computing side waits for it.
//
// Every tile of keys adds to the same rows of dq, and float32 sums depend on their order. With
// `turns` the order is that of the tiles of keys: the counter of a tile of queries says how many of
// those that it needs have added, and a block waits until all before its own have. That cannot
// deadlock: blocks take units by a counter, in the order of tiles of keys within a head, so what a
// block waits for was taken earlier. Of the units that are taken and not over, the first taken
// waits for none but such as are over; it goes on, and so does the next after it, however few
// blocks are there at a time. The last to add sets the counter back to zero.

#include <cstdint>

#include "kernels/cuda/sm90/backward_shape.h"

namespace annulus::kernels::cuda {

template <int kDim, class Thread>
class BackwardAdder {
 public:
  using Shape = BackwardShape<kDim>;

  ANNULUS_KERNEL_INLINE BackwardAdder(Thread& t, const HopperBackwardParams& p)
      : t_(t), p_(p), shared_{t.shared()}, lane_(t.thread() % 32) {}

  ANNULUS_KERNEL_INLINE void Add() {
    RingPlace<Shape::kStages> stage;
    ANNULUS_KEEP_ROLLED
    for (QueryKind kind = QueryKind::kEnd; kind != QueryKind::kOver; stage.Advance()) {
      t_.BarrierWait(shared_.QueriesFull(stage.stage()), stage.parity());
      const uint32_t header = shared_.Notes(stage.stage());
      kind = static_cast<QueryKind>(t_.LoadWord(header));
      if (kind == QueryKind::kWhole || kind == QueryKind::kPartial) {
        AddTile(header, shared_.QueriesEmpty(stage.stage()));
      } else {
        Release(shared_.QueriesEmpty(stage.stage()));
      }
    }
  }

 private:
  static_assert(kSegmentsMax <= 32);

  // The counter of a tile of queries, what it says when it is this block's turn, and afterwards.
  struct Turn {
    int32_t* counter;
    int32_t own;
    int32_t next;
  };

  // The header read, the stage is nothing to the adder; the computing side is never through before.
  ANNULUS_KERNEL_INLINE void AddTile(uint32_t header, uint32_t empty) {
    Turn turn = {nullptr, 0, 0};
    if (p_.turns != nullptr) turn = TurnOf(header);
    float* const first = FirstRow(header);
    const uint32_t rows = t_.LoadWord(header + 12);
    Release(empty);
    t_.NamedArrive(kSumsFree, Shape::kConsumerThreads + 32);
    t_.NamedSync(kSumsReady, Shape::kConsumerThreads + 32);
    if (p_.turns != nullptr) t_.Await(turn.counter, turn.own);
    AddRows(first, rows);
    if (p_.turns != nullptr) {
      t_.SyncWarp();
      if (lane_ == 0) t_.PassOn(turn.counter, turn.next);
    }
  }

  // All lanes have read it.
  ANNULUS_KERNEL_INLINE void Release(uint32_t empty) {
    t_.SyncWarp();
    if (lane_ == 0) t_.BarrierArrive(empty);
  }

  // Of dq, of the tile.
  ANNULUS_KERNEL_INLINE float* FirstRow(uint32_t header) {
    const FourWords place = t_.LoadFour(header + 16);
    return FloatRow(p_.dq, place.at[1], t_.LoadWord(header + 8) + p_.dq_row_offset, place.at[0]);
  }

  // Each lane its rows; returns when they are added.
  ANNULUS_KERNEL_INLINE void AddRows(float* first, uint32_t rows) {
    const auto bytes = static_cast<uint32_t>(p_.dq.head_dim * sizeof(float));
    ANNULUS_KEEP_ROLLED
    for (uint32_t row = lane_; row < rows; row += 32) {
      t_.ReduceAddBulk(first + row * p_.dq.row_stride, shared_.Sums() + row * Shape::kSumRowBytes,
                       bytes);
    }
    t_.CommitBulk();
    t_.template WaitBulk<0>();
  }

  // Each lane a segment of keys, one end of its tiles after the other: registers are few.
  ANNULUS_KERNEL_INLINE Turn TurnOf(uint32_t header) {
    float before = 0.0f;  // exact up to 2^24
    float all = 0.0f;
    if (lane_ < p_.kv_segments.count) {
      const Segment& segment = p_.kv_segments.segments[lane_];
      const int32_t begin = FirstKeyTile(segment, Shape::kKeys, p_.mask, QueriesOf(header));
      const int32_t end = EndKeyTile(segment, Shape::kKeys, p_.mask, QueriesOf(header));
      const int32_t own =
          static_cast<int32_t>(t_.LoadWord(header + 24)) - static_cast<int32_t>(segment.first_tile);
      before = CountTiles(begin, own < end ? own : end);
      all = CountTiles(begin, end);
    }
    ANNULUS_UNROLL
    for (int m = 1; m < 32; m *= 2) {
      before += t_.ShuffleXor(before, m);
      all += t_.ShuffleXor(all, m);
    }
    return {CounterOf(header), static_cast<int32_t>(before),
            before + 1.0f == all ? 0 : static_cast<int32_t>(before) + 1};
  }

  ANNULUS_KERNEL_INLINE int32_t* CounterOf(uint32_t header) {
    const FourWords place = t_.LoadFour(header + 16);
    const int64_t heads = int64_t{p_.order.kv_heads} * p_.heads_each;
    const int64_t row = place.at[1] * heads + place.at[0];
    return p_.turns + 1 + row * p_.q_segments.tiles + t_.LoadWord(header + 4);
  }
  ANNULUS_KERNEL_INLINE Tile QueriesOf(uint32_t header) {
    return TileAt(p_.q_segments, t_.LoadWord(header + 4));
  }
  ANNULUS_KERNEL_INLINE static float CountTiles(int32_t begin, int32_t end) {
    return end > begin ? static_cast<float>(end - begin) : 0.0f;
  }

  Thread& t_;
  const HopperBackwardParams& p_;
  BackwardPlaces<kDim> shared_;
  const int lane_;
};

}  // namespace annulus::kernels::cuda
