// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/io/tensor_file.h"

namespace annulus::io {

// The safetensors format: 8 bytes of header length (little endian), that many bytes of JSON
// {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ..., "__metadata__": {text: text}},
// then the data, which the offsets count from and which the tensors cover without hole or overlap.
struct Safetensors {
  NamedTensors tensors;                            // views into the parsed bytes
  std::map<std::string, std::string> other_types;  // tensors of other types: name -> dtype
  std::map<std::string, std::string> metadata;
};

// Longest header taken; the format's own limit.
inline constexpr uint64_t kSafetensorsHeaderMax = 100'000'000;

// `file` is a whole file and outlives the views. INVALID_ARGUMENT: what is wrong, what was expected
// and what was got. Bounded: memory in proportion to the header, no recursion.
absl::StatusOr<Safetensors> ParseSafetensors(std::span<const std::byte> file);

// Writes atomically. INVALID_ARGUMENT: a tensor whose bytes are not what its shape says, or named
// "__metadata__".
absl::Status WriteSafetensors(const std::string& path, const NamedTensors& tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace annulus::io
