// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "client/src/segments.h"

namespace annulus::client {

// A v1.TensorFrame whose `data` are the next at most kTensorFrameBytes of the cursor, by reference
// where the pieces are long: the memory must stand until the frame is sent. `session_id` and
// `tensor_id` are left out when empty (they are sent in the first frame only).
grpc::ByteBuffer EncodeFrame(const std::string& session_id, const std::string& tensor_id,
                             SegmentCursor* cursor);

// Copies the data of a v1.TensorFrame to where the cursor stands. DATA_LOSS if the frame is
// malformed, does not start at the cursor's offset or carries more than is left.
absl::Status DecodeFrame(const grpc::ByteBuffer& buffer, SegmentCursor* cursor, size_t bytes_left);

}  // namespace annulus::client
