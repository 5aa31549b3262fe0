// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace annulus::io {

// The JSON header of a safetensors file, its grammar checked and nothing else.
struct SafetensorsHeader {
  struct Tensor {
    std::string dtype;
    std::vector<int64_t> shape;
    uint64_t begin = 0;
    uint64_t end = 0;
  };
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

inline constexpr char kMetadataKey[] = "__metadata__";

// Read event by event, so that deep or wide nonsense is refused where it starts. INVALID_ARGUMENT:
// not JSON, a key twice, unknown or missing, a value of the wrong kind.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view json);

}  // namespace annulus::io
