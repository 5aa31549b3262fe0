// SPDX-License-Identifier: Apache-2.0
// Bytes of a tensor stream: a frame is refused, or its parts lie within the input and make the same
// frame again. The first byte says where the input is cut into slices.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/tensor_frame.h"

namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t stride = size_t{data[0]} + 1;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::vector<std::string_view> slices;
  for (size_t at = 0; at < bytes.size(); at += stride) slices.push_back(bytes.substr(at, stride));

  const auto frame = annulus::ParseTensorFrame(slices);
  if (!frame.ok()) return 0;
  std::string payload;
  for (const std::string_view piece : frame->data) {
    Require(piece.data() >= bytes.data());
    Require(piece.data() + piece.size() <= bytes.data() + bytes.size());
    payload.append(piece);
  }
  Require(payload.size() == frame->data_bytes);

  const std::string again =
      annulus::EncodeTensorFrameHeader(frame->header, frame->data_bytes) + payload;
  const std::string_view whole[] = {again};
  const auto reread = annulus::ParseTensorFrame(whole);
  Require(reread.ok() && reread->header == frame->header);
  Require(reread->data_bytes == frame->data_bytes);
  return 0;
}
