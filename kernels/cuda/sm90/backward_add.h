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
    ANNULUS_KEEP_ROLLED
    for (uint32_t parity = 0;; parity ^= 1) {
      t_.BarrierWait(shared_.KeysFull(), parity);
      const auto index = static_cast<int32_t>(t_.LoadWord(shared_.Unit()));
      if (index >= p_.order.Units()) break;
      t_.NamedSync(kAdderBarrier, 32);
      if (lane_ == 0) t_.BarrierArrive(shared_.KeysEmpty());
      AddUnit(index);
    }
  }

 private:
  // Which turn it is: how many tiles of keys before this one, and in all, add to the tile.
  struct Turn {
    int32_t* counter;
    int32_t own;
    int32_t all;
  };

  ANNULUS_KERNEL_INLINE void AddUnit(int32_t index) {
    const auto keys_of = [this, index] { return BackwardUnit(p_, t_.Forgotten(index)).keys; };
    ANNULUS_KEEP_ROLLED
    for (int32_t head = 0; head < p_.heads_each; ++head) {
      QueryWalk walk(p_.q_segments, p_.mask, Shape::kKeys, keys_of);
      ANNULUS_KEEP_ROLLED
      while (walk.Next()) {
        if (p_.turns == nullptr) {
          TakeSums();
          AddRows(index, head, walk.tile());
        } else {
          AddInTurn(index, head, walk.tile());
        }
      }
    }
  }

  ANNULUS_KERNEL_INLINE void TakeSums() {
    t_.NamedArrive(kSumsFree, Shape::kConsumerThreads + 32);
    t_.NamedSync(kSumsReady, Shape::kConsumerThreads + 32);
  }

  ANNULUS_KERNEL_INLINE void AddInTurn(int32_t index, int32_t head, int32_t tile) {
    const Turn turn = TurnOf(index, head, tile);
    TakeSums();
    t_.Await(turn.counter, turn.own);
    AddRows(index, head, tile);
    t_.NamedSync(kAdderBarrier, 32);
    if (lane_ == 0) t_.PassOn(turn.counter, turn.own + 1 == turn.all ? 0 : turn.own + 1);
  }

  // Each lane its rows; returns when they are added.
  ANNULUS_KERNEL_INLINE void AddRows(int32_t index, int32_t head, int32_t tile) {
    const BackwardUnit unit(p_, t_.Forgotten(index));
    const Tile queries = TileAt(p_.q_segments, tile);
    float* const first = FloatRow(p_.dq, unit.batch, queries.row + p_.dq_row_offset,
                                  unit.kv_head * p_.heads_each + head);
    const auto bytes = static_cast<uint32_t>(p_.dq.head_dim * sizeof(float));
    ANNULUS_KEEP_ROLLED
    for (int row = lane_; row < queries.rows; row += 32) {
      t_.ReduceAddBulk(first + row * p_.dq.row_stride, shared_.Sums() + row * Shape::kSumRowBytes,
                       bytes);
    }
    t_.CommitBulk();
    t_.template WaitBulk<0>();
  }

  ANNULUS_KERNEL_INLINE Turn TurnOf(int32_t index, int32_t head, int32_t tile) {
    const BackwardUnit unit(p_, t_.Forgotten(index));
    const Tile queries = TileAt(p_.q_segments, tile);
    float before = 0.0f;  // exact up to 2^24
    float all = 0.0f;
    ANNULUS_KEEP_ROLLED
    for (int32_t n = lane_; n < p_.order.tiles; n += 32) {
      if (SeesNothing(p_.mask, queries, TileAt(p_.kv_segments, n))) continue;
      all += 1.0f;
      if (n < unit.tile) before += 1.0f;
    }
    ANNULUS_UNROLL
    for (int m = 1; m < 32; m *= 2) {
      before += t_.ShuffleXor(before, m);
      all += t_.ShuffleXor(all, m);
    }
    const int64_t heads = int64_t{p_.order.kv_heads} * p_.heads_each;
    const int64_t of_head = unit.batch * heads + unit.kv_head * p_.heads_each + head;
    return {p_.turns + 1 + of_head * p_.q_segments.tiles + tile, static_cast<int32_t>(before),
            static_cast<int32_t>(all)};
  }

  Thread& t_;
  const HopperBackwardParams& p_;
  BackwardPlaces<kDim> shared_;
  const int lane_;
};

}  // namespace annulus::kernels::cuda
