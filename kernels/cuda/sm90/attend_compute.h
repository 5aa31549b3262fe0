// SPDX-License-Identifier: Apache-2.0
#pragma once

// The computing side of the forward kernel: a warpgroup and its 64 queries (FlashAttention-3, arXiv
// 2407.08608). Two things keep the matrix unit busy while exponentials are taken:
//   - warpgroups take turns at issuing products, so that one's softmax falls under another's
//   - within a warpgroup the scores of the next tile are issued before the values of this one are
//     added, and weighed while those are still at work
//
// Weights are rounded to the input's format and stay in registers. What is masked has weight zero,
// and zero times NaN is NaN: where a tile is seen in part only, its values are looked at first, and
// added one by one without the matrix unit if one of them is not finite. All warpgroups look at the
// same tile and decide alike.

#include <cstdint>

#include "kernels/cuda/sm90/attend_rows.h"
#include "kernels/cuda/sm90/attend_shape.h"

namespace annulus::kernels::cuda {

// Named barriers, by consumer.
inline constexpr int kTurnBarrier = 1;
inline constexpr int kVoteBarrier = 5;
// And for all of them.
inline constexpr int kRepairBarrier = 9;

template <class Half, int kDim, class Thread>
class AttendConsumer {
 public:
  using Shape = AttendShape<kDim>;

  ANNULUS_KERNEL_INLINE AttendConsumer(Thread& t, const HopperAttendParams& p, int consumer)
      : t_(t), p_(p), shared_{t.shared()}, consumer_(consumer) {}

  // Before the first unit and after the last: the turn is the first warpgroup's.
  ANNULUS_KERNEL_INLINE void Start() {
    if (consumer_ == Shape::kConsumers - 1) PassTurn();
  }
  ANNULUS_KERNEL_INLINE void Finish() {
    if (consumer_ == 0) TakeTurn();
  }

  // The unit of this number in the line, of which `count` tiles of keys are seen.
  ANNULUS_KERNEL_INLINE void Compute(int32_t index, const KeyCount& count) {
    AttendRowsState<kDim> rows;
    {
      const AttendUnit unit(p_, index);
      LoadRows<kDim>(p_, unit, RowPlaces(t_.thread(), unit.queries, p_.o_row_offset), rows);
    }
    t_.BarrierWait(shared_.QueriesFull(queries_.stage()), queries_.parity());
    AddUnit(index, count, rows);
    const AttendUnit unit(p_, t_.Forgotten(index));
    StoreRows<kDim>(t_, p_, unit, RowPlaces(t_.thread(), unit.queries, p_.o_row_offset), rows);
  }

 private:
  ANNULUS_KERNEL_INLINE void AddUnit(int32_t index, const KeyCount& count,
                                     AttendRowsState<kDim>& rows) {
    const float scale_log2 = p_.softmax_scale * kLog2OfE;
    const int quad_place = t_.thread() % 4;
    float scores[kScores];
    uint32_t weights[kScores / 8][4];
    float factor[2];
    ANNULUS_KEEP_ROLLED
    for (int32_t i = 0; i < count.partial; ++i) {
      if (i > 0) AddValues(weights, rows.output);
      Interval seen[2];
      FormScores(scores, [&] { RowsSeen(index, i, seen); });
      ANNULUS_UNROLL
      for (int r = 0; r < 2; ++r) rows.touched[r] = rows.touched[r] || !seen[r].Empty();
      HideScores(seen, quad_place, scores);
      Weigh(t_, scale_log2, scores, rows.softmax, factor);
      ScaleOutput<kDim>(factor, rows.output);
      Round(scores, weights);
      if (!ValuesAreFinite()) {
        RowsSeen(index, i, seen);
        AddSeenValues(seen, weights, rows.output);
      }
    }
    if (count.full > 0) {
      rows.touched[0] = rows.touched[1] = true;
      int32_t left = count.full;
      if (count.partial == 0) {
        FormScores(scores, [] {});
        Weigh(t_, scale_log2, scores, rows.softmax, factor);
        ScaleOutput<kDim>(factor, rows.output);
        Round(scores, weights);
        --left;
      }
      ANNULUS_KEEP_ROLLED
      for (; left > 0; --left) Step(scale_log2, scores, weights, rows);
    }
    Release(shared_.QueriesEmpty(queries_.stage()));
    queries_.Advance();
    AddValues(weights, rows.output);
  }

  // What the thread's rows see of the unit's i-th tile that is seen in part. Found anew each time:
  // few tiles are, and a walk that was kept would cost registers that the others need.
  ANNULUS_KERNEL_INLINE void RowsSeen(int32_t index, int32_t i, Interval (&seen)[2]) {
    const Tile queries = AttendUnit(p_, t_.Forgotten(index)).queries;
    KeyWalk walk(p_.kv_segments, p_.mask, queries);
    ANNULUS_KEEP_ROLLED
    for (int32_t tile = 0; tile <= i; ++tile) walk.NextPartial();
    ANNULUS_UNROLL
    for (int r = 0; r < 2; ++r) {
      seen[r] = walk.RowsSeen(queries.PositionOf(RowOfThread(t_.thread(), r)));
    }
  }

  ANNULUS_KERNEL_INLINE void TakeTurn() {
    t_.NamedSync(kTurnBarrier + consumer_, 2 * kWarpgroupThreads);
  }
  ANNULUS_KERNEL_INLINE void PassTurn() {
    const int next = consumer_ + 1 == Shape::kConsumers ? 0 : consumer_ + 1;
    t_.NamedArrive(kTurnBarrier + next, 2 * kWarpgroupThreads);
  }
  // A warp is through with a tile.
  ANNULUS_KERNEL_INLINE void Release(uint32_t empty) {
    if (t_.thread() % 32 == 0) t_.BarrierArrive(empty);
  }

  // scores = q k^T, issued.
  ANNULUS_KERNEL_INLINE void IssueScores(float (&scores)[kScores]) {
    const uint64_t q = DepthMajor(shared_.Queries(queries_.stage()) +
                                  consumer_ * Shape::kQueriesEach * kPanelRowBytes);
    const uint64_t k = DepthMajor(shared_.Keys(keys_.stage()));
    t_.MatrixFence(scores);
    ANNULUS_UNROLL
    for (int step = 0; step < kDim / kStepDepth; ++step) {
      constexpr int kStepsAPanel = kPanelColumns / kStepDepth;
      const uint32_t within = step % kStepsAPanel * kDepthMajorStep;
      const uint32_t panel = step / kStepsAPanel;
      t_.template MultiplyShared<Half, kWalkKeys, Major::kDepth, Major::kDepth>(
          scores, Moved(q, panel * Shape::kQueryPanelBytes + within),
          Moved(k, panel * Shape::kKeyPanelBytes + within), step > 0);
    }
    t_.MatrixCommit();
  }
  // output += weights v, issued.
  ANNULUS_KERNEL_INLINE void IssueValues(uint32_t (&weights)[kScores / 8][4],
                                         float (&output)[kDim / 2]) {
    const uint64_t v = OuterMajor(shared_.Values(values_.stage()), Shape::kKeyPanelBytes);
    t_.MatrixFence(weights, output);
    ANNULUS_UNROLL
    for (int step = 0; step < kWalkKeys / kStepDepth; ++step) {
      t_.template MultiplyRegisters<Half, kDim, Major::kOuter>(
          output, weights[step], Moved(v, step * kOuterMajorStep), true);
    }
    t_.MatrixCommit();
  }

  // scores = q k^T; `meanwhile` is done while they are at work.
  template <class Meanwhile>
  ANNULUS_KERNEL_INLINE void FormScores(float (&scores)[kScores], Meanwhile meanwhile) {
    t_.BarrierWait(shared_.KeysFull(keys_.stage()), keys_.parity());
    TakeTurn();
    IssueScores(scores);
    PassTurn();
    meanwhile();
    t_.template MatrixWait<0>(scores);
    Release(shared_.KeysEmpty(keys_.stage()));
    keys_.Advance();
  }
  ANNULUS_KERNEL_INLINE void AddValues(uint32_t (&weights)[kScores / 8][4],
                                       float (&output)[kDim / 2]) {
    t_.BarrierWait(shared_.ValuesFull(values_.stage()), values_.parity());
    TakeTurn();
    IssueValues(weights, output);
    PassTurn();
    t_.template MatrixWait<0>(output);
    Release(shared_.ValuesEmpty(values_.stage()));
    values_.Advance();
  }

  // The scores of one tile and the values of the one before at once.
  ANNULUS_KERNEL_INLINE void Step(float scale_log2, float (&scores)[kScores],
                                  uint32_t (&weights)[kScores / 8][4],
                                  AttendRowsState<kDim>& rows) {
    t_.BarrierWait(shared_.KeysFull(keys_.stage()), keys_.parity());
    TakeTurn();
    IssueScores(scores);
    t_.BarrierWait(shared_.ValuesFull(values_.stage()), values_.parity());
    IssueValues(weights, rows.output);
    PassTurn();
    t_.template MatrixWait<1>(scores);
    Release(shared_.KeysEmpty(keys_.stage()));
    keys_.Advance();
    float factor[2];
    Weigh(t_, scale_log2, scores, rows.softmax, factor);
    t_.template MatrixWait<0>(rows.output);
    Release(shared_.ValuesEmpty(values_.stage()));
    values_.Advance();
    Round(scores, weights);
    ScaleOutput<kDim>(factor, rows.output);
  }

  ANNULUS_KERNEL_INLINE void Round(const float (&scores)[kScores],
                                   uint32_t (&weights)[kScores / 8][4]) {
    ANNULUS_UNROLL
    for (int i = 0; i < kScores / 2; ++i) {
      weights[i / 4][i % 4] = t_.template RoundPair<Half>(scores[2 * i], scores[2 * i + 1]);
    }
  }

  // Whether all of the tile of values is, in all of the warpgroup. The tile stays.
  ANNULUS_KERNEL_INLINE bool ValuesAreFinite() {
    t_.BarrierWait(shared_.ValuesFull(values_.stage()), values_.parity());
    const uint32_t tile = shared_.Values(values_.stage());
    const uint32_t own = t_.thread() % kWarpgroupThreads * sizeof(FourWords);
    uint32_t sum[4] = {0, 0, 0, 0};
    ANNULUS_UNROLL_BY(4)
    for (uint32_t at = 0; at < Shape::kKeyBytes; at += kWarpgroupThreads * sizeof(FourWords)) {
      const FourWords words = t_.LoadFour(tile + at + own);
      ANNULUS_UNROLL
      for (int i = 0; i < 4; ++i) sum[i] = t_.template AddZeroTimes<Half>(words.at[i], sum[i]);
    }
    bool finite = true;
    ANNULUS_UNROLL
    for (int i = 0; i < 4; ++i) {
      finite = finite && Half::Finite(static_cast<uint16_t>(sum[i])) &&
               Half::Finite(static_cast<uint16_t>(sum[i] >> 16));
    }
    return !t_.NamedSyncOr(kVoteBarrier + consumer_, kWarpgroupThreads, !finite);
  }

  // output += weights v over the rows that are seen, without the matrix unit. Weights and values
  // are zero afterwards, for the product that follows as if nothing were the matter.
  ANNULUS_KERNEL_INLINE void AddSeenValues(const Interval (&seen)[2],
                                           uint32_t (&weights)[kScores / 8][4],
                                           float (&output)[kDim / 2]) {
    ANNULUS_KEEP_ROLLED
    for (int first = 0; first < kWalkKeys; first += kStepDepth) {
      ANNULUS_KEEP_ROLLED
      for (int key = 0; key < kStepDepth; ++key) {
        AddSeenKey(first + key, seen, weights[0], output);
      }
      // The next ones move up: an index that is not known before would cost the registers.
      ANNULUS_UNROLL
      for (int i = 0; i < kScores / 8; ++i) {
        ANNULUS_UNROLL
        for (int word = 0; word < 4; ++word) {
          weights[i][word] = i + 1 < kScores / 8 ? weights[i + 1][word] : 0;
        }
      }
    }
    t_.NamedSync(kRepairBarrier, Shape::kConsumers * kWarpgroupThreads);  // all have read
    const uint32_t own = (t_.thread() - kWarpgroupThreads) * sizeof(FourWords);
    constexpr uint32_t kPass = Shape::kConsumers * kWarpgroupThreads * sizeof(FourWords);
    ANNULUS_KEEP_ROLLED
    for (uint32_t at = own; at < Shape::kKeyBytes; at += kPass) {
      t_.StoreFour(shared_.Values(values_.stage()) + at, {{0, 0, 0, 0}});
    }
    t_.FenceAsync();
    t_.NamedSync(kRepairBarrier, Shape::kConsumers * kWarpgroupThreads);
  }
  // `weights` are those of the 16 keys around this one.
  ANNULUS_KERNEL_INLINE void AddSeenKey(int key, const Interval (&seen)[2],
                                        const uint32_t (&weights)[4], float (&output)[kDim / 2]) {
    const uint32_t row = shared_.Values(values_.stage()) + key * kPanelRowBytes;
    const int lane = t_.thread() % 32;
    float weight[2];
    ANNULUS_UNROLL
    for (int r = 0; r < 2; ++r) {
      // The row's weight of the key is with the thread of the quad that has the key's column.
      const uint32_t pair = key % 16 < 8 ? weights[r] : weights[r + 2];
      const float mine = Half::ToFloat(static_cast<uint16_t>(key % 2 == 0 ? pair : pair >> 16));
      weight[r] = t_.ShuffleFrom(mine, lane / 4 * 4 + key % 8 / 2);
    }
    ANNULUS_UNROLL
    for (int j = 0; j < kDim / 8; ++j) {
      const uint32_t word = t_.LoadWord(
          Swizzled(row + j / 8 * Shape::kKeyPanelBytes + j % 8 * sizeof(FourWords) + lane % 4 * 4));
      ANNULUS_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float value = Half::ToFloat(static_cast<uint16_t>(i % 2 == 0 ? word : word >> 16));
        output[4 * j + i] += seen[i / 2].Holds(key) ? weight[i / 2] * value : 0.0f;
      }
    }
  }

  Thread& t_;
  const HopperAttendParams& p_;
  AttendShared<kDim> shared_;
  const int consumer_;
  RingPlace<Shape::kQueryStages> queries_;
  RingPlace<Shape::kStages> keys_, values_;
};

}  // namespace annulus::kernels::cuda
