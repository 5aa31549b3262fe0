// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "annulus/types.h"
#include "client/cli/problem.h"

namespace annulus::cli {

// One comparison with the float64 reference.
struct Check {
  std::string name;     // "o", "lse", "dq", "dk", "dv"
  std::string measure;  // "relative RMSE", "max abs error"
  double error = 0;
  double gate = 0;
  int64_t rows = 0;        // compared
  int64_t rows_total = 0;  // of the tensor, per sequence
  bool passed() const { return error <= gate; }
};

struct Verification {
  std::vector<Check> checks;
  bool sampled = false;
  double seconds = 0;
  bool passed() const;
  // The error of a check by name; -1 if it was not made.
  double error(const std::string& name) const;
};

// Compares the outputs with attention in float64 (kernels/reference), every row where that takes
// some seconds, else rows spread over the sequence. Gates are those of DESIGN's numerics for inputs
// from N(0,1); with bf16 gradient partials on the wire 1.6e-3 sqrt(ranks). NaN agrees with NaN, an
// infinity with the same infinity.
// Sampled rows of dK and dV are summed over every query with the service's own LSE, itself compared
// on sampled rows, since the reference's would cost a whole forward.
Verification Verify(const RunFlags& flags, const Problem& problem, const ProblemTensors& tensors);

}  // namespace annulus::cli
