// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "annulus/tensor.h"
#include "client/src/region.h"

namespace annulus::client {

// A tensor of the shape of `view` in a region of its own. An empty one is legal and has no memory.
// INVALID_ARGUMENT on negative or overflowing extents.
absl::StatusOr<Tensor> NewTensor(RegionRegistry* registry, TensorView view);

}  // namespace annulus::client
