// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/io/tensor_file.h"

namespace annulus::io {

// NumPy's .npy, versions 1 and 2: one array, little endian, C order, float32 ('<f4') or float16
// ('<f2'). The format has no bfloat16: arrays of two raw bytes ('V2'), as which bfloat16 is saved,
// are refused with that reason.

// `file` is a whole file and outlives the view. INVALID_ARGUMENT: what is wrong, what was expected
// and what was got.
absl::StatusOr<TensorView> ParseNpy(std::span<const std::byte> file);

// Writes atomically. INVALID_ARGUMENT: bfloat16, or bytes that are not what the shape says.
absl::Status WriteNpy(const std::string& path, const TensorView& tensor);

}  // namespace annulus::io
