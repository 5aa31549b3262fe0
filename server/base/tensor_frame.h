// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace annulus {

// The wire form of annulus.v1.TensorFrame, written and read by hand so that tensor bytes are never
// copied through a protobuf string. It stays valid protobuf: `data` (field 15) is the last field of
// a frame, so a frame is a small header followed by the bytes themselves.
//
//   std::string header = EncodeTensorFrameHeader({session, tensor, offset}, bytes);
//   send the slices {header, payload};
//   ...
//   ANNULUS_ASSIGN_OR_RETURN(TensorFrameView frame, ParseTensorFrame(slices));
//   for (std::string_view piece : frame.data) ...
struct TensorFrameHeader {
  std::string session_id;  // first frame of a stream only
  std::string tensor_id;   // first frame of a stream only
  uint64_t offset = 0;
  friend bool operator==(const TensorFrameHeader&, const TensorFrameHeader&) = default;
};

struct TensorFrameView {
  TensorFrameHeader header;
  uint64_t data_bytes = 0;
  std::vector<std::string_view> data;  // within the parsed slices, in order
};

// Largest payload of one frame, and the size that senders should use.
inline constexpr size_t kMaxTensorFrameBytes = size_t{4} << 20;
inline constexpr size_t kTensorFrameBytes = size_t{2} << 20;
// Longest session or tensor id in a frame.
inline constexpr size_t kMaxTensorFrameId = 64;

// What comes before `data_bytes` bytes of payload.
std::string EncodeTensorFrameHeader(const TensorFrameHeader& header, size_t data_bytes);

// Reads one frame that lies in `slices` (in order; borders may fall anywhere). INVALID_ARGUMENT for
// anything but a well-formed frame: truncated or overlong numbers, an id or a payload over its
// limit, bytes after `data`, groups. Fields that this version does not know are skipped. Bounded by
// the input; allocates only the two ids and the list of pieces.
absl::StatusOr<TensorFrameView> ParseTensorFrame(absl::Span<const std::string_view> slices);

}  // namespace annulus
