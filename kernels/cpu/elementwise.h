// SPDX-License-Identifier: Apache-2.0
#pragma once

// The row-wise operations of compute_plugin.h over validated arguments. They hold no state and
// need no scratch.

#include <cstdint>

#include "kernels/compute_plugin.h"

namespace annulus::kernels::cpu {

// o = 0, lse = -inf.
void Reset(const annulusTensor& o, const annulusRowStat& lse);
// delta = rowsum(do * o), summed in double.
void RowDots(const annulusTensor& d_o, const annulusTensor& o, const annulusRowStat& delta);
// (o, lse) <- merge((o, lse), (o2, lse2)); all float32.
void Merge(const annulusTensor& o, const annulusRowStat& lse, const annulusTensor& o2,
           const annulusRowStat& lse2);
// dst[i] += src[i].
void AddInto(float* dst, const void* src, annulusDtype src_dtype, int64_t count);
// dst = src rounded to dst's dtype.
void Convert(const annulusTensor& src, const annulusTensor& dst);

}  // namespace annulus::kernels::cpu
