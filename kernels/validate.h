// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every device takes: the checks that the plugins share. Each returns OK or INVALID_ARGUMENT
// that says which argument was wrong, what was expected and what was got. Addresses cannot be
// checked, only shapes.

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/compute_plugin.h"

namespace annulus::kernels {

// dtype: RawValue of one.
absl::Status CheckSupports(int dtype, int64_t head_dim, int64_t query_heads, int64_t kv_heads);
absl::Status CheckAttend(const annulusAttendArgs* args);
absl::Status CheckAttendBackward(const annulusAttendBackwardArgs* args);
absl::Status CheckReset(const annulusTensor* o, const annulusRowStat* lse);
absl::Status CheckRowDots(const annulusTensor* d_o, const annulusTensor* o,
                          const annulusRowStat* delta);
absl::Status CheckMerge(const annulusTensor* o, const annulusRowStat* lse, const annulusTensor* o2,
                        const annulusRowStat* lse2);
absl::Status CheckAccumulate(const float* dst, const void* src, int src_dtype, int64_t count);
absl::Status CheckFinish(const annulusTensor* src, const annulusTensor* dst);

}  // namespace annulus::kernels
