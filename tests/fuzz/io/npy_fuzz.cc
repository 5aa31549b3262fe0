// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <span>

#include "client/io/npy.h"

// What is accepted must hold together: a view that ends with the file, as long as its shape says.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  const absl::StatusOr<annulus::io::TensorView> tensor = annulus::io::ParseNpy(file);
  if (!tensor.ok()) return 0;
  const auto bytes =
      annulus::io::TensorBytes(tensor->shape, annulus::io::ElementBytes(tensor->dtype));
  if (!bytes.ok() || *bytes != tensor->bytes.size()) std::abort();
  if (tensor->bytes.data() + tensor->bytes.size() != file.data() + file.size()) std::abort();
  return 0;
}
