// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/ceiling.h"

#include <algorithm>
#include <atomic>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/ceiling.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Enough chains to hide the latency of a multiply-add (4 cycles, two begun a cycle), few enough for
// 16 registers.
constexpr int kChains = 12;

// Returns the floating-point operations done; *sum is what keeps them from being left out.
double MultiplyAddsImpl(int rounds, float* sum) {
  const hn::ScalableTag<float> d;
  hn::Vec<decltype(d)> chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = hn::Set(d, 1.0f + static_cast<float>(i));
  const auto factor = hn::Set(d, 0.999999f);
  const auto term = hn::Set(d, 1e-6f);
  for (int round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chains[i] = hn::MulAdd(chains[i], factor, term);
  }
  *sum = 0.0f;
  for (const auto& chain : chains) *sum += hn::GetLane(chain);
  return 2.0 * kChains * rounds * static_cast<double>(hn::Lanes(d));
}

// The sum of `count` floats; a multiple of every vector length times 8. Eight accumulators, so that
// the loads are not held up by the additions.
float SumImpl(const float* floats, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int kSums = 8;
  hn::Vec<decltype(d)> sums[kSums];
  for (auto& sum : sums) sum = hn::Zero(d);
  for (int64_t i = 0; i < count; i += kSums * lanes) {
#pragma GCC unroll 8
    for (int s = 0; s < kSums; ++s) sums[s] = hn::Add(sums[s], hn::Load(d, floats + i + s * lanes));
  }
  float total = 0.0f;
  for (const auto& sum : sums) total += hn::GetLane(sum);
  return total;
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace annulus::kernels::cpu {
namespace {

HWY_EXPORT(MultiplyAddsImpl);
HWY_EXPORT(SumImpl);

constexpr int64_t kItemsPerThread = 16;
// About 0.1 ms with two multiply-adds a cycle.
constexpr int kRoundsPerItem = 50'000;
// 256 KiB pieces of 64 MiB a thread; a call reads 4 MiB of them.
constexpr int64_t kPieceFloats = int64_t{1} << 16;
constexpr int64_t kPiecesPerThread = 256;

// Where results go that nobody reads; from several threads.
std::atomic<float> sink;

}  // namespace

double RunMultiplyAdds(ThreadPool* pool) {
  const int64_t items = kItemsPerThread * pool->threads();
  std::atomic<double> work_of_item{0.0};
  pool->Parallel(items, [&](int64_t, int) {
    float sum = 0.0f;
    work_of_item.store(HWY_DYNAMIC_DISPATCH(MultiplyAddsImpl)(kRoundsPerItem, &sum),
                       std::memory_order_relaxed);
    sink.store(sum, std::memory_order_relaxed);
  });
  return static_cast<double>(items) * work_of_item.load();
}

double ReadArray::Read(ThreadPool* pool) {
  const int64_t pieces = kPiecesPerThread * pool->threads();
  if (floats_.data() == nullptr) {
    float* floats = floats_.Reserve(pieces * kPieceFloats);
    // Written, or every page would be the same page of zeros.
    pool->Parallel(pieces, [&](int64_t piece, int) {
      std::fill_n(floats + piece * kPieceFloats, kPieceFloats, 1.0f);
    });
  }
  const int64_t items = kItemsPerThread * pool->threads();
  pool->Parallel(items, [&](int64_t item, int) {
    const int64_t piece = (next_piece_ + item) % pieces;
    sink.store(HWY_DYNAMIC_DISPATCH(SumImpl)(floats_.data() + piece * kPieceFloats, kPieceFloats),
               std::memory_order_relaxed);
  });
  next_piece_ = (next_piece_ + items) % pieces;
  return static_cast<double>(items * kPieceFloats) * sizeof(float);
}

}  // namespace annulus::kernels::cpu
#endif
