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
  // The gradients' float64 twin started from the o and lse that stand (sampled runs only).
  bool gradients_of_stored_state = false;
  double seconds = 0;
  bool passed() const;
  // The error of a check by name; -1 if it was not made.
  double error(const std::string& name) const;
};

// Compares the outputs with attention in float64 (kernels/reference), every row where that takes
// some seconds, else rows spread over the sequence. Gates are those of DESIGN's numerics for inputs
// from N(0,1); with bf16 gradient partials on the wire 1.6e-3 sqrt(ranks). NaN agrees with NaN, an
// infinity with the same infinity.
//
// Gradients are compared with the reference's own where all rows are affordable. Else sampled rows
// with those of the float32 o and lse that stand (stored_state_gradients.h), which are themselves
// compared: a sample from the definition would cost a softmax over every row first.
Verification Verify(const RunFlags& flags, const Problem& problem, const ProblemTensors& tensors);

}  // namespace annulus::cli
