// SPDX-License-Identifier: Apache-2.0
#pragma once

// How far a result is from the float64 reference, and how far it may be.

#include <span>

#include "kernels/compute_plugin.h"

namespace annulus::kernels {

// sqrt(sum (got - want)^2 / sum want^2). Elements that are both NaN, or the same infinity, agree;
// any other difference that is not finite gives +inf. Two empty or all-zero inputs give 0, a
// non-zero `got` against an all-zero `want` +inf. The spans must be of one length.
double RelativeRmse(std::span<const float> got, std::span<const double> want);

// Largest |got - want|, with the same rule for NaN and infinities (-inf agrees with -inf).
double MaxAbsError(std::span<const float> got, std::span<const double> want);

// Largest errors accepted against the reference for inputs drawn from N(0, 1).
struct AccuracyGates {
  double forward_relative_rmse;
  double lse_max_abs;
  double gradient_relative_rmse;
};

// `dtype` of q, k, v and of the output that o is rounded to.
constexpr AccuracyGates GatesFor(annulusDtype dtype) {
  // float32: accumulation error only. bf16: rounding o to 8 bits gives 2^-9 / sqrt(3) = 1.1e-3 to
  // 2.3e-3. f16 keeps three more bits.
  switch (dtype) {
    case ANNULUS_BF16:
      return {2.6e-3, 2e-5, 3e-3};
    case ANNULUS_F16:
      return {3.5e-4, 2e-5, 4e-4};
    case ANNULUS_F32:
      break;
  }
  return {5e-6, 2e-5, 1e-5};
}

}  // namespace annulus::kernels
