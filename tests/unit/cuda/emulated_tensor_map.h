// SPDX-License-Identifier: Apache-2.0
#pragma once

// Tensor maps of the emulated copy engine: what the driver's encoder refuses is refused, and a load
// reads the panel that the map and the coordinates say.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/tensor_map.h"

namespace annulus::kernels::cuda {

// INVALID_ARGUMENT for what cuTensorMapEncodeTiled does not take.
absl::StatusOr<TensorMap> EncodeEmulatedMap(const TensorMapSpec& spec);

int BoxRows(const TensorMap& map);

// The panel of box_rows x kPanelColumns elements at (column, row, head, batch), row by row; zero
// outside the tensor.
std::vector<uint16_t> ReadPanel(const TensorMap& map, int column, int row, int head, int batch);

}  // namespace annulus::kernels::cuda
