// SPDX-License-Identifier: Apache-2.0
#pragma once

// The cuDNN of the tests: computes in float64 on the fake driver's memory and rounds as the library
// does. Linked in the place of kernels/cuda/cudnn/library.cc; every failure can be asked for.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/cudnn/cudnn_api.h"

namespace annulus::kernels::cuda {

// What the libraries opened from now on do, and what was seen. One for the whole program: reset it
// at the start of a test.
struct FakeCudnnState {
  absl::Status open, build, execute;
  size_t workspace_bytes = 1000;  // written all over by each execution

  std::vector<AttentionShape> built;
  std::vector<AttentionShape> executed;
  int plans = 0;  // alive
};

FakeCudnnState& FakeCudnn();

}  // namespace annulus::kernels::cuda
