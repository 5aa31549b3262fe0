// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "client/io/safetensors.h"

namespace {

using annulus::io::ParseSafetensors;
using annulus::io::Safetensors;

// What is accepted must hold together: every view inside the file and as long as its shape says.
void ParseAndCheck(std::span<const std::byte> file) {
  const absl::StatusOr<Safetensors> parsed = ParseSafetensors(file);
  if (!parsed.ok()) return;
  for (const auto& [name, tensor] : parsed->tensors) {
    const auto bytes =
        annulus::io::TensorBytes(tensor.shape, annulus::io::ElementBytes(tensor.dtype));
    if (!bytes.ok() || *bytes != tensor.bytes.size()) std::abort();
    if (tensor.bytes.data() < file.data() ||
        tensor.bytes.data() + tensor.bytes.size() > file.data() + file.size()) {
      std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> input(data, size);
  ParseAndCheck(std::as_bytes(input));
  // Again with a true header length, where the mutation would else end at the first check: what is
  // after the last '}' is data.
  size_t end = size;
  while (end > 8 && data[end - 1] != '}') --end;
  if (end <= 8) return 0;
  std::vector<uint8_t> mended(data, data + size);
  const uint64_t length = end - 8;
  std::memcpy(mended.data(), &length, sizeof(length));
  ParseAndCheck(std::as_bytes(std::span(mended)));
  return 0;
}
