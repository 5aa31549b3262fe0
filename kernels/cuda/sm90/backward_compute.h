// SPDX-License-Identifier: Apache-2.0
#pragma once

// The computing side of the backward kernel: a warpgroup and its 64 keys (FlashAttention-3, arXiv
// 2407.08608, section B). With p = exp(s - lse) and ds = p (dp - delta), all as keys x queries:
//   s = k q^T, dp = v do^T     operands in shared memory
//   dv += p do, dk += ds q     p and ds rounded to the input's format, from the registers
//   dq = ds^T k                ds through shared memory, since it sums over both warpgroups' keys;
//                              each has one half of dq, which leaves by backward_add.h
// dk and dv stay in the registers of their owner for the whole unit: one order, no atomics. The
// registers hold nothing beside one tile of s, dp and dq, so nothing is under way from one tile to
// the next; the matrix unit works on dp while p is taken, on dv while ds is, and on dk while dq
// leaves. The warpgroups meet at ds.

#include <cstdint>

#include "kernels/cuda/sm90/backward_plain.h"
#include "kernels/cuda/sm90/backward_rows.h"
#include "kernels/cuda/sm90/backward_shape.h"

namespace annulus::kernels::cuda {

template <class Half, int kDim, class Thread>
class BackwardConsumer {
 public:
  using Shape = BackwardShape<kDim>;

  ANNULUS_KERNEL_INLINE BackwardConsumer(Thread& t, const HopperBackwardParams& p, int consumer)
      : t_(t), p_(p), shared_{t.shared()}, consumer_(consumer) {}

  ANNULUS_KERNEL_INLINE void Compute() {
    ANNULUS_KEEP_ROLLED
    for (uint32_t parity = 0;; parity ^= 1) {
      t_.BarrierWait(shared_.KeysFull(), parity);
      if (Index() >= p_.order.Units()) break;
      ComputeUnit();
    }
  }

 private:
  static constexpr int kQueries = Shape::kQueries;
  static constexpr int kPairs = kQueries / 2;  // of a thread
  static constexpr int kSteps = kQueries / kStepDepth;
  // With few pairs to a thread weights are at work before the gradients of scores are there.
  static constexpr bool kEarly = kDim == 128;

  // What comes next.
  enum class Next { kWhole, kPartial, kPlain, kEnd };

  // Of a tile that goes without the matrix unit sums go to memory; so do those before it, and no
  // register holds them meanwhile.
  ANNULUS_KERNEL_INLINE void ComputeUnit() {
    keys_finite_ = Agreed(IsFinite<Half, Shape::kKeyBytes, Shape::kConsumerThreads>(
        t_, shared_.Keys(), t_.thread() - kWarpgroupThreads));
    ANNULUS_KEEP_ROLLED
    while (ComputeRun() == Next::kPlain) {
      ComputePlain();
      ReleaseStage();
    }
  }

  // The tiles up to one that is not for the matrix unit, or to the end of the unit: which of both.
  ANNULUS_KERNEL_INLINE Next ComputeRun() {
    float dk[kDim / 2];
    float dv[kDim / 2];
    ANNULUS_UNROLL
    for (int i = 0; i < kDim / 2; ++i) dk[i] = dv[i] = 0.0f;
    Next next = Look();
    ANNULUS_KEEP_ROLLED
    while (next == Next::kWhole || next == Next::kPartial) {
      ComputeTile(next == Next::kPartial, dk, dv);
      ReleaseStage();
      next = Look();
    }
    const BackwardUnit unit(p_, Index());
    if (next == Next::kEnd) {
      t_.NamedSync(kTileVote, Shape::kConsumerThreads);  // all have read what is given back
      ReleaseStage();
      Release(shared_.KeysEmpty());
    }
    const int thread = t_.Forgotten(t_.thread());
    AddToKeyRows<kDim>(p_.dk, unit, thread, p_.dkv_row_offset, p_.softmax_scale, dk);
    AddToKeyRows<kDim>(p_.dv, unit, thread, p_.dkv_row_offset, 1.0f, dv);
    return next;
  }

  // The tile at stage_. Products are waited for in the order in which they were issued.
  ANNULUS_KERNEL_INLINE void ComputeTile(bool partial, float (&dk)[kDim / 2],
                                         float (&dv)[kDim / 2]) {
    float weights[kPairs];    // scores at first
    float gradients[kPairs];  // of weights, then of scores
    float dq[32];
    uint32_t rounded[kSteps][4];
    uint32_t rounded_gradients[kSteps][4];
    const uint32_t notes = shared_.Notes(stage_.stage());
    IssuePairs(shared_.Keys(), shared_.Queries(stage_.stage()), weights);
    IssuePairs(shared_.Values(), shared_.OutputGradients(stage_.stage()), gradients);
    SeenPairs<kQueries> seen = {};
    if (partial) seen = FindPairs(notes);
    t_.template MatrixWait<1>(weights);
    WeighPairs<kQueries>(t_, p_.softmax_scale * kLog2OfE, notes, weights);
    if (partial) HidePairs(seen, weights);
    t_.template MatrixWait<0>(gradients);
    if constexpr (kEarly) {
      RoundPairs<Half, kQueries>(t_, weights, rounded);
      IssueKeySums(shared_.OutputGradients(stage_.stage()), rounded, dv);
    }
    DifferentiatePairs<kQueries>(t_, notes, weights, gradients);
    if (partial) HidePairs(seen, gradients);
    if constexpr (!kEarly) {
      RoundPairs<Half, kQueries>(t_, weights, rounded);
      IssueKeySums(shared_.OutputGradients(stage_.stage()), rounded, dv);
    }
    RoundPairs<Half, kQueries>(t_, gradients, rounded_gradients);
    StorePairs<kQueries>(t_, shared_.Weights(), Shape::kKeyPanelBytes, rounded_gradients);
    t_.FenceAsync();
    t_.NamedSync(kWeightsReady, Shape::kConsumerThreads);
    IssueQuerySums(dq);
    t_.template MatrixWait<1>(dv);
    IssueKeySums(shared_.Queries(stage_.stage()), rounded_gradients, dk);
    t_.template MatrixWait<1>(dq);
    t_.NamedSync(kSumsFree, Shape::kConsumerThreads + 32);
    WriteSums(dq);
    t_.template MatrixWait<0>(dk);
  }

  // The tile at stage_ without the matrix unit where zeros meet what is not finite: weights go to
  // where dq comes otherwise, dk and dv straight to memory, and so does dq.
  ANNULUS_KERNEL_INLINE void ComputePlain() {
    float weights[kPairs];
    float gradients[kPairs];
    uint32_t rounded[kSteps][4];
    const uint32_t notes = shared_.Notes(stage_.stage());
    IssuePairs(shared_.Keys(), shared_.Queries(stage_.stage()), weights);
    IssuePairs(shared_.Values(), shared_.OutputGradients(stage_.stage()), gradients);
    t_.template MatrixWait<0>(weights, gradients);
    const SeenPairs<kQueries> seen = FindPairs(notes);
    WeighPairs<kQueries>(t_, p_.softmax_scale * kLog2OfE, notes, weights);
    DifferentiatePairs<kQueries>(t_, notes, weights, gradients);
    RoundPairs<Half, kQueries>(t_, gradients, rounded);
    MarkSeenPairs(seen, rounded);
    StorePairs<kQueries>(t_, shared_.Weights(), Shape::kKeyPanelBytes, rounded);
    RoundPairs<Half, kQueries>(t_, weights, rounded);
    MarkSeenPairs(seen, rounded);
    t_.NamedSync(kSumsFree, Shape::kConsumerThreads + 32);
    StorePairs<kQueries>(t_, shared_.Sums(), Shape::kKeyPanelBytes, rounded);
    t_.NamedSync(kWeightsReady, Shape::kConsumerThreads);
    AddPlainKeyRows<Half, kDim>(t_, p_, BackwardUnit(p_, Index()), stage_.stage());
    t_.NamedSync(kWeightsReady, Shape::kConsumerThreads);
    WritePlainSums<Half, kDim>(t_, p_.softmax_scale);
    t_.FenceAsync();
    t_.NamedSync(kWeightsReady, Shape::kConsumerThreads);
    t_.NamedArrive(kSumsReady, Shape::kConsumerThreads + 32);
  }

  // Waits for the tile at stage_.
  ANNULUS_KERNEL_INLINE Next Look() {
    t_.BarrierWait(shared_.QueriesFull(stage_.stage()), stage_.parity());
    const auto kind = static_cast<QueryKind>(t_.LoadWord(shared_.Notes(stage_.stage())));
    if (kind == QueryKind::kEnd) return Next::kEnd;
    if (kind == QueryKind::kWhole) return Next::kWhole;
    const bool finite = IsFinite<Half, 2 * Shape::kQueryBytes, Shape::kConsumerThreads>(
        t_, shared_.Queries(stage_.stage()), t_.thread() - kWarpgroupThreads);
    return Agreed(finite) && keys_finite_ ? Next::kPartial : Next::kPlain;
  }
  ANNULUS_KERNEL_INLINE bool Agreed(bool finite) {
    return !t_.NamedSyncOr(kTileVote, Shape::kConsumerThreads, !finite);
  }

  ANNULUS_KERNEL_INLINE SeenPairs<kQueries> FindPairs(uint32_t notes) {
    const BackwardUnit unit(p_, Index());
    const Tile queries = TileAt(p_.q_segments, static_cast<int32_t>(t_.LoadWord(notes + 4)));
    return FindSeenPairs<kQueries>(t_, p_.mask, unit.keys, queries, notes);
  }

  // sums = own rows of `keys` times queries^T, of the tile at stage_.
  ANNULUS_KERNEL_INLINE void IssuePairs(uint32_t keys, uint32_t queries, float (&sums)[kPairs]) {
    // Not known from the tile before: else every step's descriptor is kept from there.
    const uint32_t own = t_.Forgotten(consumer_) * Shape::kKeysEach * kPanelRowBytes;
    const uint64_t a = DepthMajor(keys + own);
    const uint64_t b = DepthMajor(queries);
    t_.MatrixFence(sums);
    ANNULUS_UNROLL
    for (int step = 0; step < kDim / kStepDepth; ++step) {
      constexpr int kStepsAPanel = kPanelColumns / kStepDepth;
      const uint32_t within = step % kStepsAPanel * kDepthMajorStep;
      const uint32_t panel = step / kStepsAPanel;
      t_.template MultiplyShared<Half, kQueries, Major::kDepth, Major::kDepth>(
          sums, Moved(a, panel * Shape::kKeyPanelBytes + within),
          Moved(b, panel * Shape::kQueryPanelBytes + within), step > 0);
    }
    t_.MatrixCommit();
  }

  // sums += pairs times a tile of queries.
  ANNULUS_KERNEL_INLINE void IssueKeySums(uint32_t queries, uint32_t (&pairs)[kSteps][4],
                                          float (&sums)[kDim / 2]) {
    const uint64_t b = OuterMajor(queries, Shape::kQueryPanelBytes);
    t_.MatrixFence(pairs, sums);
    ANNULUS_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      t_.template MultiplyRegisters<Half, kDim, Major::kOuter>(
          sums, pairs[step], Moved(b, step * kOuterMajorStep), true);
    }
    t_.MatrixCommit();
  }

  // dq = ds^T k: 64 queries by 64 columns of dq. Head size 128: all queries, own columns; 64: own
  // queries, all columns.
  ANNULUS_KERNEL_INLINE void IssueQuerySums(float (&dq)[32]) {
    const uint32_t own = t_.Forgotten(consumer_) * Shape::kKeyPanelBytes;
    const uint64_t a = OuterMajor(shared_.Weights() + (kDim == 64 ? own : 0), 0);
    const uint64_t b = OuterMajor(shared_.Keys() + (kDim == 64 ? 0 : own), 0);
    t_.MatrixFence(dq);
    ANNULUS_UNROLL
    for (int step = 0; step < Shape::kKeys / kStepDepth; ++step) {
      t_.template MultiplyShared<Half, 64, Major::kOuter, Major::kOuter>(
          dq, Moved(a, step * kOuterMajorStep), Moved(b, step * kOuterMajorStep), step > 0);
    }
    t_.MatrixCommit();
  }
  ANNULUS_KERNEL_INLINE int FirstSumRow() const {
    const int in_group = t_.Forgotten(t_.thread()) % kWarpgroupThreads;
    return (kDim == 64 ? 64 * consumer_ : 0) + in_group / 32 * 16 + in_group % 32 / 4;
  }
  ANNULUS_KERNEL_INLINE int FirstSumColumn() const {
    return (kDim == 64 ? 0 : 64 * consumer_) + 2 * (t_.thread() % 4);
  }

  ANNULUS_KERNEL_INLINE void WriteSums(const float (&dq)[32]) {
    const uint32_t first =
        shared_.Sums() + FirstSumRow() * Shape::kSumRowBytes + FirstSumColumn() * 4;
    ANNULUS_UNROLL
    for (int i = 0; i < 16; ++i) {
      t_.StoreFloats(first + i % 2 * 8 * Shape::kSumRowBytes + i / 2 * 32,
                     dq[2 * i] * p_.softmax_scale, dq[2 * i + 1] * p_.softmax_scale);
    }
    t_.FenceAsync();
    t_.NamedArrive(kSumsReady, Shape::kConsumerThreads + 32);
  }

  // Of the unit, until KeysEmpty has been told.
  ANNULUS_KERNEL_INLINE int32_t Index() {
    return static_cast<int32_t>(t_.LoadWord(shared_.Unit()));
  }

  // A warp is through with a tile.
  ANNULUS_KERNEL_INLINE void Release(uint32_t empty) {
    if (t_.thread() % 32 == 0) t_.BarrierArrive(empty);
  }
  ANNULUS_KERNEL_INLINE void ReleaseStage() {
    Release(shared_.QueriesEmpty(stage_.stage()));
    stage_.Advance();
  }

  Thread& t_;
  const HopperBackwardParams& p_;
  BackwardPlaces<kDim> shared_;
  const int consumer_;
  bool keys_finite_ = true;
  RingPlace<Shape::kStages> stage_;
};

}  // namespace annulus::kernels::cuda
