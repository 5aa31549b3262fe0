// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/kernels/fma_peak.h"

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/kernels/fma_peak.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

volatile float sink;

double PeakImpl() {
  const hn::ScalableTag<float> d;
  constexpr int kChains = 12;
  constexpr int kRounds = 200'000;
  hn::Vec<decltype(d)> chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = hn::Set(d, 1.0f + static_cast<float>(i));
  const auto factor = hn::Set(d, 0.999999f);
  const auto term = hn::Set(d, 1e-6f);
  for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chains[i] = hn::MulAdd(chains[i], factor, term);
  }
  float sum = 0.0f;
  for (const auto& chain : chains) sum += hn::GetLane(chain);
  sink = sum;
  return 2.0 * kChains * kRounds * static_cast<double>(hn::Lanes(d));
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace annulus::kernels {
HWY_EXPORT(PeakImpl);
double RunFmaPeak() { return HWY_DYNAMIC_DISPATCH(PeakImpl)(); }
}  // namespace annulus::kernels
#endif
