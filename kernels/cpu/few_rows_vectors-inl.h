// SPDX-License-Identifier: Apache-2.0

// Rows of a tensor as vectors of floats, as wide as the instruction set has them, and the sums of
// such vectors' lanes. Included once per instruction set.

#if defined(ANNULUS_KERNELS_CPU_FEW_ROWS_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_FEW_ROWS_VECTORS_INL_H_
#undef ANNULUS_KERNELS_CPU_FEW_ROWS_VECTORS_INL_H_
#else
#define ANNULUS_KERNELS_CPU_FEW_ROWS_VECTORS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Head sizes are multiples of 8. What is left of a row after its whole vectors is nothing, or, with
// 16 lanes, 8 elements: they are read alone, and the upper lanes are zero.
constexpr bool kHasTail = kLanes > 8;

template <typename Element>
HWY_INLINE FloatVec LoadTail(const Element* from) {
#if HWY_TARGET == HWY_SCALAR
  return LoadFloats(FloatTag(), from);
#else
  if constexpr (kHasTail) return hn::ZeroExtendVector(FloatTag(), LoadFloats(PackTag(), from));
  return LoadFloats(FloatTag(), from);
#endif
}

// Vectors of a line of memory: what a step of ForColumns reads of a row, four at most.
template <typename Element>
constexpr int kLineVectors = std::clamp<int>(kLineBytes / sizeof(Element) / kLanes, 1, 4);

// Vectors of a step of ForColumns.
template <int kVectors>
constexpr int kVectorsOf = kVectors == 0 ? 1 : kVectors;

// Bytes of a row that such a step reads.
template <int kVectors, typename Element>
constexpr int kBytesOf = (kVectors == 0 ? 8 : kVectors * kLanes) * sizeof(Element);

// Vector `i` of what a step of ForColumns reads of a row, from its column on.
template <int kVectors, typename Element>
HWY_INLINE FloatVec LoadColumns(const Element* HWY_RESTRICT from, int i) {
  if constexpr (kVectors == 0) return LoadTail(from);
  return LoadFloats(FloatTag(), from + i * kLanes);
}

// Calls body.operator()<kVectors>(c) for the columns of a row, kMost vectors from c on at a time,
// then one by one, and body.operator()<0>(c) for the tail.
template <int kMost, typename Body>
HWY_INLINE void ForColumns(int64_t head_dim, const Body& body) {
  int64_t c = 0;
  for (; c + kMost * kLanes <= head_dim; c += kMost * kLanes) body.template operator()<kMost>(c);
  if constexpr (kMost > 1) {
    for (; c + kLanes <= head_dim; c += kLanes) body.template operator()<1>(c);
  }
  if constexpr (kHasTail) {
    if (c < head_dim) body.template operator()<0>(c);
  }
}

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
// The sum of a vector's blocks of four lanes.
template <class D>
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> SumOfBlocks(D, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return SumOfBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}
#endif

// The sums of the lanes of four vectors. They share what it takes to cross lanes.
HWY_INLINE void StoreLaneSums(const FloatVec (&sums)[4], float* HWY_RESTRICT out) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  for (int i = 0; i < 4; ++i) out[i] = hn::GetLane(hn::SumOfLanes(FloatTag(), sums[i]));
#else
  const FloatTag d;
  const auto interleave = [d](FloatVec a, FloatVec b) {
    return hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
  };
  const hn::RepartitionToWide<FloatTag> pairs;
  const auto low = hn::BitCast(pairs, interleave(sums[0], sums[1]));
  const auto high = hn::BitCast(pairs, interleave(sums[2], sums[3]));
  const FloatVec four = hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, low, high)),
                                hn::BitCast(d, hn::InterleaveUpper(pairs, low, high)));
  hn::StoreU(SumOfBlocks(d, four), hn::FixedTag<float, 4>(), out);
#endif
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
