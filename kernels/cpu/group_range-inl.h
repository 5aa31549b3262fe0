// SPDX-License-Identifier: Apache-2.0

// Which columns of a key tile a group of microkernel rows needs. Included once per instruction
// set, because groups and panels differ.

#if defined(ANNULUS_KERNELS_CPU_GROUP_RANGE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_GROUP_RANGE_INL_H_
#undef ANNULUS_KERNELS_CPU_GROUP_RANGE_INL_H_
#else
#define ANNULUS_KERNELS_CPU_GROUP_RANGE_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/row_map.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// The keys that any row of a group of kRows may see. `masked` unless every row sees all of
// them and they fill whole panels, so that no lane needs masking.
struct GroupRange {
  IndexRange keys;
  bool masked = false;
};

template <int kRows>
HWY_INLINE GroupRange RangeOfGroup(const IndexRange* visible) {
  GroupRange group = {{kKeyTile, 0}, false};
  for (int m = 0; m < kRows; ++m) {
    if (visible[m].size() == 0) continue;
    group.keys.begin = std::min(group.keys.begin, visible[m].begin);
    group.keys.end = std::max(group.keys.end, visible[m].end);
  }
  if (group.keys.size() <= 0) return {};
  for (int m = 0; m < kRows; ++m) {
    group.masked |= visible[m].begin != group.keys.begin || visible[m].end != group.keys.end;
  }
  group.masked |= group.keys.begin % kPanelWidth != 0 || group.keys.end % kPanelWidth != 0;
  return group;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
